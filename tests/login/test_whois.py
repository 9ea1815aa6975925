import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest
from tests.support.clients import StockClient
from tests.support.programs import require_root

from doorward.engine.base import EngineError, Peer, Ping, Status, Stream, WhoIs
from doorward.login.whois import bound_device, identify

NODE = WhoIs(
    stable_id="n7",
    name="a.tailnet.internal.",
    addresses=("100.64.0.7/32",),
    tags=(),
    login="alice",
    capabilities={},
)


class Table:
    """An engine that knows one socket and notes what it was asked; ``device`` as the daemon's."""

    def __init__(self, known: str, device: str = "", *, broken: bool = False) -> None:
        self.known = known
        self.device = device
        self.broken = broken
        self.asked: list[tuple[str, str]] = []

    async def whois(self, address: str, protocol: str = "tcp") -> WhoIs | None:
        self.asked.append((address, protocol))
        if self.broken:
            raise EngineError("gone")
        return NODE if address == self.known else None

    async def status(self, *, peers: bool = True) -> Status:
        if self.broken:
            raise EngineError("gone")
        return Status(
            tun=bool(self.device), self_node=Peer(tailscale_ips=("100.64.0.1", "fd7a:115c:a1e0::1"))
        )

    async def ping(self, address: str, kind: str = "disco") -> Ping:
        raise NotImplementedError

    async def dial(self, host: str, port: int) -> Stream:
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError


async def test_a_socket_in_the_daemon_s_table_is_a_node_asked_for_once() -> None:
    engine = Table("127.0.0.1:4000")
    assert await identify(engine, ("127.0.0.1", 4000), ("127.0.0.1", 8443)) == "n7"
    assert engine.asked == [("127.0.0.1:4000", "tcp")]


async def test_ipv6_is_asked_for_in_brackets() -> None:
    engine = Table("[::1]:4000")
    assert await identify(engine, ("::1", 4000), ("::1", 8443)) == "n7"


async def test_t11_a_local_process_that_is_not_in_the_table_is_nobody() -> None:
    assert await identify(Table("127.0.0.1:4000"), ("127.0.0.1", 4001), ("127.0.0.1", 8443)) is None


@pytest.mark.parametrize(
    ("peer", "local"),
    [
        ("100.64.0.7", "127.0.0.1"),
        ("100.64.0.7", "192.168.1.2"),
        ("192.168.1.9", "192.168.1.2"),
        ("127.0.0.1", "192.168.1.2"),
        ("fd7a:115c:a1e0::7", "::1"),
    ],
)
async def test_a_source_that_a_daemon_in_user_space_cannot_have_is_not_even_asked_for(
    peer: str, local: str
) -> None:
    engine = Table(f"{peer}:4000")
    assert await identify(engine, (peer, 4000), (local, 8443)) is None
    assert engine.asked == []


async def test_with_an_interface_the_listener_must_be_bound_to_it_and_the_address_ours() -> None:
    engine = Table("100.64.0.7:4000", device="tailscale0")
    assert await identify(engine, ("100.64.0.7", 4000), ("100.64.0.1", 443), "tailscale0") == "n7"
    engine.asked.clear()
    assert await identify(engine, ("100.64.0.7", 4000), ("100.64.0.1", 443), "eth0") is None
    assert await identify(engine, ("100.64.0.7", 4000), ("100.64.0.1", 443)) is None
    assert await identify(engine, ("100.64.0.7", 4000), ("100.64.0.9", 443), "tailscale0") is None
    assert await identify(engine, ("127.0.0.1", 4000), ("127.0.0.1", 443), "tailscale0") is None
    assert engine.asked == []


@pytest.mark.parametrize("device", ["", "tailscale0"])
async def test_a_daemon_that_cannot_be_asked_identifies_nobody(device: str) -> None:
    host = "100.64.0.1" if device else "127.0.0.1"
    assert await identify(Table("", device, broken=True), (host, 4000), (host, 443), device) is None


async def test_anything_but_tcp_is_nobody() -> None:
    engine = Table("127.0.0.1:4000")
    assert await identify(engine, None, ("127.0.0.1", 1)) is None
    assert await identify(engine, ("/socket", None), ("127.0.0.1", 1)) is None
    assert engine.asked == []


def test_connections_inherit_the_device_of_their_listener() -> None:
    require_root()  # only root may bind a listener to a device
    with socket.socket() as listener, socket.socket() as client:
        listener.setsockopt(socket.SOL_SOCKET, 25, b"lo\0")
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        client.connect(listener.getsockname())
        connection, _ = listener.accept()
        with connection:
            assert bound_device(connection) == "lo"
        assert bound_device(client) == ""


@contextlib.asynccontextmanager
async def _connection() -> AsyncIterator[tuple[tuple[str, int], tuple[str, int]]]:
    arrived: asyncio.Queue[tuple[tuple[str, int], tuple[str, int]]] = asyncio.Queue()

    def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.put_nowait((writer.get_extra_info("peername"), writer.get_extra_info("sockname")))
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    async with server:
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        yield await arrived.get()
        writer.close()
        await writer.wait_closed()


@pytest.mark.interop
async def test_t11_a_real_daemon_does_not_take_a_local_process_for_a_node() -> None:
    async with StockClient("whois") as client, _connection() as (peer, local):

        class Real(Table):
            async def whois(self, address: str, protocol: str = "tcp") -> WhoIs | None:
                self.asked.append((address, protocol))
                return await client.api.whois(address, protocol)

        engine = Real("")
        assert await identify(engine, peer, local) is None
        assert engine.asked == [(f"127.0.0.1:{peer[1]}", "tcp")]
