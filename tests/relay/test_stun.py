"""The STUN server on real sockets of the loopback."""

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from ipaddress import ip_address
from typing import Any

import pytest

from doorward.errors import Unavailable
from doorward.protocol import stun
from doorward.relay.stun import STUNServer, bind_stun


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return "asyncio", {"use_uvloop": request.param}


@contextmanager
def serving(*addresses: str) -> Iterator[int]:
    sockets = bind_stun(addresses, 0)
    server = STUNServer(sockets)
    server.start()
    try:
        yield sockets[0].getsockname()[1]
    finally:
        server.close()


async def ask(address: str, port: int, *, request: bytes | None = None) -> tuple[Any, Any, Any]:
    """Our own address, what the server says it is, and where the answer came from."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    txid = os.urandom(12)
    with closing(socket.socket(family, socket.SOCK_DGRAM)) as client:
        client.setblocking(False)
        client.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
        client.sendto(stun.request(txid) if request is None else request, (address, port))
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_reader(client, ready.set)
        try:
            async with asyncio.timeout(5 if request is None else 0.1):
                await ready.wait()
        finally:
            loop.remove_reader(client)
        data, source = client.recvfrom(2000)
        return client.getsockname()[:2], stun.parse_response(data, txid), source[:2]


async def test_it_answers_over_ipv4() -> None:
    with serving("127.0.0.1") as port:
        own, said, source = await ask("127.0.0.1", port)
        assert said == (ip_address(own[0]), own[1])
        assert source == ("127.0.0.1", port)


async def test_it_answers_over_ipv6() -> None:
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    with serving("::1") as port:
        own, said, source = await ask("::1", port)
        assert said == (ip_address(own[0]), own[1])
        assert source == ("::1", port)


async def test_the_answer_comes_from_the_address_that_was_asked() -> None:
    with serving("0.0.0.0") as port:
        for address in ("127.0.0.1", "127.3.2.1"):
            _, _, source = await ask(address, port)
            assert source == (address, port)


async def test_it_says_nothing_to_others() -> None:
    with serving("127.0.0.1") as port:
        for request in (b"", b"hello", stun.request(bytes(12))[:-1], bytes(1500)):
            with pytest.raises(TimeoutError):
                await ask("127.0.0.1", port, request=request)
        await ask("127.0.0.1", port)  # and is well


async def test_a_taken_port_is_named() -> None:
    with serving("127.0.0.1") as port, pytest.raises(Unavailable, match=f"UDP port {port} on 127.0.0.1"):
        bind_stun(["127.0.0.1"], port)
