"""Time as an object, so that tests can move it. Nothing else in doorward reads a clock."""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Where the time comes from."""

    def now(self) -> datetime:
        """The wall clock, with time zone UTC. May jump; compare it only with stored times."""
        ...

    def monotonic(self) -> float:
        """Seconds since an arbitrary start; never jumps. For time-outs and rates."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> datetime:
        """The machine's wall clock in UTC."""
        return datetime.now(UTC)  # noqa: TID251 - the one place that may

    def monotonic(self) -> float:
        """The machine's monotonic clock, in seconds."""
        return time.monotonic()
