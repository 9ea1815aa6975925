"""The root of the error tree; every error knows its public answer.

::

    DoorwardError              500  something here is wrong; the log has the rest
    ├── BadInput               400  what was given cannot be understood
    ├── Unauthenticated        401  we do not know who is asking
    ├── NotPermitted           403  we know, and the answer is no
    ├── NotFound               404  there is no such thing
    ├── Conflict               409  it cannot be, because of what is there already
    ├── TooMany                429  a limit is reached; try later
    ├── Unavailable            503  a part that is needed does not run
    └── ProtocolError               bytes on a wire
        ├── LocalProtocolError 500  we, or our caller, broke the protocol's rules
        └── RemoteProtocolError 400 the peer did

A message says what was seen and what was expected, in words meant for the person who reads it, and never repeats
anything that could be a secret. ``cure`` says what to do next; ``detail`` is for the log alone.
"""

from typing import Any, ClassVar


class DoorwardError(Exception):
    """The root. ``str(error)`` is the public message.

    Args:
        message: what went wrong, for the person who asked; never a secret.
        cure: what to do next, one sentence, or empty.
        place: where the fault lies (``file:line:column``, a field's path), or empty.
        detail: more for the log; never sent to anyone.
    """

    status: ClassVar[int] = 500
    problem: ClassVar[str] = "internal"

    def __init__(self, message: str, *, cure: str = "", place: str = "", detail: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.cure = cure
        self.place = place
        self.detail = detail

    def public(self) -> dict[str, Any]:
        """The answer as an RFC 9457 problem: type, title, status and, where known, cure and place."""
        answer: dict[str, Any] = {"type": self.problem, "title": self.message, "status": self.status}
        if self.cure:
            answer["cure"] = self.cure
        if self.place:
            answer["place"] = self.place
        return answer

    def sentence(self) -> str:
        """Message and cure as one text, for places that show a single line."""
        if not self.cure:
            return self.message
        stop = "" if self.message.endswith((".", "!", "?", ":")) else "."
        return f"{self.message}{stop} {self.cure}"


class BadInput(DoorwardError):
    """What was given cannot be understood or is not allowed."""

    status = 400
    problem = "bad-input"


class Unauthenticated(DoorwardError):
    """We do not know who is asking."""

    status = 401
    problem = "unauthenticated"


class NotPermitted(DoorwardError):
    """The asker is known and may not do this."""

    status = 403
    problem = "not-permitted"


class NotFound(DoorwardError):
    """There is no such thing."""

    status = 404
    problem = "not-found"


class Conflict(DoorwardError):
    """It cannot be done because of what is there already."""

    status = 409
    problem = "conflict"


class TooMany(DoorwardError):
    """A limit is reached."""

    status = 429
    problem = "too-many"


class Unavailable(DoorwardError):
    """A part that is needed does not run or cannot be reached."""

    status = 503
    problem = "unavailable"


class ProtocolError(DoorwardError):
    """Bytes on a wire that break the rules of their protocol."""


class LocalProtocolError(ProtocolError):
    """We, or our caller, asked for something the protocol does not allow now."""

    status = 500
    problem = "protocol"


class RemoteProtocolError(ProtocolError):
    """The peer broke the protocol's rules; the connection is of no further use."""

    status = 400
    problem = "protocol"
