"""How answers look: tables for people, JSON for programs, questions only where somebody can answer them.

Much of what is shown was written by others: any node chooses its own hostname. So nothing reaches the terminal that the
terminal would obey.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from doorward.api.types import Diagnostic
from doorward.errors import BadInput


def clean(text: str) -> str:
    """The text with every character that a terminal would obey, or that turns the reading direction, made visible."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def line(text: str = "") -> None:
    """Print one line."""
    sys.stdout.write(clean(text) + "\n")


def note(text: str) -> None:
    """Print one line that is not the answer: to stderr."""
    sys.stderr.write(clean(text) + "\n")


def raw(text: str) -> None:
    """Print text as it is, which must be ours or asked for (a policy, a certificate); ends with a line end."""
    sys.stdout.write(text if text.endswith("\n") or not text else text + "\n")


def as_json(value: Any) -> None:
    """Print a value as indented JSON; times are RFC 3339."""
    raw(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, empty: str) -> None:
    """Print rows under their column names, or the sentence ``empty`` where there are none.

    On a terminal, cells fold to its width; in a pipe every row is one line.
    """
    from rich.console import Console  # noqa: PLC0415 - slow to load, and most commands print no table
    from rich.table import Table  # noqa: PLC0415 - slow to load, and most commands print no table
    from rich.text import Text  # noqa: PLC0415 - slow to load, and most commands print no table

    found = [[Text(clean(cell)) for cell in row] for row in rows]
    if not found:
        line(empty)
        return
    shape = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        shape.add_column(column, overflow="fold")
    for row in found:
        shape.add_row(*row)
    console = Console(file=sys.stdout, highlight=False, markup=False)
    if not console.is_terminal:
        console.width = 10_000
    with console.capture() as capture:
        console.print(shape)
    # The padding of the last column is of no use to anybody, and in the way of whoever copies the text.
    sys.stdout.write("".join(text.rstrip() + "\n" for text in capture.get().splitlines()))


def fields(pairs: Mapping[str, str | Sequence[str]]) -> None:
    """Print names and values, one below the other; a value of several parts takes several lines, none none."""
    width = max(map(len, pairs), default=0) + 2
    for name, value in pairs.items():
        values = [value] if isinstance(value, str) else list(value)
        for index, each in enumerate(values):
            line(f"{name if index == 0 else '':{width}}{each}".rstrip())


def diagnostics(file: str, found: Iterable[Diagnostic], *, label: str = "") -> None:
    """Print what is wrong in a file to stderr, as editors understand it: FILE:LINE:COLUMN: MESSAGE, then the cure."""
    for each in found:
        note(f"{file}:{each.line}:{each.column}: {label}{each.message}")
        if each.cure:
            note(f"  {each.cure}")


def confirm(question: str, *, yes: bool) -> bool:
    """Ask on a terminal; ``yes`` answers at once.

    Raises:
        BadInput: where nobody can be asked, because a script must say what it means.
    """
    if yes:
        return True
    if not sys.stdin.isatty():
        raise BadInput("this needs a confirmation, and there is no terminal to ask on", cure="Add --yes.")
    sys.stderr.write(clean(question) + " [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in {"y", "yes"}
