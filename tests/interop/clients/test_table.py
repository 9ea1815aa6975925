import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.interop.clients.table import COLUMNS, Table

HERE = Path(__file__).parent


class Item:
    def __init__(self, nodeid: str, *marks: pytest.Mark) -> None:
        self.nodeid = nodeid
        self._marks = marks

    def get_closest_marker(self, name: str) -> pytest.Mark | None:
        return next((mark for mark in self._marks if mark.name == name), None)

    def iter_markers(self, name: str) -> list[pytest.Mark]:
        return [mark for mark in self._marks if mark.name == name]


def _table(*outcomes: tuple[str, str, str]) -> list[str]:
    client = pytest.mark.client("authlib", "pypi:dev").mark
    table = Table()
    items: Any = [
        Item(node, client, pytest.mark.proves(column).mark)
        for node, column in {(node, column) for node, column, _ in outcomes}
    ]
    items.append(Item("of no client"))
    table.pytest_collection_modifyitems(items)
    for node, _, outcome in outcomes:
        report: Any = SimpleNamespace(nodeid=node, when="call", outcome=outcome)
        table.pytest_runtest_logreport(report)
    return list(table.lines())


def test_a_row_has_the_version_and_what_was_proven() -> None:
    head, row, *_ = _table(("a", "silent", "passed"), ("b", "refresh", "passed"))
    assert head.split() == ["client", "version", "silent", "refresh", "result"]
    assert re.fullmatch(r"authlib +1\.\S+ +ok +ok +pass", row)


@pytest.mark.parametrize("outcome", ["failed", "skipped"])
def test_what_failed_or_was_left_out_is_no_pass(outcome: str) -> None:
    _, row, *_ = _table(("a", "silent", "passed"), ("b", "silent", outcome), ("c", "pkce", "passed"))
    assert row.split()[2:] == ["FAIL", "ok", "FAIL"]


def test_every_test_of_a_client_says_what_it_proves() -> None:
    for file in HERE.glob("test_*.py"):
        text = file.read_text(encoding="utf-8")
        if file.name == Path(__file__).name:
            continue
        assert "pytest.mark.client(" in text, file.name
        tests = re.findall(r"(?m)^(?:async )?def test_", text)
        said = re.findall(r"(?m)^@pytest\.mark\.proves\(([^)]*)\)", text)
        assert len(tests) == len(said), file.name
        words = {word for one in said for word in re.findall(r'"([a-z]+)"', one)}
        assert words <= set(COLUMNS), file.name
