"""How answers look: tables for people, JSON for programs, questions only where somebody can answer them.

Much of what is shown was written by others: any node chooses its own hostname. So nothing reaches the terminal that the
terminal would obey.
"""

import shutil
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

    Every row is one line, but on a terminal that is too narrow: there, cells fold and nothing is lost.
    """
    found = [[clean(cell) for cell in row] for row in rows]
    if not found:
        line(empty)
        return
    terminal = sys.stdout.isatty()
    widths = [max(map(_width, column)) for column in zip(columns, *found, strict=True)]
    if terminal and sum(widths) + 2 * (len(widths) - 1) > shutil.get_terminal_size().columns:
        _fold(columns, found)
        return
    for index, row in enumerate((columns, *found)):
        cells = (cell + " " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True))
        text = "  ".join(cells).rstrip()
        sys.stdout.write(f"\x1b[1m{text}\x1b[0m\n" if terminal and index == 0 else text + "\n")


def _width(text: str) -> int:
    """Columns that a text takes on a terminal."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len  # noqa: PLC0415 - slow to load, and most names are ASCII

    return cell_len(text)


def _fold(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table whose cells take several lines."""
    from rich.console import Console  # noqa: PLC0415 - a fifth of the command's time, and rarely needed
    from rich.table import Table  # noqa: PLC0415 - same
    from rich.text import Text  # noqa: PLC0415 - same

    shape = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        shape.add_column(column, overflow="fold")
    for row in rows:
        shape.add_row(*map(Text, row))
    Console(file=sys.stdout, highlight=False, markup=False).print(shape)


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
