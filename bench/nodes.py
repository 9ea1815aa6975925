"""The rows about the coordination server, and what each is measured beside. The measurements are in ``bench.control``."""

import statistics
from collections.abc import Callable, Coroutine
from typing import Any

import uvloop

from bench import baselines
from bench.control import Taken, measure
from bench.table import Better, Figures, Found, Group, Options, Row
from doorward.telemetry import configure

CHANGES = 3  # in each round
MESH = 300
GROWTH = (100, 300, 600, 1000)
HEADSCALE = "a 2026 Headscale on a like machine, another run"


# In a smoke run all sizes are one size, so that rows may share what was taken.
_shared: dict[tuple[object, ...], Any] = {}


def _take(
    options: Options, what: Callable[..., Coroutine[Any, Any, Any]], *arguments: object, storm: bool = False
) -> Any:
    key = (what, *arguments, storm)
    if options.smoke and key in _shared:
        return _shared[key]
    configure(level="warning")
    _shared[key] = made = uvloop.run(what(*arguments, storm=True) if storm else what(*arguments))
    return made


def _streams(count: int) -> str:
    """What a figure is of: the text of a row says it of an ordinary run."""
    return f"{count:,} streams"


def _each(every: list[Taken], what: str) -> str:
    """What a node cost the worker and its client: who of them is the slower, where both have a core."""
    worker, client = (
        1000 * statistics.median(getattr(taken, f"{what}_{side}") / taken.count for taken in every)
        for side in ("cpu", "client")
    )
    return f"worker {worker:.2f} ms, client {client:.2f} ms"


def _changes(found: Found, name: str, every: list[Taken]) -> None:
    """The two rows of one change; both have the same baseline, one stream's cost times the streams."""
    naive = [baselines.change(200) for _ in range(max(len(every), 3))]
    cost = [1e6 * each for taken in every for each in taken.change_cpu]
    walls = [wall for taken in every for wall in taken.changes]
    found[f"{name}-cpu"] = Figures(cost, [1e6 * each for each in naive], f"{every[0].seers:,} streams see it")
    found[f"{name}-wall"] = Figures(walls, [each * every[0].seers for each in naive])


def star(options: Options) -> Found:
    """Registrations, memory and one change, where everyone sees one hub."""
    found: Found = {}
    rounds = range(options.rounds)
    commits = [baselines.commits(0.1 if options.smoke else 1.0) for _ in rounds]
    every = [_take(options, measure, "star", options.nodes, CHANGES) for _ in rounds]
    bare = [_take(options, baselines.streams, options.nodes) for _ in rounds]
    note = f"CPU each: {_each(every, 'joined')}; Headscale 12 to 24/s ({HEADSCALE})"
    found["registrations"] = Figures([taken.rate for taken in every], commits, note)
    found["memory-star"] = Figures([float(taken.memory) for taken in every], bare, _streams(options.nodes))
    _changes(found, "change", every)
    return found


def big_star(options: Options) -> Found:
    """Memory and one change with many streams; one fleet, because it takes a minute to join."""
    found: Found = {}
    taken = _take(
        options, measure, "star", options.many, CHANGES if options.smoke else max(5, options.rounds)
    )
    bare = [_take(options, baselines.streams, options.many)]
    found["memory-many"] = Figures([float(taken.memory)], bare, _streams(options.many))
    _changes(found, "change-many", [taken])
    return found


def teams(options: Options) -> Found:
    """Memory, and the storm, where people see their own 50 nodes."""
    found: Found = {}
    rounds = range(options.rounds)
    every = [_take(options, measure, "teams", options.nodes, 1, storm=True) for _ in rounds]
    bare = [_take(options, baselines.streams, options.nodes) for _ in rounds]
    hands = [baselines.handshakes(options.nodes) for _ in rounds]
    found["memory-teams"] = Figures([float(taken.memory) for taken in every], bare, _streams(options.nodes))
    note = f"{options.nodes:,} nodes; CPU each: {_each(every, 'back')}"
    found["storm"] = Figures([taken.back for taken in every], hands, note)
    return found


def mesh(options: Options) -> Found:
    """Everyone joins, and everyone learns of everyone."""
    count = 30 if options.smoke else MESH
    every = [_take(options, measure, "mesh", count, 0) for _ in range(options.rounds)]
    encoding = [baselines.maps(count) for _ in range(options.rounds)]
    sent = statistics.median(taken.megabytes for taken in every)
    wall = statistics.median(taken.joined + taken.first + taken.settled for taken in every)
    note = f"{wall:.1f} s, {sent:.0f} MB of JSON; Headscale 45 CPU-s, 104 MB ({HEADSCALE})"
    return {"mesh": Figures([taken.whole_cpu for taken in every], encoding, note)}


def growth(options: Options) -> Found:
    """The same for fewer and more nodes, once each."""
    sizes = (30,) if options.smoke else GROWTH
    every = [_take(options, measure, "mesh", size, 0) for size in sizes]
    each = ", ".join(f"{taken.count:,}: {taken.whole_cpu:.1f} CPU-s" for taken in every)
    return {"mesh-growth": Figures([every[-1].whole_cpu], [baselines.maps(sizes[-1])], each)}


_NAIVE = "nothing shared: standard JSON, zstd, h2 library, AEAD, write"
_BARE = "bare TCP streams, same libraries loaded"
_STREAMS = "{} map streams, {}: memory of the worker"
_MAPS = "everyone's map by json.dumps alone"

GROUPS = (
    Group(
        name="control, star",
        rows=(
            Row(
                id="registrations",
                what="durable registrations, audit included",
                unit="/s",
                baseline="bare SQLite, one fsync each",
                must=100,
                aim=400,
                better=Better.MORE,
            ),
            Row(id="memory-star", what=_STREAMS.format("2,000", "star"), unit="MB", baseline=_BARE, must=120),
            Row(
                id="change-cpu",
                what="one node's change to 2,000 streams: CPU of each",
                unit="us",
                baseline=_NAIVE,
                must=100,
                aim=25,
            ),
            Row(
                id="change-wall",
                what="the same, until the last knows",
                unit="s",
                baseline="CPU-s of the above for all",
                must=1,
            ),
        ),
        run=star,
        seconds=130,
    ),
    Group(
        name="control, big star",
        rows=(
            Row(id="memory-many", what=_STREAMS.format("10,000", "star"), unit="MB", baseline=_BARE, aim=400),
            Row(
                id="change-many-cpu",
                what="one node's change to 10,000 streams: CPU of each",
                unit="us",
                baseline=_NAIVE,
                aim=25,
            ),
            Row(
                id="change-many-wall",
                what="the same, until the last knows",
                unit="s",
                baseline="CPU-s of the above for all",
                aim=0.5,
            ),
        ),
        run=big_star,
        seconds=90,
    ),
    Group(
        name="control, teams",
        rows=(
            Row(
                id="memory-teams",
                what=_STREAMS.format("2,000", "teams of 50"),
                unit="MB",
                baseline=_BARE,
                must=120,
            ),
            Row(
                id="storm",
                what="2,000 nodes in teams of 50, worker killed: all back with full maps",
                unit="s",
                baseline="their Noise handshakes alone, CPU-s",
                must=30,
                aim=8,
            ),
        ),
        run=teams,
        seconds=150,
    ),
    Group(
        name="control, mesh",
        rows=(
            Row(
                id="mesh",
                what="300 nodes join until everyone has everyone",
                unit="CPU-s",
                baseline=_MAPS,
                must=20,
                aim=4,
            ),
        ),
        run=mesh,
        seconds=40,
    ),
    Group(
        name="control, growth",
        rows=(Row(id="mesh-growth", what="the same with 1,000 nodes", unit="CPU-s", baseline=_MAPS),),
        run=growth,
        seconds=60,
    ),
)
