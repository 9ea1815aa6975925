"""``python -m tests.soak [--minutes 60] [--nodes 300]``: ends with a table, and with 1 when something grows."""

import argparse
import asyncio
import sys

import uvloop
from tests.soak.measured import verdict_of_a_minute
from tests.soak.soak import soak

from doorward.telemetry import configure


def main() -> int:
    """Run and judge."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="Churn, and what it leaves.")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--nodes", type=int, default=300)
    parser.add_argument("--every", type=float, default=15.0, help="seconds between two samples")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--short", action="store_true", help="one minute, faster, judged by bounds")
    asked = parser.parse_args()
    configure(level="error")
    run = (
        soak(seconds=60, nodes=50, every=5, seed=asked.seed, pace=0.7, judge=verdict_of_a_minute)
        if asked.short
        else soak(
            seconds=asked.minutes * 60, nodes=asked.nodes, every=asked.every, seed=asked.seed, say=print
        )
    )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found = runner.run(run)
    print(found.report())  # noqa: T201 - what it is for
    return 1 if found.faults else 0


if __name__ == "__main__":
    sys.exit(main())
