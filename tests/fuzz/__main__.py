"""Throws bytes at every parser: ``python -m tests.fuzz [--seconds N] [--target NAME] [--seed N]``.

A target is a module in ``tests/fuzz/targets`` with ``fuzz(data)``, which must not raise. Inputs are mutations of what the
target names as ``SEEDS`` (if it does) and of earlier inputs. What fails is written to ``tests/fuzz/crashes/TARGET-HASH`` and,
once mended, stays there: ``tests/fuzz/test_fuzz.py`` replays every file of that folder.
"""

import argparse
import hashlib
import importlib
import pkgutil
import random
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.fuzz import targets

CRASHES = Path(__file__).parent / "crashes"
MAX_INPUT = 8192


def load_targets() -> dict[str, tuple[Callable[[bytes], None], list[bytes]]]:
    """Every target's function and seeds, by name."""
    found = {}
    for module_info in pkgutil.iter_modules(targets.__path__):
        module = importlib.import_module(f"tests.fuzz.targets.{module_info.name}")
        found[module_info.name] = (module.fuzz, list(getattr(module, "SEEDS", [])))
    return found


def mutations(seeds: list[bytes], chance: random.Random) -> Iterator[bytes]:
    """An endless stream of inputs: seeds with bytes flipped, cut, repeated, spliced, and plain noise."""
    pool = list(seeds) or [b"", b"{}", b"\x00" * 32, bytes(range(256))]
    while True:
        data = bytearray(chance.choice(pool))
        for _ in range(chance.randint(1, 6)):
            at = chance.randint(0, len(data))
            match chance.randint(0, 6):
                case 0 if data:
                    data[at % len(data)] ^= 1 << chance.randint(0, 7)
                case 1:
                    data[at:at] = chance.randbytes(chance.randint(1, 16))
                case 2:
                    del data[at : at + chance.randint(1, 64)]
                case 3:
                    data[at:at] = data[at : at + chance.randint(1, 256)] * chance.randint(1, 8)
                case 4:
                    other = chance.choice(pool)
                    data[at:] = other[chance.randint(0, len(other)) :]
                case 5:
                    data[at : at + 4] = chance.choice(
                        (b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"\x80\0\0\0")
                    )
                case _:
                    data[at:at] = chance.choice(
                        (b'"', b"{", b"[", b"\\", b"\n", b"null", b"-1", b"1e999", b"\xc3\x28")
                    )
        made = bytes(data[:MAX_INPUT])
        if chance.random() < 0.02 and len(pool) < 500:
            pool.append(made)
        yield made


def run(
    name: str, target: Callable[[bytes], None], seeds: list[bytes], seconds: float, seed: int
) -> tuple[int, int]:
    """Fuzz one target for so long; returns how many inputs it got and how many it failed on."""
    end, tried, failed = time.monotonic() + seconds, 0, 0
    for data in mutations(seeds, random.Random(f"{name}-{seed}")):
        tried += 1
        try:
            target(data)
        except Exception:  # noqa: BLE001 - whatever it is, it is what we look for
            failed += 1
            CRASHES.mkdir(exist_ok=True)
            file = CRASHES / f"{name}-{hashlib.sha256(data).hexdigest()[:12]}"
            file.write_bytes(data)
            sys.stderr.write(f"{name}: failed on {file}\n")
            traceback.print_exc()
        if failed >= 5 or time.monotonic() >= end:
            return tried, failed
    return tried, failed


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Throw bytes at every parser.")
    parser.add_argument("--seconds", type=float, default=30.0, help="for all targets together")
    parser.add_argument("--target", help="only this one")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    chosen = {name: found for name, found in load_targets().items() if asked.target in {None, name}}
    failures = 0
    for name, (target, seeds) in chosen.items():
        tried, failed = run(name, target, seeds, asked.seconds / len(chosen), asked.seed)
        failures += failed
        sys.stdout.write(f"{name:24} {tried:9} inputs  {failed} failed\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
