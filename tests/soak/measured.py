"""What a worker holds on to, sampled from outside, and whether that grows."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

# What is allowed. A worker that leaks a kilobyte for each node that comes and goes, or each connection, is far above the first
# within an hour; the allocator's own drift is below it. Descriptors and threads come and go with connections.
MOST_MIB_AN_HOUR = 12.0
MOST_DESCRIPTORS_AN_HOUR = 20.0
# Of a run, the part that is not judged: caches fill, the allocator finds its size.
WARM_UP = 1 / 3

# Tables whose rows belong to what lives now. The audit log and the history of policies grow by design.
BOUNDED = ("nodes", "node_observations", "registrations", "changes", "processes", "settings", "users")


class Sample(NamedTuple):
    """One look at the worker and its database."""

    seconds: float  # since the start of the run
    anonymous: float  # MiB of the worker's own memory, swapped out or not
    proportional: float  # MiB, shared pages by their share
    descriptors: int
    threads: int
    tasks: int
    streams: int
    relayed: int  # node keys at the relay
    cpu: float  # seconds so far
    rows: dict[str, int]  # by table
    database: float  # MiB of the file and its log


def sample(pid: int, folder: Path, seconds: float, metrics: str) -> Sample:
    """Look once. ``metrics`` is the worker's own exposition."""
    process = Path(f"/proc/{pid}")
    status = _fields(process / "status")
    smaps = _fields(process / "smaps_rollup")
    files = [folder / "doorward.db", folder / "doorward.db-wal"]
    return Sample(
        seconds,
        (status["RssAnon"] + status["VmSwap"]) / 1024,
        smaps["Pss"] / 1024,
        len(list((process / "fd").iterdir())),
        status["Threads"],
        int(metric(metrics, "doorward_tasks")),
        int(metric(metrics, "doorward_map_streams")),
        int(metric(metrics, "doorward_relay_clients")),
        _cpu(process),
        _rows(folder / "doorward.db"),
        sum(file.stat().st_size for file in files if file.exists()) / (1 << 20),
    )


def metric(exposition: str, name: str) -> float:
    """The sum of a metric over its labels; 0 where there is none yet."""
    found = (line.rpartition(" ") for line in exposition.splitlines() if not line.startswith("#"))
    return sum(float(value) for head, _, value in found if head.partition("{")[0] == name)


def slope(samples: Sequence[Sample], field: str) -> float:
    """By how much a figure grows in an hour: the least squares' line through what came after the warm-up."""
    judged = after_warm_up(samples)
    points = [(one.seconds / 3600, float(getattr(one, field))) for one in judged]
    middle_x = sum(x for x, _ in points) / len(points)
    middle_y = sum(y for _, y in points) / len(points)
    width = sum((x - middle_x) ** 2 for x, _ in points)
    return sum((x - middle_x) * (y - middle_y) for x, y in points) / width if width else 0.0


def after_warm_up(samples: Sequence[Sample]) -> Sequence[Sample]:
    """Those that count."""
    return [one for one in samples if one.seconds >= samples[-1].seconds * WARM_UP]


def verdict(samples: Sequence[Sample]) -> list[str]:
    """What is not as it should be, in sentences; empty when all is well."""
    faults = []
    for field, most, unit in (
        ("anonymous", MOST_MIB_AN_HOUR, "MiB of memory"),
        ("descriptors", MOST_DESCRIPTORS_AN_HOUR, "descriptors"),
        ("tasks", MOST_DESCRIPTORS_AN_HOUR * 5, "tasks"),
    ):
        grown = slope(samples, field)
        if grown > most:
            faults.append(f"{grown:.1f} {unit} more in an hour; at most {most:g} are allowed")
    judged = after_warm_up(samples)
    for table in BOUNDED:
        first, last = judged[0].rows[table], judged[-1].rows[table]
        if last > 1.5 * first + 100:
            faults.append(f"the table {table} grew from {first} to {last} rows")
    return faults


def verdict_of_a_minute(samples: Sequence[Sample]) -> list[str]:
    """The same of a run that is all warm-up: caches and the allocator still find their size, so bounds and no slopes."""
    first, last = samples[0], samples[-1]
    faults = []
    if last.anonymous - first.anonymous > 60:
        faults.append(f"{last.anonymous - first.anonymous:.0f} MiB of memory more in a minute")
    if last.descriptors - first.descriptors > 80:
        faults.append(f"{last.descriptors - first.descriptors} descriptors more in a minute")
    if last.rows["nodes"] > 1.5 * first.rows["nodes"]:
        faults.append(f"{last.rows['nodes']} nodes, where {first.rows['nodes']} began")
    if last.streams < first.streams / 3:
        faults.append(f"{last.streams} map streams, where {first.streams} began")
    return faults


def table(samples: Sequence[Sample], lines: int = 12) -> str:
    """The samples for people, thinned out, and the slopes below."""
    step = max(1, len(samples) // lines)
    shown = [*samples[::step]]
    if shown[-1] is not samples[-1]:
        shown.append(samples[-1])
    out = [
        "| minute | memory, MiB | PSS, MiB | descriptors | tasks | streams | relay | CPU-s | nodes | audit rows | database, MiB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    out += [
        f"| {one.seconds / 60:.1f} | {one.anonymous:.1f} | {one.proportional:.1f} | {one.descriptors} | {one.tasks} "
        f"| {one.streams} | {one.relayed} | {one.cpu:.0f} | {one.rows['nodes']} | {one.rows['audit']} "
        f"| {one.database:.1f} |"
        for one in shown
    ]
    grown = {field: slope(samples, field) for field in ("anonymous", "descriptors", "tasks")}
    out += [
        "",
        (
            f"after the warm-up, in an hour: {grown['anonymous']:+.1f} MiB, "
            f"{grown['descriptors']:+.1f} descriptors, {grown['tasks']:+.1f} tasks"
        ),
    ]
    return "\n".join(out)


def _fields(file: Path) -> dict[str, int]:
    """The numbers of a ``Name:  123 kB`` file of procfs."""
    found: dict[str, int] = {}
    for line in file.read_text(encoding="ascii").splitlines():
        name, _, rest = line.partition(":")
        first = rest.split()[:1]
        if first and first[0].isdecimal():
            found[name] = int(first[0])
    return found


def _cpu(process: Path) -> float:
    threads = (process / "task").iterdir()
    return sum(int((one / "schedstat").read_text(encoding="ascii").split()[0]) for one in threads) / 1e9


def _rows(file: Path) -> dict[str, int]:
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=5)) as connection:
        names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {
            name: connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0]
            for name in names
            if not name.startswith("sqlite_")
        }
