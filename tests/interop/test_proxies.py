"""nginx and Caddy before doorward, as the guide has them: nodes, tabs and people come in by them."""

import asyncio
import base64
import hashlib
import json
import os
import re
from collections.abc import AsyncIterator, Callable
from urllib.parse import urlencode

import httpx2
import pytest
from tests.relay.test_websocket import Tab
from tests.support.clients import StockClient
from tests.support.machines import all_ready
from tests.support.proxies import PROXIES, Behind, behind, standing, to_be_behind
from tests.support.server import Server
from tests.support.signed_in import sign_in
from tests.support.visiting import Visitor
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin

from doorward.clock import SystemClock
from doorward.engine.client import ControlClient
from doorward.protocol import derp
from doorward.protocol.keys import DiscoPublic, MachinePrivate, NodePrivate
from doorward.protocol.tailcfg.hostinfo import Hostinfo

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]

FORGED = {"X-Forwarded-User": "alice", "Remote-User": "alice", "Tailscale-User-Login": "alice"}


@pytest.fixture(params=PROXIES)
async def proxied(request: pytest.FixtureRequest) -> AsyncIterator[Behind]:
    async with behind(request.param) as made:
        yield made


async def _user(server: Server, name: str, *extra: str) -> int:
    await server.user(name, *extra)
    return int(next(one["id"] for one in await server.json("users", "list") if one["name"] == name))


async def test_stock_clients_join_by_it_and_its_relay_carries_their_packets(proxied: Behind) -> None:
    server = proxied.server
    await server.user("alice")
    # Nothing but the relay: it is what is to be seen at work.
    environ = {"SSL_CERT_FILE": str(proxied.authority), "TS_DEBUG_ALWAYS_USE_DERP": "1"}
    async with (
        StockClient("laptop", environ=environ) as laptop,
        StockClient("server", environ=environ) as other,
    ):
        for client in (laptop, other):
            await client.up(proxied.url, await server.key("--user", "alice"))
        await all_ready([laptop, other])
        assert "via DERP(home)" in await laptop.ping("server")
        said = (await server.json("status"))["parts"]
        (relay,) = (part["text"] for part in said if part["name"] == "relay")
        assert relay.startswith(f"127.0.0.1, TLS on port {proxied.port}, ")
        await _a_tab_and_a_node(proxied)


async def _a_tab_and_a_node(proxied: Behind) -> None:
    """The WebSocket carries frames both ways, and the origin of a page is looked at behind the proxy, too."""
    server, private = proxied.server, os.urandom(32)
    host, port = server.listens_at
    async with ControlClient(
        f"http://{host}:{port}",
        machine=MachinePrivate.from_entropy(os.urandom(32)),
        node=NodePrivate.from_entropy(private),
        disco=DiscoPublic(os.urandom(32)),
        clock=SystemClock(),
        entropy=os.urandom,
        hostinfo=Hostinfo(Hostname="tab", OS="js"),
    ) as node:
        await node.join(auth_key=await server.key("--user", "alice"))
        async with proxied.tab() as socket:
            assert socket.subprotocol == "derp"
            tab = Tab(socket)
            await tab.shake_hands(node.node)
            await socket.send(derp.send_packet(node.node.public().raw, b"to myself" * 2000))
            assert await tab.frame() == (derp.RECV_PACKET, node.node.public().raw + b"to myself" * 2000)
    with pytest.raises(InvalidStatus, match="403"):
        await proxied.tab(origin=Origin("https://evil.example.com"))


async def test_people_come_by_it_and_only_their_address_is_believed(proxied: Behind) -> None:
    server = proxied.server
    user = await _user(server, "ann", "--role", "admin")
    secret = await sign_in(server.folder, user, proxied.origin)
    token = (await server.run("tokens", "create", "by the proxy", "--role", "admin")).stdout.strip()
    async with proxied.browser(source="127.0.0.9") as stranger:
        page = await stranger.get("/signin")
        assert page.status_code == 200
        assert (await stranger.get("/machines")).headers["location"] == "/signin?next=/machines"
        assert (await stranger.get("/api/v1/console", headers=FORGED)).status_code == 401
        made = await stranger.post(
            "/api/v1/users",
            json={"name": "bob"},
            headers={"Authorization": f"Bearer {token}", "X-Forwarded-For": "198.51.100.1", **FORGED},
        )
        assert made.status_code == 201
    (event,) = (one for one in await server.json("audit", "list") if one["target"] == "user:bob")
    assert "127.0.0.9" in json.dumps(event)
    assert "198.51.100.1" not in json.dumps(event)
    async with proxied.browser(Cookie=f"__Host-doorward={secret}") as ann:
        console = await ann.get("/api/v1/console")
        assert console.json()["user"]["name"] == "ann"
        await _hears_at_once(ann, "", server)


async def _hears_at_once(browser: httpx2.AsyncClient, path: str, server: Server) -> None:
    """An answer without an end is not kept back."""
    asking = browser.stream("GET", f"{path}/api/v1/console/events", headers={"Accept": "text/event-stream"})
    host, port = server.listens_at
    await server.user("zoe")
    key = await server.key("--user", "zoe")
    async with asyncio.timeout(45), asking as stream:
        assert stream.status_code == 200
        async with asyncio.TaskGroup() as group:
            told = group.create_task(_hears_of(stream, "fresh"))
            async with ControlClient(
                f"http://{host}:{port}",
                machine=MachinePrivate.from_entropy(os.urandom(32)),
                node=NodePrivate.from_entropy(os.urandom(32)),
                disco=DiscoPublic(os.urandom(32)),
                clock=SystemClock(),
                entropy=os.urandom,
                hostinfo=Hostinfo(Hostname="fresh", OS="linux"),
            ) as node:
                await node.join(auth_key=key)
                await told


async def _hears_of(stream: httpx2.Response, name: str) -> None:
    """Read on until it is named; of other changes, as of doorward's own node, a page hears as well."""
    async for line in stream.aiter_lines():
        if line.startswith("data:") and name in line:
            return
    raise AssertionError("the stream has ended")


@pytest.mark.parametrize("kind", PROXIES)
async def test_a_door_under_a_path_shares_its_name_with_others(kind: str) -> None:
    async with behind(kind, path="/tailnet") as proxied:
        server = proxied.server
        user = await _user(server, "ann", "--role", "admin")
        secret = await sign_in(server.folder, user, proxied.origin)
        async with proxied.browser(Cookie=f"__Secure-doorward={secret}") as ann:
            page = await ann.get("/tailnet/me")
            assert page.status_code == 200
            assert (await ann.get("/tailnet")).headers["location"] == "/tailnet/machines"
            about = (await ann.get("/tailnet/.well-known/openid-configuration")).json()
            assert about["issuer"] == proxied.door
            for name in ("oauth-authorization-server", "openid-configuration"):
                assert (await ann.get(f"/.well-known/{name}/tailnet")).json()["issuer"] == proxied.door
            userinfo = (await ann.get("/.well-known/oauth-protected-resource/tailnet/userinfo")).json()
            assert userinfo["resource"] == f"{proxied.door}/userinfo"
            # Beside it the name is somebody else's, and doorward is not even asked.
            for path in ("/me", "/tailnets", "/key", "/api/v1/console"):
                assert "x-request-id" not in (await ann.get(path)).headers
            await _hears_at_once(ann, "/tailnet", server)
            left = await ann.post("/tailnet/signout", data={"": ""}, headers={"Origin": proxied.origin})
            assert left.headers["location"] == "/tailnet/signin"
            assert (await ann.get("/tailnet/api/v1/console")).status_code == 401
        async with proxied.tab() as socket:
            assert isinstance(await socket.recv(), bytes)
        control = httpx2.AsyncClient(base_url=proxied.url, verify=proxied.trust())
        async with control:
            assert (await control.get("/key?v=140")).json()["publicKey"]


def _without(*parts: str) -> Callable[[str], str]:
    """The settings without the lines that hold one of these."""
    return lambda text: "".join(
        line for line in text.splitlines(keepends=True) if not any(part in line for part in parts)
    )


def _also(line: str) -> Callable[[str], str]:
    """The settings with one more line wherever something is passed on."""
    return lambda text: (
        text.replace("proxy_pass ", f"{line};\nproxy_pass ")
        if "{" not in line
        else re.sub(r"reverse_proxy (\S+)\n", lambda found: f"reverse_proxy {found[1]} {line}\n", text)
    )


async def _doctor(server: Server) -> dict[str, tuple[str, str, str]]:
    """What is said of the outside, by subject: level, message and cure."""
    done = await server.run("doctor", "--json", check=False)
    found = {
        one["subject"]: (one["level"], one["message"], one.get("cure", ""))
        for one in json.loads(done.stdout)
        if one["subject"]
        in {"control address", "relay", "door", "terminals", "live pages", "origins", "proxies"}
    }
    assert done.returncode == any(level == "error" for level, _, _ in found.values())
    return found


@pytest.mark.parametrize("kind", PROXIES)
async def test_the_doctor_finds_nothing_wrong_with_the_guide_s_settings(kind: str) -> None:
    origins = {"DOORWARD_CONSOLE_ORIGINS": "https://console.example.com"}
    async with to_be_behind(host="localhost", environ=origins) as proxied, standing(kind, proxied):
        found = await _doctor(proxied.server)
        assert {subject: level for subject, (level, _, _) in found.items()} == dict.fromkeys(
            ("control address", "relay", "door"), "ok"
        ), found


_NO_UPGRADES = _without("Upgrade", "Connection")
MISTAKES = [
    (
        "nginx",
        _NO_UPGRADES,
        "control address",
        "/ts2021 does not get through",
        "$http_upgrade",
    ),
    ("nginx", _NO_UPGRADES, "relay", "upgrade of /derp does not", "$http_upgrade"),
    ("nginx", _NO_UPGRADES, "terminals", "no WebSocket gets through", "$http_upgrade"),
    ("caddy", _also("{\n header_up -Upgrade\n}"), "control address", "/ts2021 does not get", "Caddy passes"),
    ("nginx", _without("Host"), "door", "under another name", "$http_host"),
    (
        "caddy",
        _also("{\n header_up Host other.example.com\n}"),
        "door",
        "under another name",
        "header_up Host",
    ),
    (
        "nginx",
        _also('proxy_set_header Sec-WebSocket-Protocol ""'),
        "terminals",
        "leaves Sec-WebSocket-Protocol out",
        "proxy_set_header Sec-WebSocket-Protocol",
    ),
    (
        "caddy",
        _also("{\n header_up -Sec-Websocket-Protocol\n}"),
        "terminals",
        "leaves Sec-WebSocket-Protocol out",
        "header_up -Sec-WebSocket-Protocol",
    ),
    (
        "nginx",
        lambda text: _also("proxy_ignore_headers X-Accel-Buffering")(_without("proxy_buffering")(text)),
        "live pages",
        "kept back",
        "proxy_buffering off",
    ),
    (
        "nginx",
        _also("proxy_hide_header Access-Control-Allow-Origin"),
        "origins",
        "may not ask",
        "Access-Control",
    ),
    (
        "caddy",
        _also('{\n header_up Origin "https://elsewhere.example.com"\n}'),
        "terminals",
        "a proxy writes another",
        "header_up Origin",
    ),
]


@pytest.mark.parametrize("kind", PROXIES)
async def test_the_doctor_names_each_mistake_and_its_cure(kind: str) -> None:
    by_change: dict[int, list[tuple[str, str, str]]] = {}
    changes = {id(change): change for name, change, *_ in MISTAKES if name == kind}
    for name, change, subject, message, cure in MISTAKES:
        if name == kind:
            by_change.setdefault(id(change), []).append((subject, message, cure))
    origins = {"DOORWARD_CONSOLE_ORIGINS": "https://console.example.com"}
    async with to_be_behind(host="localhost", environ=origins) as proxied:
        for number, expected in by_change.items():
            async with standing(kind, proxied, changes[number]):
                found = await _doctor(proxied.server)
            for subject, message, cure in expected:
                level, said, helps = found[subject]
                assert level == "error", found
                assert message in said, found
                assert cure in helps, found
        found = await _doctor(proxied.server)  # the proxy is gone
        assert "nobody listens" in found["control address"][1]


async def test_an_app_signs_people_in_at_an_issuer_under_a_path() -> None:
    """As any client does that goes by what the issuer says of itself, with every address below the path."""
    async with to_be_behind(path="/tailnet", host="localhost") as proxied, standing("nginx", proxied):
        server, back = proxied.server, "https://wiki.example.com/back"
        user = await _user(server, "ann")
        secret = await sign_in(server.folder, user, proxied.origin)
        app = await server.json("apps", "create", "wiki", "--redirect", back)
        client_id, login = app["app"]["client_id"], (app["app"]["client_id"], app["secret"])
        assert app["app"]["issuer"] == proxied.door
        verifier = "v" * 43
        asked = {
            "client_id": client_id,
            "redirect_uri": back,
            "response_type": "code",
            "scope": "openid profile",
            "code_challenge": base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest())
            .decode()
            .rstrip("="),
            "code_challenge_method": "S256",
        }
        async with Visitor(proxied.authority, "") as browser:
            browser._client.cookies.set(
                "__Secure-doorward", secret, domain="localhost.local", path="/tailnet"
            )
            about = (await browser.fetch("GET", f"{proxied.door}/.well-known/openid-configuration")).json()
            arrived = await browser.go(
                f"{about['authorization_endpoint']}?{urlencode(asked)}", ends_at=back, press="yes"
            )
            assert arrived.answer["iss"] == proxied.door
            form = {
                "grant_type": "authorization_code",
                "code": arrived.answer["code"],
                "redirect_uri": back,
                "code_verifier": verifier,
            }
            told = await browser.send(about["token_endpoint"], form, login)
            assert told.status_code == 200, told.text
            keys = (await browser.fetch("GET", about["jwks_uri"])).json()
            kid = json.loads(base64.urlsafe_b64decode(told.json()["id_token"].split(".")[0] + "=="))["kid"]
            assert kid in {key["kid"] for key in keys["keys"]}
            claims = json.loads(base64.urlsafe_b64decode(told.json()["id_token"].split(".")[1] + "=="))
            assert (claims["iss"], claims["aud"]) == (proxied.door, client_id)
            person = await browser.fetch(
                "GET", about["userinfo_endpoint"], Authorization=f"Bearer {told.json()['access_token']}"
            )
            assert person.json()["sub"] == claims["sub"]
