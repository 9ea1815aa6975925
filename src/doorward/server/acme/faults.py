"""What can go wrong with an order, and how long to leave the authority alone after it.

Authorities count failures (five for a name in an hour, with the largest) and lock out whoever goes on. What never got as far
as them is not counted, and is tried again sooner.
"""

from doorward.errors import Unavailable

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
REFUSED = (15 * MINUTE, 12 * HOUR)  # the first wait, doubled by each that follows, and the longest
UNREACHED = (MINUTE, HOUR)
LONGEST = 7 * DAY  # that an authority can make us wait: its clock or ours may be wrong


class AcmeError(Unavailable):
    """No certificate was had.

    Args:
        message: what the authority, or what is on the way to it, said.
        cure: what helps.
        counts: the authority may count it as a failure of ours.
        retry_after: seconds that the authority asks us to wait; 0 where it says nothing.
    """

    def __init__(
        self, message: str, *, cure: str = "", detail: str = "", counts: bool = True, retry_after: float = 0.0
    ) -> None:
        super().__init__(message, cure=cure, detail=detail)
        self.counts = counts
        self.retry_after = retry_after


def wait_after(error: AcmeError, failures: int, fraction: float) -> float:
    """Seconds until the next try.

    Args:
        error: the last failure.
        failures: how many there were in a row, this one included.
        fraction: from 0 to 1, by chance: many who failed together do not come back together.
    """
    first, longest = REFUSED if error.counts else UNREACHED
    wait = min(first * 2.0 ** min(failures - 1, 16), longest)
    return max(wait, min(error.retry_after, LONGEST)) * (1 + fraction / 10)
