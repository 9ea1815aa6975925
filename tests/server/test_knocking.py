"""Questions to our own addresses: what came, and in which words it is said that nothing did."""

import socket
import ssl
from collections.abc import Callable

import httpx2
import pytest

from doorward.server.knocking import MOST, Bad, client_for, get, pin_of, relay_key, unanswered, upgraded

URL = "https://control.example.com/key?v=1"


def _cause(error: Exception, *below: Exception) -> Exception:
    """An error as libraries hand it on, with what lies below it."""
    for above, under in zip((error, *below), below, strict=False):
        above.__cause__ = under
    return error


@pytest.mark.parametrize(
    ("error", "message", "level"),
    [
        (
            _cause(httpx2.ConnectError("x"), ssl.SSLCertVerificationError("bad")),
            "the certificate at https://control.example.com/key is not trusted here",
            "error",
        ),
        (_cause(httpx2.ConnectError("x"), OSError(), ssl.SSLError("bad")), "speaks no TLS", "error"),
        (
            _cause(httpx2.ConnectError("x"), socket.gaierror(-2, "unknown")),
            "is not known on this machine",
            "warning",
        ),
        (_cause(httpx2.ConnectError("x"), ConnectionRefusedError()), "nobody listens at", "error"),
        (httpx2.ReadTimeout("slow"), "does not answer in time", "warning"),
        (TimeoutError(), "does not answer in time", "warning"),
        (httpx2.RemoteProtocolError("y" * 1000), "breaks off: yyy", "error"),
        (_cause(httpx2.ReadError(""), ConnectionResetError()), "breaks off: ReadError", "error"),
    ],
)
def test_why_nothing_came_is_told_by_what_lies_at_the_bottom_of_it(
    error: Exception, message: str, level: str
) -> None:
    bad = unanswered(error, URL, "control address", "Do this.")
    assert message in bad.finding.message
    assert bad.finding.level == level
    assert bad.finding.cure
    assert "?v=1" not in bad.finding.message
    assert len(bad.finding.message) < 400


def _answering(answer: Callable[[httpx2.Request], httpx2.Response]) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=httpx2.MockTransport(answer))


async def test_no_more_of_an_answer_is_read_than_is_looked_at() -> None:
    async with _answering(lambda _: httpx2.Response(200, content=b"x" * (MOST * 3))) as client:
        assert len((await get(client, URL, "door", "Do this.")).content) == MOST
        async with upgraded(client, URL, {}, "door", "Do this.") as answer:
            assert (answer.status_code, len(answer.content)) == (200, MOST)


async def test_nothing_is_followed() -> None:
    async with client_for(None) as client:
        assert not client.follow_redirects
        assert not client.trust_env


async def test_an_answer_that_does_not_come_is_bad() -> None:
    def answer(_: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("x") from ConnectionRefusedError()

    async with _answering(answer) as client:
        with pytest.raises(Bad, match="nobody listens"):
            await get(client, URL, "door", "Do this.")
        with pytest.raises(Bad, match="nobody listens"):
            async with upgraded(client, URL, {}, "door", "Do this."):
                pass


class _Stream:
    """What is left of a connection after an upgrade."""

    def __init__(self, *parts: bytes) -> None:
        self._parts = list(parts)

    async def read(self, size: int, timeout: float) -> bytes:  # noqa: ASYNC109 - the library's own signature
        del size, timeout
        return self._parts.pop(0) if self._parts else b""

    def get_extra_info(self, name: str) -> None:
        assert name == "ssl_object"


@pytest.mark.parametrize("parts", [(), (b"x",), (b"HTTP/1.1 400 Bad Request\r\n\r\n" * 4,), (bytes(200),)])
async def test_what_is_no_relay_has_no_key(parts: tuple[bytes, ...]) -> None:
    for message in (False, True):
        answer = httpx2.Response(101, extensions={"network_stream": _Stream(*parts)})
        assert await relay_key(answer, message=message) is None
    assert pin_of(answer) == ""
