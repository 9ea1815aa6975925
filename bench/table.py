"""The one table: what a row is, what was found for it, and how both are shown."""

import json
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec

BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
BUSY = 1.5  # from this load average on a row says so
COMMAND = "python -m bench --only"


class Better(Enum):
    """Which way a figure should go."""

    LESS = "at most"
    MORE = "at least"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One thing that is measured.

    ``must`` and ``aim`` are of the median, or, with ``by_ratio``, of the median divided by the baseline's. A row without
    either is told for its own sake.
    """

    id: str
    what: str
    unit: str
    baseline: str = ""  # what it is measured beside
    must: float | None = None
    aim: float | None = None
    by_ratio: bool = False
    better: Better = Better.LESS


class Figures(msgspec.Struct):
    """What was found for a row: one figure for each round."""

    samples: list[float] = msgspec.field(default_factory=list)
    baseline: list[float] = msgspec.field(default_factory=list)
    note: str = ""
    missing: str = ""  # why there is none
    load: float = (
        0.0  # load average of the machine when it began: more than a little makes every figure worse
    )

    def median(self) -> float | None:
        """None without a figure."""
        return statistics.median(self.samples) if self.samples else None

    def ratio(self) -> float | None:
        """The median divided by the baseline's; None where one of them is missing or nothing."""
        base = statistics.median(self.baseline) if self.baseline else 0
        return statistics.median(self.samples) / base if base and self.samples else None


Found = dict[str, Figures]


@dataclass(frozen=True, kw_only=True)
class Options:
    """How thorough a run is."""

    rounds: int = 5
    nodes: int = 2000  # of star and teams
    many: int = 10_000  # of the big star
    smoke: bool = False  # everything tiny, for its working and not for its figures


@dataclass(frozen=True, kw_only=True)
class Group:
    """Rows that are measured together, in a process of their own."""

    name: str
    rows: tuple[Row, ...]
    run: Callable[[Options], Found]
    seconds: float  # about how long five rounds take on two cores


def number(value: float) -> str:
    """A figure with about three digits."""
    if value >= 1000:
        return f"{value:,.0f}"
    if value >= 100:
        return f"{value:.0f}"
    if value >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if value >= 0.095 or value == 0 else f"{value:.2g}"


def verdict(row: Row, found: Figures, target: float | None) -> str:
    """A target, and whether it is met."""
    if target is None:
        return ""
    bound = f"{row.better.value} {target:,g}"
    shown = f"ratio {bound}" if row.by_ratio else f"{bound}{_unit(row)}"
    value = found.ratio() if row.by_ratio else found.median()
    if value is None:
        return shown
    met = value <= target if row.better is Better.LESS else value >= target
    return f"{shown}: {'met' if met else '**not met**'}"


def _unit(row: Row) -> str:
    return row.unit if row.unit.startswith("/") else f" {row.unit}"


def cells(row: Row, found: Figures) -> list[str]:
    """The row as it is shown."""
    unit = _unit(row)
    start, ratio = [f"`{row.id}`", row.what], found.ratio()
    ends = [verdict(row, found, row.must), verdict(row, found, row.aim)]
    if not found.samples:
        return [*start, f"not measured: {found.missing}", row.baseline, "", *ends, _note(found)]
    middle = number(statistics.median(found.samples)) + unit
    if len(found.samples) > 1:
        middle += f" ({number(min(found.samples))} to {number(max(found.samples))}; n = {len(found.samples)})"
    base = row.baseline
    if found.baseline:
        base += f": {number(statistics.median(found.baseline))}{unit}"
    return [*start, middle, base, f"{ratio:.2f}" if ratio is not None else "", *ends, _note(found)]


def _note(found: Figures) -> str:
    busy = [f"measured at a load of {found.load:.0f}"] if found.load >= BUSY else []
    return "; ".join([*filter(None, [found.note]), *busy])


HEAD = ["row", "what", "median (range)", "baseline of the same run", "ratio", "must", "aim", "note"]


def markdown(
    rows: Sequence[Row],
    found: Mapping[str, Figures],
    about: Sequence[str],
    known: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """The table, with what machine it is of and how to repeat it. ``known`` has lines of rows that were measured before."""
    lines = [
        *about,
        "",
        f"Repeat a row with `{COMMAND} ID`, ID from the column *row*; all with `make bench`.",
        "",
    ]
    lines += [_line(HEAD), _line(["---"] * len(HEAD))]
    fresh = {row.id: _line(cells(row, found[row.id])) for row in rows if row.id in found}
    every = {**known, **fresh}
    return "\n".join([*lines, *(every[row.id] for row in rows if row.id in every)]) + "\n"


def _line(shown: Sequence[str]) -> str:
    return f"| {' | '.join(shown)} |"


def as_json(rows: Sequence[Row], found: Mapping[str, Figures], about: Sequence[str]) -> str:
    """The same for programs: every sample, and each row's command."""
    made: list[dict[str, Any]] = [
        {
            "id": row.id,
            "what": row.what,
            "unit": row.unit,
            "samples": found[row.id].samples,
            "median": found[row.id].median(),
            "baseline": {"what": row.baseline, "samples": found[row.id].baseline},
            "ratio": found[row.id].ratio(),
            "must": verdict(row, found[row.id], row.must),
            "aim": verdict(row, found[row.id], row.aim),
            "note": found[row.id].note,
            "load": found[row.id].load,
            "missing": found[row.id].missing,
            "command": f"{COMMAND} {row.id}",
        }
        for row in rows
        if row.id in found
    ]
    return json.dumps({"about": list(about), "rows": made}, indent=2) + "\n"


def lines_in(page: Path) -> dict[str, str]:
    """The lines of a page's table, by row."""
    table = page.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    return {
        line.split("`")[1]: line
        for line in table.splitlines()
        if line.startswith("| `") and line.count("|") == 9
    }


def write_into(page: Path, table: str) -> None:
    """Replace what stands between the two marks of the page, and nothing else. Raises ValueError without the marks."""
    text = page.read_text(encoding="utf-8")
    made, count = re.subn(
        f"{re.escape(BEGIN)}.*?{re.escape(END)}",
        lambda _: f"{BEGIN}\n{table}{END}",
        text,
        flags=re.DOTALL,
    )
    if count != 1:
        raise ValueError(f"{page} has not exactly one part between {BEGIN} and {END}")
    page.write_text(made, encoding="utf-8")
