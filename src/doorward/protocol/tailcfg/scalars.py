"""The scalar types that the wire structs share, with the bounds that Go gives them (control.md section 1).

The bounds matter for what clients send: a number that Go could not hold must not reach the database either.
"""

from datetime import UTC, datetime
from typing import Annotated

from msgspec import Meta

# An aware time. Go's zero time decodes to ZERO_TIME; a struct where zero means "none" says so and stores None.
Time = Annotated[datetime, Meta(tz=True)]
ZERO_TIME = datetime(1, 1, 1, tzinfo=UTC)

Int = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]  # Go's int on a 64-bit machine
CapVer = Annotated[int, Meta(ge=0, le=2**31 - 1)]  # a capability version (section 25)
PortNumber = Annotated[int, Meta(ge=0, le=65535)]


def known_time(value: datetime | None) -> datetime | None:
    """None for Go's zero time, which is how a time field without a value looks on the wire."""
    return None if value == ZERO_TIME else value
