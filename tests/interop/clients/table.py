"""Which client passes what: the tests with a ``client`` mark, as a table."""

from collections.abc import Iterable

import pytest
from tests.support.versions import version_of

# What a client is tried with, in the table's order: the word for ``proves``, and what it stands for.
COLUMNS = {
    "silent": "signed in without a click",
    "click": "asked the first time, and not the second",
    "deny": "told that the person said no",
    "pkce": "codes are bound to who asked for them (PKCE, S256)",
    "refresh": "a refresh token gives new tokens, and the next one",
    "replay": "a refresh token that comes twice ends its family",
    "policy": "taken out of the policy between two refreshes",
    "logout": "signed out, by the app or by the issuer",
    "rotation": "the issuer's keys change meanwhile",
    "iss": "an answer of another issuer is refused (mix-up)",
    "audience": "a token for somebody else is refused",
    "skew": "clocks that are a minute apart",
    "outside": "nobody is known by the connection",
    "tagged": "a tagged device signs nobody in",
    "more": "other parts of the standards",
}
_LETTERS = {"passed": "ok", "failed": "FAIL", "skipped": "FAIL"}


class Table:
    """A pytest plugin that remembers how each client did."""

    def __init__(self) -> None:
        self._clients: dict[str, tuple[str, dict[str, set[str]]]] = {}
        self._marks: dict[str, tuple[str, str, tuple[str, ...]]] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Learn which test is about which client."""
        for item in items:
            mark = item.get_closest_marker("client")
            if mark is not None:
                name, source = mark.args
                columns = tuple(word for one in item.iter_markers("proves") for word in one.args)
                self._marks[item.nodeid] = (name, source, columns)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Learn how a test went. One that was skipped has proven nothing."""
        marks = self._marks.get(report.nodeid)
        if marks is None or (report.when != "call" and report.outcome == "passed"):
            return
        name, source, columns = marks
        _, cells = self._clients.setdefault(name, (source, {}))
        for column in columns:
            cells.setdefault(column, set()).add(report.outcome)

    def lines(self) -> Iterable[str]:
        """The table, and what its columns mean."""
        shown = [word for word in COLUMNS if any(word in cells for _, cells in self._clients.values())]
        rows = [
            (
                name,
                version_of(name, source),
                *(_cell(cells.get(word)) for word in shown),
                "FAIL" if any(each - {"passed"} for each in cells.values()) else "pass",
            )
            for name, (source, cells) in sorted(self._clients.items())
        ]
        head = ("client", "version", *shown, "result")
        widths = [max(len(row[at]) for row in (head, *rows)) for at in range(len(head))]
        for row in (head, *rows):
            yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        yield ""
        for word in shown:
            yield f"{word:9} {COLUMNS[word]}"


def _cell(outcomes: set[str] | None) -> str:
    if outcomes is None:
        return "-"
    return _LETTERS["passed" if outcomes == {"passed"} else "failed"]
