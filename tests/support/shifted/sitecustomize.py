"""Loaded by every Python that has this folder on PYTHONPATH: doorward's clock is off by the seconds in $CLOCK_SHIFT_FILE.

The file is read at each look at the clock, so a test can make it jump, as a clock does that is set while doorward runs.
"""

import os
from datetime import datetime, timedelta
from pathlib import Path

from doorward.clock import SystemClock

_true_now = SystemClock.now
_file = Path(os.environ["CLOCK_SHIFT_FILE"])


def _shifted_now(self: SystemClock) -> datetime:
    return _true_now(self) + timedelta(seconds=float(_file.read_text(encoding="ascii")))


SystemClock.now = _shifted_now  # type: ignore[method-assign]
