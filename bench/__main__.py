"""``python -m bench``: everything that is measured, as one table.

Each group of rows runs in a process of its own, one after the other. With ``--smoke`` only their working counts, so the
groups of a module share a process, and the modules run at the same time. Progress goes to stderr.
"""

import argparse
import asyncio
import itertools
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
from tests.support.require import Missing

from bench import browser, issuer, journeys, nodes, overload, policy, relay, several
from bench.machine import about, lift_limits
from bench.table import Figures, Found, Group, Options, as_json, lines_in, markdown, write_into
from doorward.engine.processes import tied_to_us

MODULES = (journeys, browser, nodes, several, issuer, policy, relay, overload)
GROUPS: tuple[Group, ...] = tuple(itertools.chain.from_iterable(module.GROUPS for module in MODULES))
AT_ONCE = 3  # modules of a smoke run: one of them mostly waits
ROWS = tuple(itertools.chain.from_iterable(group.rows for group in GROUPS))


def measure(group: Group, options: Options) -> Found:
    """Run a group here; what cannot run here says why."""
    try:
        return group.run(options)
    except Missing as error:
        return {row.id: Figures(missing=str(error)) for row in group.rows}


async def apart(groups: Sequence[Group], arguments: list[str]) -> Found:
    """Run groups in a process of their own. One that fails costs its own rows and no other."""
    names, load = [group.name for group in groups], os.getloadavg()[0]
    command = [sys.executable, "-m", "bench", *arguments, "--groups", *names]
    process = await asyncio.create_subprocess_exec(*tied_to_us(command), stdout=asyncio.subprocess.PIPE)
    try:
        said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    if process.returncode:
        why = f"it ended with {process.returncode}; stderr says why"
        return {row.id: Figures(missing=why) for group in groups for row in group.rows}
    found = msgspec.json.decode(said, type=Found)
    for figures in found.values():
        figures.load = load
    return found


async def one_by_one(groups: Sequence[Group], arguments: list[str], rounds: int) -> Found:
    """Run the groups; tell on stderr which, and how long the rest may take."""
    found: Found = {}
    left = sum(group.seconds for group in groups) * rounds / 5
    began = time.monotonic()
    for place, group in enumerate(groups, 1):
        _say(f"{place} of {len(groups)}: {group.name}; about {max(1, round(left / 60))} min left")
        found |= await apart([group], arguments)
        left -= group.seconds * rounds / 5
    _say(f"done in {(time.monotonic() - began) / 60:.1f} min")
    return found


async def at_once(groups: Sequence[Group], arguments: list[str]) -> Found:
    """Run the groups of every module beside those of others, a few modules at a time."""
    lanes = [[group for group in module.GROUPS if group in groups] for module in MODULES]
    room = asyncio.Semaphore(AT_ONCE)

    async def run(lane: Sequence[Group]) -> Found:
        async with room:
            return await apart(lane, arguments)

    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(run(lane)) for lane in lanes if lane]
    return dict(itertools.chain.from_iterable(task.result().items() for task in running))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    """Print the table; 1 when a row could not be measured because its group failed."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="What is measured, as one table.")
    parser.add_argument(
        "--only", nargs="+", metavar="ID", help="only these rows, and those measured with them"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--nodes", type=int, default=2000, help="nodes of star and teams")
    parser.add_argument("--many", type=int, default=10_000, help="nodes of the big star")
    parser.add_argument("--json", type=Path, metavar="FILE", help="every sample, for programs")
    parser.add_argument(
        "--write",
        type=Path,
        metavar="FILE",
        help="put the rows into the table between the marks of this page",
    )
    parser.add_argument(
        "--smoke", action="store_true", help="everything tiny, for its working and not its figures"
    )
    parser.add_argument("--groups", nargs="+", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    options = Options(rounds=asked.rounds, nodes=asked.nodes, many=asked.many)
    arguments = ["--rounds", str(asked.rounds), "--nodes", str(asked.nodes), "--many", str(asked.many)]
    if asked.smoke:
        options = Options(rounds=1, nodes=40, many=40, smoke=True)
        arguments = ["--smoke"]
    if asked.groups:
        lift_limits()
        here = [measure(group, options) for group in GROUPS if group.name in asked.groups]
        sys.stdout.buffer.write(
            msgspec.json.encode(dict(itertools.chain.from_iterable(each.items() for each in here)))
        )
        return 0
    wanted = set(asked.only or [row.id for row in ROWS])
    unknown = wanted - {row.id for row in ROWS}
    if unknown:
        parser.error(
            f"no such row: {', '.join(sorted(unknown))}; there are {', '.join(row.id for row in ROWS)}"
        )
    groups = [group for group in GROUPS if wanted & {row.id for row in group.rows}]
    found = asyncio.run(
        at_once(groups, arguments) if options.smoke else one_by_one(groups, arguments, options.rounds)
    )
    print(markdown(ROWS, found, about()))
    if asked.json:
        asked.json.write_text(as_json(ROWS, found, about()), encoding="utf-8")
    if asked.write:
        # Rows of the page that were not measured now stay as they are.
        write_into(asked.write, markdown(ROWS, found, about(), lines_in(asked.write)))
    return int(any("ended with" in figures.missing for figures in found.values()))


if __name__ == "__main__":
    sys.exit(main())
