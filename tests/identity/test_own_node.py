"""A node for an app, of a real daemon at a real doorward: who calls, what is reachable beside it, and what ends."""

import asyncio
import json
import os
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tests.identity.test_identity import example
from tests.support.clients import StockClient
from tests.support.programs import OLDEST_CLIENT, require_client
from tests.support.server import Server, free_port
from tests.support.waiting import eventually, until
from tests.support.wiki import get, greets_alice_and_opens_nothing_else

from doorward import identity
from doorward.engine.base import EngineError, Status
from doorward.engine.localapi import LocalApi, Opening
from doorward.identity.own_node import OwnNode, _meets, load_pair

CAP = "example.com/cap/wiki"


def policy(port: str) -> str:
    grant = f'{{"src": ["autogroup:member"], "dst": ["tag:wiki"], "ip": ["tcp:{port}"], "app": {{"{CAP}": [{{"a": 1}}]}}}}'
    return f'{{"tagOwners": {{"tag:wiki": ["autogroup:admin"]}}, "grants": [{grant}]}}'


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    require_client()
    async with Server() as started:
        yield started


@pytest.mark.interop
async def test_the_guide_s_example_is_a_node_that_knows_its_callers_and_opens_nothing_else(
    server: Server, tmp_path: Path
) -> None:
    port = free_port()
    program = tmp_path / "wiki.py"
    program.write_text(example("identity.node(").replace("8000", str(port)), encoding="utf-8")
    await server.user("alice")
    await server.set_policy(policy(str(port)))

    async def set_policy(ports: str) -> None:
        await server.set_policy(policy(ports))

    async with StockClient("laptop") as laptop:
        await laptop.up(server.url, await server.key("--user", "alice"))
        await greets_alice_and_opens_nothing_else(
            program,
            laptop,
            set_policy,
            control=server.url,
            key=await server.key("--tag", "tag:wiki"),
            url=f"http://wiki.tailnet.internal:{port}",
            within=20,
        )


@pytest.mark.interop
@pytest.mark.parametrize("version", [None, OLDEST_CLIENT])
async def test_a_person_lets_it_in_by_link_and_a_wide_policy_keeps_it_from_serving(
    server: Server, tmp_path: Path, version: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(require_client(version).tailscaled.parent), prepend=os.pathsep)
    await server.user("alice")
    links: list[str] = []

    async def approve(link: str) -> None:
        links.append(link)
        await server.run("nodes", "approve", link, "--user", "alice")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("nobody gets here")

    async with identity.node(
        "notes", control=server.url, port=free_port(), folder=tmp_path / "n", on_link=approve
    ) as node:
        assert len(links) == 1
        assert node.name == "notes.tailnet.internal"
        with pytest.raises(EngineError, match="the policy lets others reach") as caught:
            await node.serve(app)
        assert "tcp:" in caught.value.cure
        assert (await node._api.prefs())["ShieldsUp"] is True
    # The second time it is known already.
    async with identity.node("notes", control=server.url, folder=tmp_path / "n", on_link=approve) as node:
        assert node.name == "notes.tailnet.internal"
    assert len(links) == 1


@pytest.mark.interop
async def test_the_guide_s_middleware_knows_who_comes_through_a_daemon(server: Server) -> None:
    await server.user("alice")
    await server.set_policy(
        f'{{"grants": [{{"src": ["*"], "dst": ["*"], "ip": ["*"], "app": {{"{CAP}": [{{"a": 1}}]}}}}]}}'
    )
    port = free_port()
    async with StockClient("host") as host, StockClient("laptop") as laptop:
        for client in (host, laptop):
            await client.up(server.url, await server.key("--user", "alice"))
        room: dict[str, Any] = {"Path": Path}
        exec(example("tailnet=Tailnet()").replace("Tailnet()", f"Tailnet(Path({str(host.socket)!r}))"), room)
        web = uvicorn.Server(uvicorn.Config(room["app"], port=port, log_config=None))
        async with asyncio.TaskGroup() as group:
            group.create_task(web.serve())
            try:
                url = f"http://host:{port}"

                async def greeted() -> bool:
                    return await get(laptop, url) == f"alice ['{CAP}']"

                await eventually(greeted, 20)
                # This web server takes the caller's address from a header where it comes from loopback: nobody's then.
                refused = await get(laptop, url, "-H", "X-Forwarded-For: 127.0.0.1")
                assert refused is not None
                assert "not known who is asking" in refused
                async with httpx2.AsyncClient(trust_env=False) as local:
                    assert (await local.get(f"http://127.0.0.1:{port}")).status_code == 401
            finally:
                web.should_exit = True


@pytest.mark.interop
async def test_a_key_that_is_no_good_is_a_refusal(server: Server, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"refused|not taken"):
        async with identity.node(
            "notes", control=server.url, auth_key="tskey-auth-none-x", folder=tmp_path / "n"
        ):
            pass


class Daemon:
    """A daemon's LocalAPI whose control has certificates made, with a packet filter that a test changes."""

    def __init__(self, folder: Path, pair: bytes) -> None:
        self.folder = folder
        self.api = LocalApi(folder / "s")
        self.pair = pair
        self.ports = (0, 0)
        self.shields: list[bool] = []

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        size = int(head.lower().partition("content-length: ")[2].partition("\r\n")[0])
        body = await reader.readexactly(size)
        writer.write(b"HTTP/1.0 200 OK\r\n\r\n" + self.said(head.split(" ")[1], body))
        writer.close()

    def said(self, path: str, body: bytes) -> bytes:
        path = path.removeprefix("/localapi/v0/")
        if path == "cert/wiki.tail.net?type=pair":
            return self.pair
        first, last = self.ports
        answers: dict[str, Any] = {
            "prefs": {},
            "status": {"BackendState": "Running", "TUN": False},
            "watch-ipn-bus": {
                "NetMap": {
                    "PacketFilterRules": [
                        {"DstPorts": [{"IP": "100.64.0.1", "Ports": {"First": first, "Last": last}}]}
                    ]
                }
            },
            "whois": {
                "Node": {"StableID": "n1", "Name": "laptop.tail.net."},
                "UserProfile": {"LoginName": "ann"},
                "CapMap": None,
            },
        }
        if path == "prefs":
            self.shields.append(json.loads(body)["ShieldsUp"])
        return json.dumps(answers[path.partition("?")[0]]).encode() + b"\n"


def certificate() -> tuple[bytes, ssl.SSLContext]:
    """A key with its certificate, for wiki.tail.net, and a client's context that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "wiki.tail.net")])
    start = datetime(2020, 1, 1, tzinfo=UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, start, start + timedelta(days=36500))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("wiki.tail.net")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    ).public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private + made, ssl.create_default_context(cadata=made.decode())


async def test_with_a_certificate_of_control_s_it_is_https_with_a_lifespan_and_shields(
    tmp_path: Path,
) -> None:
    pair, trust = certificate()
    daemon, port = Daemon(tmp_path, pair), free_port()
    lived: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            scope["state"]["greeting"] = "hello"
            for what in ("startup", "shutdown"):
                await receive()
                lived.append(what)
                await send({"type": f"lifespan.{what}.complete"})
            return
        who = identity.caller(scope)
        assert who is not None
        body = f"{scope['scheme']} {scope['state']['greeting']} {who.login}".encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    async def get() -> str:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=trust, server_hostname="wiki.tail.net"
        )
        writer.write(b"GET / HTTP/1.1\r\nHost: wiki.tail.net\r\nConnection: close\r\n\r\n")
        answer = await reader.read()
        writer.close()
        return answer.decode()

    status = msgspec.convert(
        {
            "CertDomains": ["wiki.tail.net"],
            "Self": {"DNSName": "wiki.tail.net.", "TailscaleIPs": ["100.64.0.1"]},
        },
        Status,
    )
    assert OwnNode(daemon, status, None, share_loopback=False).url == "https://wiki.tail.net"  # type: ignore[arg-type]
    node = OwnNode(daemon, status, port, share_loopback=False)  # type: ignore[arg-type]
    assert node.url == f"https://wiki.tail.net:{port}"
    daemon.ports = (port, port)
    ready = asyncio.Event()
    async with await asyncio.start_unix_server(daemon.answer, tmp_path / "s"), asyncio.TaskGroup() as group:
        serving = group.create_task(node.serve(app, ready=ready))
        await ready.wait()
        assert daemon.shields == [False]
        assert "\r\nhttps hello ann\r\n" in await get()
        daemon.ports = (0, 65535)
        await until(lambda: daemon.shields == [False, True])
        serving.cancel()
    assert daemon.shields[-1] is True
    assert lived == ["startup", "shutdown"]


@pytest.mark.parametrize(
    ("address", "meets"),
    [
        ("100.64.0.5", True),
        ("100.64.0.6", False),
        ("100.64.0.0/24", True),
        ("100.64.0.1-100.64.0.9", True),
        ("100.64.0.6-100.64.0.9", False),
        ("fd7a::/16", True),
        ("fd7b::1-fd7b::9", False),
        ("*", True),
        ("what is this", True),
    ],
)
def test_an_opening_is_about_us_or_not(address: str, meets: bool) -> None:
    ours = [ip_address("100.64.0.5"), ip_address("fd7a::5")]
    assert _meets(Opening(address=address, first=1, last=2), ours) is meets


def test_a_certificate_that_is_none_is_refused() -> None:
    with pytest.raises(EngineError):
        load_pair(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), b"no certificate")
