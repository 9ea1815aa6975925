"""How we look from outside: small servers stand where doorward's addresses lead, each wrong in its own way."""

import asyncio
import json
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette
from tests.support.certificates import tls_contexts
from tests.support.clock import FakeClock
from tests.support.workers import data_folder, settings_in, working

from doorward.api.types import Finding
from doorward.config import Ports
from doorward.config.settings import Console, Relay, Settings
from doorward.protocol import derp
from doorward.protocol.keys import DERPPrivate, MachinePrivate
from doorward.protocol.tailcfg.derpmap import DERPNode, DERPRegion
from doorward.server import knocking
from doorward.server.outside import STREAM, Keys, Outside
from doorward.server.relays import own_region
from doorward.server.tls import Authority

KEYS = Keys(
    MachinePrivate.from_entropy(bytes(range(32))), DERPPrivate.from_entropy(bytes(range(32))).public()
)
OTHER_KEY = MachinePrivate.from_entropy(bytes(32)).public()
OTHER_RELAY = DERPPrivate.from_entropy(b"\x07" * 32).public()
ORIGIN = "https://console.example.com"


@pytest.fixture
def folder() -> Iterator[Path]:
    with data_folder() as name:
        yield name


@pytest.fixture
def unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that knows no names outside, whatever DNS it may have."""
    known = socket.getaddrinfo

    def lookup(host: Any, *arguments: Any, **named: Any) -> Any:
        if str(host).endswith("invalid"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return known(host, *arguments, **named)

    monkeypatch.setattr(socket, "getaddrinfo", lookup)


def looking(settings: Settings, folder: Path, region: DERPRegion | None = None) -> Outside:
    clock = FakeClock()
    authority = Authority.open(folder / "authority", clock).pem
    whole = settings.settled(Ports())
    return Outside(whole, KEYS, lambda: region, authority, clock, os.urandom)


Answers = Callable[[str, str, dict[str, str]], bytes]


@asynccontextmanager
async def serving(
    answers: Answers, *, secure: ssl.SSLContext | None = None, greeting: bytes = b""
) -> AsyncIterator[int]:
    """A server that answers each request (method, target, headers) with these bytes, and closes; with none it says nothing.

    With a greeting it waits for no request, and says that.
    """

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if greeting:
                writer.write(greeting)
                await writer.drain()
                return
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.split("\r\n")
            method, target, _ = first.split(" ")
            headers = dict(line.lower().split(": ", 1) for line in lines if line)
            answer = answers(method, target, headers)
            if not answer:
                await reader.read()
            writer.write(answer)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError, ValueError):
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=secure) as server:
        yield server.sockets[0].getsockname()[1]


def told(status: str, body: bytes = b"", **headers: str) -> bytes:
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{lines}\r\n".encode() + body


def key(public: object) -> bytes:
    return told(
        "200 OK", json.dumps({"publicKey": str(public), "legacyPublicKey": "mkey:" + "0" * 64}).encode()
    )


async def found(outside: Outside, subject: str) -> Finding:
    (finding,) = (one for one in await outside.findings() if one.subject == subject)
    return finding


async def test_whoever_nobody_stands_before_is_well(folder: Path) -> None:
    async with working(settings_in(folder)) as running:
        said = {one["subject"]: one for one in await running.ask("GET", "/doctor")}
        assert said["control address"]["level"] == "ok"
        assert running.settings.url in said["control address"]["message"]
        assert said["relay"]["level"] == "ok"
        assert f"127.0.0.1:{running.settings.ports.relay}" in said["relay"]["message"]
        assert not {"door", "terminals", "live pages"} & set(said)  # the door is inside, on purpose


async def test_a_door_on_this_machine_is_looked_at_with_all_that_a_page_needs(folder: Path) -> None:
    async with working(settings_in(folder, listen="127.0.0.1:0")) as first:
        port = first.settings.listen.rpartition(":")[2]
    settings = settings_in(
        folder,
        listen=f"127.0.0.1:{port}",
        door=f"http://localhost:{port}",
        url=f"http://127.0.0.1:{port}",
        console=Console(origins=(ORIGIN,)),
    )
    async with working(settings) as running:
        said = {one["subject"]: one["level"] for one in await running.ask("GET", "/doctor")}
        assert {subject: said.get(subject) for subject in ("control address", "relay", "door")} == {
            "control address": "ok",
            "relay": "ok",
            "door": "ok",
        }
        assert not {"terminals", "live pages", "origins"} & set(said)


@pytest.mark.parametrize(
    ("answer", "message", "cure"),
    [
        (
            told("301 Moved", location="https://elsewhere.example.com/key"),
            "leads on to https://elsewhere",
            "`url`",
        ),
        (told("404 Not Found", b"<h1>nginx</h1>"), "somebody else answers: 404", "listens on"),
        (told("200 OK", b"<h1>It works!</h1>"), "somebody else answers: 200", "listens on"),
        (told("502 Bad Gateway"), "somebody else answers: 502", "listens on"),
        (told("200 OK", b"\xff" * (knocking.MOST + 1)), "somebody else answers: 200", "listens on"),
        (key(OTHER_KEY), "another control server answers", "listens on"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "breaks off", "listens on"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort", "breaks off", "listens on"),
    ],
)
async def test_what_is_wrong_with_the_control_address(
    folder: Path, answer: bytes, message: str, cure: str
) -> None:
    async with serving(lambda *_: answer) as port:
        finding = await found(
            looking(settings_in(folder, url=f"http://127.0.0.1:{port}"), folder), "control address"
        )
    assert finding.level == "error"
    assert message in finding.message
    assert cure in finding.cure


async def test_a_proxy_that_eats_the_upgrade_of_ts2021(folder: Path) -> None:
    def answers(method: str, target: str, _: dict[str, str]) -> bytes:
        assert (method, target.partition("?")[0]) in {("GET", "/key"), ("POST", "/ts2021")}
        return key(KEYS.noise.public()) if method == "GET" else told("426 Upgrade Required")

    async with serving(answers) as port:
        finding = await found(
            looking(settings_in(folder, url=f"http://127.0.0.1:{port}"), folder), "control address"
        )
    assert finding.level == "error"
    assert "the upgrade of /ts2021 does not get through" in finding.message
    assert "$http_upgrade" in finding.cure


@pytest.mark.usefixtures("unknown")
async def test_nobody_listens_or_nobody_answers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(lambda *_: b"") as port:
        pass
    outside = looking(settings_in(folder, url=f"http://127.0.0.1:{port}"), folder)
    finding = await found(outside, "control address")
    assert (finding.level, "nobody listens" in finding.message) == ("error", True)
    monkeypatch.setattr(knocking, "SECONDS", 0.2)
    async with serving(lambda *_: b"") as port:
        outside = looking(settings_in(folder, url=f"http://127.0.0.1:{port}"), folder)
        finding = await found(outside, "control address")
    assert (finding.level, "does not answer in time" in finding.message) == ("warning", True)
    outside = looking(settings_in(folder, url="https://control.invalid"), folder)
    finding = await found(outside, "control address")
    assert (finding.level, "not known on this machine" in finding.message) == ("warning", True)


async def test_a_certificate_that_nobody_trusts_and_no_tls_at_all(folder: Path) -> None:
    server, _ = tls_contexts()
    async with serving(lambda *_: key(KEYS.noise.public()), secure=server) as port:
        finding = await found(
            looking(settings_in(folder, url=f"https://localhost:{port}"), folder), "control address"
        )
    assert finding.level == "error"
    assert "is not trusted here: " in finding.message
    assert "whole chain" in finding.cure
    async with serving(lambda *_: b"", greeting=b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        finding = await found(
            looking(settings_in(folder, url=f"https://localhost:{port}"), folder), "control address"
        )
    assert "speaks no TLS" in finding.message


# The door -----------------------------------------------------------------------------------------------------------


def issuer(door: str) -> bytes:
    return told("200 OK", json.dumps({"issuer": door}).encode())


def socket_of(public: Any, **headers: str) -> bytes:
    frame = derp.server_key(public)
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return (
        f"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{lines}\r\n".encode()
        + bytes([0x82, len(frame)])
        + frame
    )


def door_like(port: list[int], **parts: bytes) -> Answers:
    """A door that is well, but for these of its answers."""

    def answers(method: str, target: str, headers: dict[str, str]) -> bytes:
        door = f"http://localhost:{port[0]}"
        if target == "/.well-known/openid-configuration":
            return parts.get("about") or issuer(door)
        if target == "/derp":
            listed = headers["origin"] != door and "other" in parts
            good = socket_of(KEYS.relay, Sec_WebSocket_Protocol="derp")
            return parts["other"] if listed else parts.get("socket") or good
        if method == "OPTIONS":
            good = told(
                "204 No Content",
                Access_Control_Allow_Origin=headers["origin"],
                Access_Control_Allow_Credentials="true",
            )
            return parts.get("leave") or good
        assert target.startswith(f"{STREAM}/"), target
        return parts.get("stream") or told("200 OK", b": heard\n\n")

    return answers


@asynccontextmanager
async def at_door(folder: Path, **parts: bytes) -> AsyncIterator[Outside]:
    port: list[int] = []
    async with serving(door_like(port, **parts)) as number:
        port.append(number)
        settings = settings_in(
            folder,
            url="http://127.0.0.1:1",
            door=f"http://localhost:{number}",
            console=Console(origins=(ORIGIN,)),
        )
        yield looking(settings, folder)


async def test_a_door_that_is_well(folder: Path) -> None:
    async with at_door(folder) as outside:
        said = [one for one in await outside.findings() if one.subject != "control address"]
        assert [(one.level, one.subject) for one in said] == [("ok", "door")]


async def test_of_what_an_origin_is_allowed_no_more_than_headers_are_waited_for(folder: Path) -> None:
    allowed = f"Access-Control-Allow-Origin: {ORIGIN}\r\nAccess-Control-Allow-Credentials: true\r\n"
    endless = f"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n{allowed}\r\nand".encode()
    async with at_door(folder, leave=endless) as outside:
        assert not [one for one in await outside.findings() if one.subject == "origins"]


@pytest.mark.parametrize(
    ("part", "answer", "subject", "message", "cure"),
    [
        ("about", told("421 Misdirected Request"), "door", "under another name", "$http_host"),
        ("about", told("404 Not Found"), "door", "somebody else answers: 404", "Correct `door`"),
        (
            "about",
            issuer("https://other.example.com"),
            "door",
            "somebody else answers: 200",
            "Correct `door`",
        ),
        ("about", told("200 OK", b"[" * 60_000), "door", "somebody else answers: 200", "Correct `door`"),
        ("socket", told("426 Upgrade Required"), "terminals", "no WebSocket gets through", "$http_upgrade"),
        (
            "socket",
            told("403 Forbidden", b"Sec-WebSocket-Protocol does not offer derp.\n"),
            "terminals",
            "leaves Sec-WebSocket-Protocol out",
            "header_up -Sec-WebSocket-Protocol",
        ),
        (
            "socket",
            told(
                "403 Forbidden", b"Pages of this origin are not among the door's, nor in console.origins.\n"
            ),
            "terminals",
            "a proxy writes another",
            "header_up Origin",
        ),
        (
            "socket",
            told("403 Forbidden", b"<h1>no</h1>"),
            "terminals",
            "the answer is 403",
            "root of the door",
        ),
        ("socket", socket_of(KEYS.relay), "terminals", "out of the answer", "Sec-WebSocket-Protocol"),
        (
            "socket",
            socket_of(OTHER_RELAY, Sec_WebSocket_Protocol="derp"),
            "terminals",
            "another relay answers",
            "In nginx",
        ),
        ("other", told("403 Forbidden", b"console.origins"), "terminals", ORIGIN, "Origin"),
        ("stream", told("200 OK"), "live pages", "kept back", "proxy_buffering off"),
        ("stream", told("404 Not Found"), "live pages", "answers 404", "guide"),
        ("stream", b"nonsense\r\n\r\n", "live pages", "kept back", "flush_interval"),
        ("leave", told("405 Method Not Allowed"), "origins", "allows no origin", "pass OPTIONS on"),
        (
            "leave",
            told("204 No Content", Access_Control_Allow_Origin="*", Access_Control_Allow_Credentials="true"),
            "origins",
            "allows *",
            "of its own",
        ),
        (
            "leave",
            told("204 No Content", Access_Control_Allow_Origin=ORIGIN),
            "origins",
            "may not ask",
            "OPTIONS",
        ),
    ],
)
async def test_what_is_wrong_with_the_door(
    folder: Path, part: str, answer: bytes, subject: str, message: str, cure: str
) -> None:
    async with at_door(folder, **{part: answer}) as outside:
        said = [one for one in await outside.findings() if one.subject == subject]
    assert said
    for finding in said:
        assert finding.level == "error"
        assert message in finding.message
        assert cure in finding.cure


# The relay ----------------------------------------------------------------------------------------------------------


def _relay(port: int, pin: str = "") -> DERPRegion:
    node = DERPNode(Name="900a", RegionID=900, HostName="127.0.0.1", CertName=pin, DERPPort=port)
    return DERPRegion(RegionID=900, RegionCode="home", RegionName="doorward", Nodes=[node])


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (told("404 Not Found"), "the answer is 404"),
        (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n\r\n",
            "is another certificate",
        ),
        (b"", "does not answer in time"),
    ],
)
async def test_what_is_wrong_with_a_relay_that_has_a_pin(
    folder: Path, answer: bytes, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not answer:
        monkeypatch.setattr(knocking, "SECONDS", 0.5)
    server, _ = tls_contexts()
    async with serving(lambda *_: answer, secure=server) as port:
        region = _relay(port, "sha256-raw:" + "00" * 32)
        finding = await found(looking(settings_in(folder, url="http://127.0.0.1:1"), folder, region), "relay")
    assert finding.level in {"error", "warning"}
    assert message in finding.message
    assert finding.cure


@pytest.mark.usefixtures("unknown")
async def test_settings_that_cannot_be_well_are_said_without_asking(folder: Path) -> None:
    settings = settings_in(folder, url="https://control.invalid").settled(Ports())
    region = own_region(settings, "sha256-raw:00", shared=False)
    said = await looking(settings, folder, region).findings()
    proxies, relay = (
        (one for one in said if one.subject == "proxies"),
        (one for one in said if one.subject == "relay"),
    )
    assert "trusted_proxies" in next(proxies).cure
    assert "listens on 127.0.0.1 alone" in (first := next(relay)).message
    assert "relay.listen" in first.cure
    well = settings_in(
        folder,
        url="https://control.invalid",
        trusted_proxies=("127.0.0.1",),
        relay=Relay(proxied=True, listen="192.0.2.1"),
    ).settled(Ports())
    said = await looking(well, folder, own_region(well, "", shared=True)).findings()
    assert [one for one in said if "listens" in one.message or one.subject == "proxies"] == []


async def test_many_who_ask_cost_no_more_than_two_looks(folder: Path) -> None:
    asked = 0

    def answers(*_: Any) -> bytes:
        nonlocal asked
        asked += 1
        return told("404 Not Found")

    async with serving(answers) as port:
        outside = looking(settings_in(folder, url=f"http://127.0.0.1:{port}"), folder)
        async with asyncio.TaskGroup() as group:
            looks = [group.create_task(outside.findings()) for _ in range(20)]
        assert len({len(look.result()) for look in looks}) == 1
        assert 1 <= asked <= 2
        before = asked
        await outside.findings()  # later, it is looked at again
        assert asked == before + 1


# The answer without an end ------------------------------------------------------------------------------------------


async def test_the_answer_without_an_end_is_for_nobody_but_ourselves(folder: Path) -> None:
    clock = FakeClock()
    outside = Outside(settings_in(folder), KEYS, lambda: None, "", clock, os.urandom)
    ticket = outside._ticket()
    transport = httpx2.ASGITransport(Starlette(routes=outside.routes()))
    async with httpx2.AsyncClient(transport=transport, base_url="http://x") as client:
        until, _, signed = ticket.partition(".")
        for bad in (
            f"{int(until) + 1}.{signed}",
            f"{until}.{'0' * 64}",
            until,
            f".{signed}",
            "x.y",
            f"{until}.é",
            f"²{ticket}",
            "9" * 40,
        ):
            assert (await client.get(f"{STREAM}/{bad}")).status_code == 404
        clock.advance(timedelta(minutes=2).total_seconds())
        assert (await client.get(f"{STREAM}/{ticket}")).status_code == 404
