"""The limit is raised, and connections leave a reserve."""

import subprocess
import sys

import pytest

from doorward.server.descriptors import HIGHEST, MOST, RESERVE

PROGRAM = """
import resource, sys
from doorward.server import descriptors
soft, hard = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
print(descriptors.raise_limit(), resource.getrlimit(resource.RLIMIT_NOFILE)[0], descriptors.room_for_connections())
"""


def _tried(soft: int, hard: int) -> list[int]:
    """In a process of its own: a limit that was lowered cannot be raised again."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(soft), str(hard)], capture_output=True, text=True, check=True
    )
    return [int(word) for word in done.stdout.split()]


@pytest.mark.parametrize("soft", [64, 1024])
def test_the_soft_limit_is_raised_to_the_hard_one(soft: int) -> None:
    assert _tried(soft, 2000) == [2000, 2000, 2000 - RESERVE]


def test_a_limit_that_is_high_enough_is_left_alone() -> None:
    limit, soft, room = _tried(1500, 1500)
    assert limit == soft == 1500
    assert room == 1500 - RESERVE


def test_a_very_low_limit_still_leaves_half_of_it() -> None:
    assert _tried(100, 100)[2] == 50


def test_the_bounds_fit_together() -> None:
    assert RESERVE < MOST < HIGHEST
