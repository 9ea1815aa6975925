"""Times as people read and write them."""

import re
from datetime import UTC, datetime, timedelta

from doorward.clock import SystemClock
from doorward.errors import BadInput

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_DURATION = re.compile(r"(?:[0-9]{1,9}[smhdw])+")

_LONGEST = 100 * 365 * 86400  # far from where dates end, so that arithmetic on it cannot fail

# Each is shown until there are two of the next: "90 s", "119 min", "47 h", "60 d".
_STEPS = ((120, 1, "s"), (7200, 60, "min"), (2 * 86400, 3600, "h"))


def now() -> datetime:
    """The present. A function of its own, so that a test can move it."""
    return SystemClock().now()


def parse_duration(text: str) -> int:
    """Seconds of ``90s``, ``1h30m``, ``7d`` or ``2w``. Raises BadInput; a bare number says too little."""
    if not _DURATION.fullmatch(text):
        raise BadInput(
            f"{text!r} is not a duration", cure="Write a number and a unit: 90s, 30m, 1h, 7d or 2w."
        )
    seconds = sum(int(number) * _UNITS[unit] for number, unit in re.findall(r"([0-9]+)([smhdw])", text))
    if seconds > _LONGEST:
        raise BadInput(f"{text} is longer than a century", cure="Choose a shorter time.")
    return seconds


def before_now(text: str) -> datetime:
    """The time that lies a duration back. Raises BadInput for what is no duration."""
    return now() - timedelta(seconds=parse_duration(text))


def moment(text: str) -> datetime:
    """A time: a duration back from now, or ``2026-01-31``, ``2026-01-31T12:00``, in UTC where no zone is given.

    Raises BadInput for anything else.
    """
    if _DURATION.fullmatch(text):
        return before_now(text)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise BadInput(
            f"{text!r} is neither a duration nor a time",
            cure="Write 30m, 12h or 7d for how long ago, or 2026-01-31T12:00 in UTC.",
        ) from None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _length(seconds: float) -> str:
    for limit, unit, name in _STEPS:
        if seconds < limit:
            return f"{int(seconds // unit)} {name}"
    return f"{int(seconds // 86400)} d"


def relative(when: datetime | None, *, never: str = "never") -> str:
    """``3 min ago`` or ``in 5 h``, counted from now; ``never`` for no time at all."""
    if when is None:
        return never
    seconds = (when - now()).total_seconds()
    return f"in {_length(seconds)}" if seconds > 0 else f"{_length(-seconds)} ago"


def exact(when: datetime | None, *, never: str = "never") -> str:
    """A time for people who need all of it: UTC to the second, and how long from now."""
    return never if when is None else f"{when:%Y-%m-%d %H:%M:%S} UTC ({relative(when)})"
