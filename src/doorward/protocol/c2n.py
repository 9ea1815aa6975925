"""Control's questions to a node: a raw HTTP/1.1 request inside a PingRequest (protocol note control.md, section 22).

Only the node's side. ``parse_request`` reads the question, ``encode_response`` writes the answer as stock clients do:
``Connection: close`` and no length, the body ends where the message ends.
"""

from http import HTTPStatus
from typing import NamedTuple

from doorward.errors import RemoteProtocolError

REQUEST_LIMIT = 1 << 20  # a question is small; the largest real one carries a configuration
_MAX_HEAD = 16 << 10


class Request(NamedTuple):
    """A question. Header names are in lower case."""

    method: str
    target: str  # path, with the query if there is one
    headers: dict[str, str]
    body: bytes


def parse_request(payload: bytes) -> Request:
    """Read the ``Payload`` of a PingRequest of type c2n.

    The body is what Content-Length says of what follows the head; without it there is none. Raises RemoteProtocolError
    for anything that is no HTTP/1.1 request, or more than REQUEST_LIMIT bytes.
    """
    if len(payload) > REQUEST_LIMIT:
        raise RemoteProtocolError(f"a question of {len(payload)} bytes, expected at most {REQUEST_LIMIT}")
    head, end, rest = payload.partition(b"\r\n\r\n")
    if not end or len(head) > _MAX_HEAD:
        raise RemoteProtocolError(
            f"a question has a head of at most {_MAX_HEAD} bytes and an empty line after it"
        )
    first, *lines = head.decode("latin-1").split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or words[2] not in {"HTTP/1.0", "HTTP/1.1"} or not words[1].startswith("/"):
        raise RemoteProtocolError("a question begins with a method, a path and HTTP/1.1")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise RemoteProtocolError("a header of a question is not of the form name: value")
        headers[name.lower()] = value.strip()
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit()) or len(length) > 10 or int(length) > len(rest):
        raise RemoteProtocolError("the body of a question is shorter than its Content-Length")
    return Request(words[0], words[1], headers, rest[: int(length)])


def encode_response(status: int, body: bytes, *, content_type: str = "text/plain; charset=utf-8") -> bytes:
    """The answer as the raw HTTP/1.1 response that is POSTed to the PingRequest's URL."""
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
        f"Connection: close\r\nContent-Type: {content_type}\r\n\r\n"
    )
    return head.encode() + body
