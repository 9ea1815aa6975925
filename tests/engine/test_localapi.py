"""The client against a real daemon that nobody has logged in, of both versions, and against answers no daemon gives."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.clients import StockClient
from tests.support.programs import OLDEST_CLIENT, require_client

from doorward.engine.base import EngineError
from doorward.engine.localapi import WATCH_STATE, LocalApi, Opening, RefusedError


@pytest.fixture(params=[None, OLDEST_CLIENT], ids=["current", "oldest"])
async def daemon(request: pytest.FixtureRequest) -> AsyncIterator[StockClient]:
    async with StockClient("localapi", client=require_client(request.param)) as client:
        yield client


@pytest.mark.interop
async def test_a_real_daemon_that_is_not_logged_in(daemon: StockClient) -> None:
    async with LocalApi(daemon.socket) as api:
        status = await api.status()
        assert status.backend_state == "NeedsLogin"
        assert (status.running, status.have_node_key, status.addresses, status.tun) == (
            False,
            False,
            (),
            False,
        )
        assert status.version.startswith(".".join(map(str, daemon.client.version)))
        assert await api.whois("127.0.0.1:9") is None
        assert await api.whois("[::1]:9") is None
        changed = await api.set_prefs(Hostname="other", ControlURL="http://127.0.0.1:1")
        assert changed["Hostname"] == "other"
        assert (await api.prefs())["ControlURL"] == "http://127.0.0.1:1"
        assert (await api.ping("100.64.0.1")).err
        with pytest.raises(EngineError, match="cannot connect to"):
            await api.dial("node.tailnet.internal", 80)
        with pytest.raises(EngineError, match="not in the tailnet"):
            await api.dial("127.0.0.1", 80)


@pytest.mark.interop
async def test_the_bus_of_a_real_daemon_begins_with_its_state_and_ends_with_it(daemon: StockClient) -> None:
    async with LocalApi(daemon.socket) as api:
        async with contextlib.aclosing(api.watch(WATCH_STATE)) as bus:
            assert (await anext(bus)).state == 2
            await daemon.kill()
            with contextlib.suppress(EngineError):  # a stream that is cut off may end either way
                assert [notify.state async for notify in bus] == []
        with pytest.raises(EngineError, match="does not answer") as gone:
            await api.status()
        assert str(daemon.socket) in gone.value.message


Answer = Callable[[bytes], contextlib.AbstractAsyncContextManager[LocalApi]]


@pytest.fixture
def answering(tmp_path: Path) -> Answer:
    """A socket that says ``content`` to every connection, whatever was asked."""

    @contextlib.asynccontextmanager
    async def serve(content: bytes) -> AsyncIterator[LocalApi]:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError, EOFError):  # whoever asked has gone
                await reader.readuntil(b"\r\n\r\n")
                writer.write(content)
                await writer.drain()
            writer.close()

        server = await asyncio.start_unix_server(answer, tmp_path / "s")
        async with server, LocalApi(tmp_path / "s", timeout=1) as api:
            yield api

    return serve


def _reply(body: bytes, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


async def test_nobody_there(tmp_path: Path) -> None:
    async with LocalApi(tmp_path / "none") as api:
        for call in (api.status(), api.whois("127.0.0.1:1"), api.dial("a", 1)):
            with pytest.raises(EngineError, match="does not answer") as gone:
                await call
            assert gone.value.cure


@pytest.mark.parametrize(
    "content", [b"", b"garbage\r\n\r\n", _reply(b"{"), _reply(b"[]"), _reply(b'{"TUN": 1}')]
)
async def test_nonsense_is_an_engine_error(answering: Answer, content: bytes) -> None:
    async with answering(content) as api:
        with pytest.raises(EngineError):
            await api.status()


async def test_a_refusal_carries_the_daemons_sentence_and_the_cure(answering: Answer) -> None:
    async with answering(_reply(b"prefs write access denied\n", "403 Forbidden")) as api:
        with pytest.raises(RefusedError, match="prefs write access denied") as refused:
            await api.set_prefs(WantRunning=False)
        assert refused.value.code == 403
        assert "root" in refused.value.cure


async def test_whois_reads_go_s_nulls(answering: Answer) -> None:
    body = (
        b'{"Node":{"ID":5,"StableID":"n5","Name":"a.tailnet.internal.","Addresses":["100.64.0.5/32"],"Tags":null},'
        b'"UserProfile":{"LoginName":"alice"},"CapMap":null}'
    )
    async with answering(_reply(body)) as api:
        found = await api.whois("127.0.0.1:1")
    assert found is not None
    assert (found.stable_id, found.login, found.tags, found.capabilities) == ("n5", "alice", (), {})


async def test_a_dialled_stream_keeps_the_bytes_that_came_with_the_answer(answering: Answer) -> None:
    async with answering(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: ts-dial\r\n\r\nhello") as api:
        stream = await api.dial("a.tailnet.internal", 22)
        assert await stream.reader.read() == b"hello"
        stream.writer.close()
        await stream.writer.wait_closed()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"HTTP/1.1 200 OK\r\nDial-Self: true\r\nDial-Addr: 1.2.3.4:5\r\n\r\n", "not in the tailnet"),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", "answered 502"),
        (b"", "does not answer"),
        (b"x" * 100_000, "does not answer"),
    ],
)
async def test_a_stream_that_does_not_come_about(answering: Answer, content: bytes, says: str) -> None:
    async with answering(content) as api:
        with pytest.raises(EngineError, match=says):
            await api.dial("a.tailnet.internal", 22)


async def test_calls_that_are_cancelled_at_any_moment_leave_no_trace(answering: Answer) -> None:
    # Whatever a cancelled call leaves behind would be an unclosed socket or a complaint of the loop: both fail the test.
    async with answering(_reply(b'{"BackendState":"Running"}')) as api:
        ended = 0
        for number in range(200):
            try:
                async with asyncio.timeout(number * 0.00001):
                    await api.status()
                    ended += 1
            except TimeoutError:
                continue
        assert (await api.status()).running
        assert ended < 200


@pytest.mark.parametrize("host", ["", "a\r\nDial-Port: 1", "a b", "ü", "a" * 256])
async def test_a_host_that_could_end_its_line_is_refused(answering: Answer, host: str) -> None:
    async with answering(b"") as api:
        with pytest.raises(EngineError, match="not a name or an address"):
            await api.dial(host, 22)


async def test_the_packet_filter_is_what_others_may_connect_to(answering: Answer) -> None:
    ports = {"First": 80, "Last": 81}
    rules = [
        {"SrcIPs": ["*"], "DstPorts": [{"IP": "100.64.0.1", "Bits": None, "Ports": ports}]},
        {"CapGrant": []},
    ]
    said: dict[str, Any] = {"Version": "1", "NetMap": {"PacketFilter": None, "PacketFilterRules": rules}}
    async with answering(_reply(json.dumps(said).encode() + b"\n")) as api:
        assert await api.packet_filter() == (Opening(address="100.64.0.1", first=80, last=81),)
    for nothing in (b"null", b"[]"):
        async with answering(_reply(b'{"NetMap":{"PacketFilterRules":%s}}\n' % nothing)) as api:
            assert await api.packet_filter() == ()


@pytest.mark.parametrize("line", [b"", b"{}", b'{"NetMap":{}}', b'{"NetMap":null}', b"x"])
async def test_a_packet_filter_that_is_not_told_is_never_an_empty_one(answering: Answer, line: bytes) -> None:
    async with answering(_reply(line + b"\n")) as api:
        with pytest.raises(EngineError):
            await api.packet_filter()


async def test_a_certificate_comes_as_it_is(answering: Answer) -> None:
    async with answering(_reply(b"-----BEGIN")) as api:
        assert await api.certificate("wiki.example.ts.net") == b"-----BEGIN"
