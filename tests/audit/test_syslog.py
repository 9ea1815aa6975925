"""Syslog messages, and the ways there."""

import asyncio
import re
import socket
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.auditing import events_of
from tests.support.certificates import tls_contexts
from tests.support.collecting import collector
from tests.support.nouns import NOW

from doorward.api.audit_types import Event
from doorward.audit.destinations import line_of
from doorward.audit.syslog import DATAGRAM, Address, SyslogDestination, message, parse_address
from doorward.errors import BadInput, Unavailable
from doorward.protocol.auditlog import read_event
from doorward.store import Database

# RFC 5424, section 6, as far as it is used.
FORM = re.compile(
    rb"<(?P<priority>\d{1,3})>1 (?P<at>\S+) (?P<host>[!-~]{1,255}) doorward - (?P<id>[!-~]{1,32}) "
    rb"\[meta sequenceId=\"(?P<number>\d+)\"\] (?P<text>.*)",
    re.DOTALL,
)
EVENT = Event(
    seq=7,
    at=NOW,
    actor="user:änn",
    action="policy.set",
    target="policy",
    details={"comment": "x\ny"},
    previous="0" * 64,
    digest="1" * 64,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("unix:/dev/log", Address("unix", "/dev/log", 0)),
        ("udp://127.0.0.1", Address("udp", "127.0.0.1", 514)),
        ("udp://[::1]:5514", Address("udp", "::1", 5514)),
        ("tcp://logs.example.com", Address("tcp", "logs.example.com", 601)),
        ("tls://logs.example.com:1", Address("tls", "logs.example.com", 1)),
    ],
)
def test_addresses(text: str, expected: Address) -> None:
    assert parse_address(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "unix:dev/log",
        "unix://dev/log",
        "udp:host",
        "udp://",
        "http://x",
        "tcp://x:99999",
        "tcp://x:y",
        "tls://u@x",
        "tls://x/path",
        "tcp://x?y",
        "tcp://[::1",
    ],
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(BadInput, match="syslog server"):
        parse_address(text)


def test_a_message_has_the_form_of_rfc_5424() -> None:
    found = FORM.fullmatch(message(EVENT, "host.example.com"))
    assert found
    assert found["priority"] == b"110"
    assert found["at"] == b"2026-01-02T03:04:05.678901Z" or found["at"].endswith(b"Z")
    assert (found["host"], found["id"], found["number"]) == (b"host.example.com", b"policy.set", b"7")
    assert read_event(found["text"]).seq == 7
    assert b"\n" not in found["text"]
    odd = msgspec.structs.replace(EVENT, seq=2**31, action="a b" * 40)
    found = FORM.fullmatch(message(odd, "my häst "))
    assert found
    assert (found["host"], found["number"], len(found["id"])) == (b"myhst", b"1", 32)


@given(st.text(), st.text(), st.integers(1, 2**62))
def test_whatever_is_in_an_event_the_form_holds(hostname: str, action: str, seq: int) -> None:
    event = msgspec.structs.replace(EVENT, action=action, seq=seq)
    assert FORM.fullmatch(message(event, hostname))


def test_a_message_that_is_too_long_for_a_datagram_keeps_what_proves_it() -> None:
    long = msgspec.structs.replace(EVENT, details={"text": "x" * DATAGRAM})
    found = FORM.fullmatch(message(long, "host", limit=DATAGRAM))
    assert found
    short = msgspec.json.decode(found["text"], type=Event)
    assert (short.seq, short.digest, short.details) == (7, EVENT.digest, {"left_out": len(line_of(long))})
    assert message(EVENT, "host", limit=DATAGRAM) == message(EVENT, "host")


def texts(messages: list[bytes]) -> list[int]:
    found = [FORM.fullmatch(one) for one in messages]
    return [read_event(one["text"]).seq for one in found if one]


async def test_udp(database: Database) -> None:
    events = await events_of(database, 20)
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(5)
        port = server.getsockname()[1]
        await SyslogDestination(f"udp://127.0.0.1:{port}", "host").deliver(events)
        assert texts([server.recv(65536) for _ in range(20)]) == list(range(1, 21))
    with pytest.raises(Unavailable, match="refused"):  # this machine says so itself
        await SyslogDestination(f"udp://127.0.0.1:{port}", "host").deliver(events)


async def test_a_unix_socket_of_datagrams(database: Database, tmp_path: Path) -> None:
    events, path = await events_of(database, 5), str(tmp_path / "log")
    destination = SyslogDestination(f"unix:{path}", "host")
    with pytest.raises(Unavailable, match="No such file"):
        await destination.deliver(events)
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as server:
        server.bind(path)
        server.settimeout(5)
        await destination.deliver(events)
        assert texts([server.recv(65536) for _ in range(5)]) == [1, 2, 3, 4, 5]


async def test_a_unix_socket_of_streams(database: Database, tmp_path: Path) -> None:
    events, path = await events_of(database, 5), str(tmp_path / "log")
    async with collector(path=path) as server:
        await SyslogDestination(f"unix:{path}", "host").deliver(events)
        assert texts(server.messages) == [1, 2, 3, 4, 5]


async def test_tcp_has_it_when_the_server_ends_the_connection(database: Database) -> None:
    events = await events_of(database, 200)
    async with collector() as server:
        destination = SyslogDestination(f"tcp://127.0.0.1:{server.port}", "host")
        await destination.deliver(events)
        assert texts(server.messages) == list(range(1, 201))
        server.messages.clear()
        server.dies = True
        with pytest.raises(Unavailable, match=r"tcp://127\.0\.0\.1"):
            await destination.deliver(events)
        server.dies = False
        await destination.deliver(events)
        assert texts(server.messages) == list(range(1, 201))
        await destination.close()
    with pytest.raises(Unavailable, match=r"tcp://127\.0\.0\.1"):
        await destination.deliver(events)


async def test_tls_has_it_too_and_only_who_is_trusted_gets_it(database: Database) -> None:
    events = await events_of(database, 200)
    server_context, client_context = tls_contexts()
    async with collector(ssl_context=server_context) as server:
        address = f"tls://localhost:{server.port}"
        with pytest.raises(Unavailable, match="not trusted") as refused:
            await SyslogDestination(address, "host").deliver(events)
        assert "audit.authority" in refused.value.cure
        assert server.messages == []
        destination = SyslogDestination(address, "host", ssl_context=client_context)
        await destination.deliver(events)
        assert texts(server.messages) == list(range(1, 201))
        server.dies = True
        with pytest.raises(Unavailable):
            await destination.deliver(events)


async def test_a_server_that_says_nothing_is_not_waited_for_long(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("doorward.audit.syslog.SECONDS", 0.1)
    events = await events_of(database, 1)
    never = asyncio.Event()

    async def hang(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await never.wait()
        writer.close()

    async with await asyncio.start_server(hang, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(Unavailable, match="does not answer"):
            await SyslogDestination(f"tcp://127.0.0.1:{port}", "host").deliver(events)
        never.set()
