"""Throws bytes at every parser: ``python -m tests.fuzz [--seconds N] [--target NAME] [--seed N] [--jobs N]``.

A target is a module in ``tests/fuzz/targets`` with ``fuzz(data)``, which must not raise, ``COVERS``, the functions of the
product that it feeds, ``LIMIT``, the bytes of the largest input that the product lets in there, and perhaps ``SEEDS`` and
``WORDS``, which inputs are made from. Each runs in a process of its own, for ``--seconds`` of the processor. What fails is
written to ``tests/fuzz/crashes/TARGET/`` and, once mended, stays there: ``tests/fuzz/test_fuzz.py`` replays every file there.
"""

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from tests.fuzz.engine import limit_memory, load_targets, run

from doorward.telemetry import configure


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Throw bytes at every parser.")
    parser.add_argument("--seconds", type=float, default=30.0, help="of the processor, for each target")
    parser.add_argument("--target", help="only this one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="targets at the same time")
    asked = parser.parse_args()
    found = load_targets()
    if asked.target is not None:
        limit_memory()
        with open(os.devnull, "w", encoding="utf-8") as nowhere:  # noqa: PTH123 - a device
            configure(level="error", stream=nowhere)
            report = run(found[asked.target], asked.seconds, asked.seed)
        sys.stdout.write(report.line() + "\n")
        return 1 if report.faults else 0

    def one(name: str) -> int:
        command = [sys.executable, "-m", "tests.fuzz", "--target", name]
        return subprocess.run(
            [*command, "--seconds", str(asked.seconds), "--seed", str(asked.seed)], check=False
        ).returncode

    with ThreadPoolExecutor(asked.jobs) as threads:
        return max(threads.map(one, found), key=abs)


if __name__ == "__main__":
    sys.exit(main())
