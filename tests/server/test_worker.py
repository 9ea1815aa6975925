"""The whole server in one process, on real sockets, without a node of its own."""

import asyncio
import hashlib
import os
import re
import socket
import sqlite3
import ssl
import stat
import time
from collections.abc import Iterator
from datetime import timedelta
from ipaddress import IPv4Address
from pathlib import Path

import httpx2
import pytest
from cryptography import x509
from tests.support.clock import FakeClock
from tests.support.mmdb import countries
from tests.support.signed_in import sign_in
from tests.support.waiting import eventually, until
from tests.support.workers import Working, data_folder, relay_of, settings_in, working, write_certificate
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin, Subprotocol

from doorward.audit.notary import CHECKPOINTS_FILE, PUBLIC_FILE
from doorward.cli.audit_files import verify_files
from doorward.clock import SystemClock
from doorward.config.settings import Audit, Certificate, Console, Policy, Relay, Tls
from doorward.engine.derp import pinned_context
from doorward.errors import BadInput, DoorwardError, Unavailable
from doorward.protocol.keys import NodePrivate
from doorward.server import tls
from doorward.server import worker as module
from doorward.server.child import Child
from doorward.server.sockets import bind
from doorward.server.team import Team, encode_payload
from doorward.tailnet import keeping

CLOSED = '{"grants": []}'
OPEN = '{"grants": [{"src": ["*"], "dst": ["*"], "ip": ["*"]}]}'


@pytest.fixture
def folder() -> Iterator[Path]:
    with data_folder() as name:
        yield name


async def _fetch(running: Working, path: str, **headers: str) -> httpx2.Response:
    async with running.public() as client:
        return await client.get(path, headers=headers)


async def test_the_control_address_answers_what_clients_ask_first(folder: Path) -> None:
    async with working(settings_in(folder)) as running:
        key = (await _fetch(running, "/key?v=140")).json()
        assert key["publicKey"].startswith("mkey:")
        answer = await _fetch(running, "/generate_204", **{"X-Tailscale-Challenge": "abc"})
        assert (answer.status_code, answer.headers["x-tailscale-response"]) == (204, "response abc")
        assert (await _fetch(running, "/derp/probe")).status_code == 200
        ca = await _fetch(running, "/ca.pem")
        assert ca.text == (folder / "tls" / "authority.pem").read_text()
        assert ca.text.startswith("-----BEGIN CERTIFICATE-----")
        unknown = await _fetch(running, "/join/nosuchlink", Accept="text/html")
        assert unknown.status_code == 404
        assert unknown.headers["content-type"].startswith("text/html")
        assert "nosuchlink" not in unknown.text
        assert len(unknown.headers["x-request-id"]) == 12  # pages, too: what they change has it on record
        assert "default-src 'none'" in unknown.headers["content-security-policy"]


async def test_pages_of_the_doors_and_of_named_origins_speak_to_the_relay(folder: Path) -> None:
    settings = settings_in(folder, console=Console(origins=("https://console.example.com",)))
    async with working(settings) as running:
        port = running.settings.listen.rpartition(":")[2]
        ours = (running.settings.door, f"http://localhost:{port}", "https://console.example.com", None)
        for origin in (*ours, f"http://127.0.0.1:{port}", "https://evil.example.com"):
            connecting = connect(
                f"ws://127.0.0.1:{port}/derp",
                subprotocols=[Subprotocol("derp")],
                origin=None if origin is None else Origin(origin),
                proxy=None,
                compression=None,
            )
            if origin in ours:
                async with connecting as socket:
                    assert (await socket.recv())[:1] == b"\x01"  # the relay's key
            else:
                with pytest.raises(InvalidStatus, match="403"):
                    await connecting


async def test_the_api_is_the_administrator_s_where_the_data_directory_is_and_nobody_s_elsewhere(
    folder: Path,
) -> None:
    async with working(settings_in(folder)) as running:
        assert stat.S_IMODE((folder / "doorward.sock").stat().st_mode) == 0o600
        status = await running.ask("GET", "/status")
        assert status["url"] == running.settings.url
        assert {part["name"]: part["state"] for part in status["parts"]} == {
            "control": "running",
            "relay": "running",
            "database": "running",
            "policy": "running",
            "own node": "off",
            "audit": "running",
        }
        for headers in (
            {},
            {"X-Doorward-User": "alice"},
            {"Remote-User": "root"},
            {"X-Forwarded-For": "127.0.0.1"},
        ):
            assert (await _fetch(running, "/api/v1/status", **headers)).status_code == 401
        token = (await running.ask("POST", "/tokens", role="auditor", description="test"))["secret"]
        answer = await _fetch(running, "/api/v1/status", Authorization=f"Bearer {token}")
        assert answer.status_code == 200


async def test_a_browser_of_somebody_who_has_signed_in_uses_the_api(folder: Path) -> None:
    async with working(settings_in(folder)) as running:
        user = await running.ask("POST", "/users", name="ann", role="admin")
        port = running.settings.listen.rpartition(":")[2]
        origin = f"http://localhost:{port}"
        secret = await sign_in(folder, user["id"], origin)
        headers = {"Host": f"localhost:{port}", "Cookie": f"doorward-{port}={secret}"}
        seen = await _fetch(running, "/api/v1/sessions", **headers)
        assert [each["user"] for each in seen.json()] == ["ann"]
        async with running.public() as client:
            for origins, status in (
                ({}, 403),
                ({"Origin": "http://localhost:1"}, 403),
                ({"Origin": origin}, 201),
            ):
                made = await client.post("/api/v1/users", json={"name": "bob"}, headers=headers | origins)
                assert made.status_code == status, made.text
        (event, *_) = await running.ask("GET", "/audit?action=user.create")
        assert (event["actor"], event["target"]) == ("user:ann", "user:bob")
        # When it started nobody could administer.
        file = folder / "first-administrator.txt"
        await until(file.exists)
        code = file.read_text().splitlines()[0].rpartition("/")[2]
        page = await _fetch(running, f"/invite/{code}", Host=f"localhost:{port}", Accept="text/html")
        assert (page.status_code, page.headers["referrer-policy"]) == (200, "no-referrer")


async def test_what_happens_is_delivered_signed_and_proven_without_the_server(folder: Path) -> None:
    file = folder / "audit.jsonl"
    async with working(settings_in(folder, audit=Audit(file=file))) as running:
        await running.ask("POST", "/users", name="alice")
        async with running.node("laptop"):
            pass
        (joined,) = await running.ask("GET", "/audit?action=node.register")
        origin = joined["details"]["origin"]
        assert (origin["source"], len(origin["request"])) == ("127.0.0.1", 12)
        (made,) = await running.ask("GET", "/audit?action=user.create")
        assert made["details"]["origin"]["source"] == "admin socket"

        async def delivered() -> bool:
            parts = {part["name"]: part for part in (await running.ask("GET", "/status"))["parts"]}
            return str(parts["audit file"]["text"]).endswith("has every event")

        await eventually(delivered)
        last = (await running.ask("GET", "/audit?limit=1"))[0]["seq"]
    verdict = verify_files(
        [file], checkpoints=folder / CHECKPOINTS_FILE, keys=[str(folder / PUBLIC_FILE)], part=False
    )
    assert (verdict.problems, verdict.last, verdict.confirmed) == ((), last, last)


async def test_numbers_are_for_the_administrator_alone(folder: Path) -> None:
    async with working(settings_in(folder)) as running:
        async with running.admin() as client:
            answer = await client.get("/metrics")
        assert "doorward_listener_refused_total" in answer.text
        assert (await _fetch(running, "/metrics")).status_code == 403


async def test_no_header_says_who_is_asking(folder: Path) -> None:
    async with working(settings_in(folder)) as running:
        claims = {"Tailscale-User-Login": "alice", "X-Webauth-User": "alice", "Remote_User": "alice"}
        answer = await _fetch(running, "/whoami", **claims)
        assert answer.status_code == 403
        assert "alice" not in answer.text


async def test_the_door_closes_on_whoever_does_not_come_through_the_tailnet(folder: Path) -> None:
    async with working(settings_in(folder)) as running:
        host = f"door.{running.settings.domain}"
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", running.settings.ports.door, ssl=running.trust(), server_hostname=host
        )
        writer.write(b"GET /whoami HTTP/1.1\r\nHost: door\r\n\r\n")
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        writer.transport.abort()


async def test_the_relay_presents_the_certificate_that_nodes_are_told_of(folder: Path) -> None:
    async with working(settings_in(folder)) as running:
        await running.ask("POST", "/users", name="alice")
        async with running.node("laptop") as laptop, running.node("server") as server:
            relay = relay_of(laptop)
            assert (relay.HostName, relay.IPv4, relay.IPv6) == ("127.0.0.1", "127.0.0.1", "none")
            assert (relay.DERPPort, relay.STUNPort) == (
                running.settings.ports.relay,
                running.settings.ports.stun,
            )
            context = ssl.create_default_context(cafile=str(folder / "tls" / "authority.pem"))
            presented = await asyncio.to_thread(_leaf, relay.DERPPort, context)
            assert relay.CertName == "sha256-raw:" + hashlib.sha256(presented).hexdigest()
            one, other = await running.relayed(laptop), await running.relayed(server)
            one.send(server.node.public(), b"hello")
            assert getattr(await other.recv(), "data", None) == b"hello"
            one.close()
            other.close()


def _leaf(port: int, context: ssl.SSLContext) -> bytes:
    with (
        socket.create_connection(("127.0.0.1", port)) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as tls,
    ):
        found = tls.getpeercert(binary_form=True)
    assert found is not None
    return found


async def test_a_stranger_s_key_gets_nowhere_on_the_relay(folder: Path) -> None:
    async with working(settings_in(folder)) as running:
        await running.ask("POST", "/users", name="alice")
        async with running.node("laptop") as laptop:
            laptop.node, good = NodePrivate.from_entropy(os.urandom(32)), laptop.node
            with pytest.raises(DoorwardError):
                await running.relayed(laptop)
            laptop.node = good
            (await running.relayed(laptop)).close()


@pytest.mark.parametrize("how", ["deleted", "expired", "logged out"])
async def test_who_is_no_longer_in_is_thrown_out_of_the_relay(folder: Path, how: str) -> None:
    async with working(settings_in(folder)) as running:
        await running.ask("POST", "/users", name="alice")
        await running.ask("POST", "/users", name="bob")
        async with running.node("laptop") as laptop, running.node("other", "bob") as other:
            connection, stays = await running.relayed(laptop), await running.relayed(other)
            if how == "deleted":
                await running.ask("DELETE", "/nodes/laptop")
            elif how == "expired":
                await running.ask("POST", "/nodes/laptop/expire")
            else:
                await laptop.logout()
            with pytest.raises(DoorwardError):
                async with asyncio.timeout(5):
                    await connection.recv()
            with pytest.raises(DoorwardError):
                await running.relayed(laptop)
            await stays.ping(b"12345678")
            stays.close()


async def test_whose_key_ends_by_itself_is_thrown_out_of_the_relay_too(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "LOOK", 0.05)
    clock = FakeClock(SystemClock().now())
    async with working(settings_in(folder), clock) as running:
        await running.ask("POST", "/users", name="alice")
        async with running.node("laptop") as laptop:
            clock.advance(timedelta(days=1))
            async with running.node("other") as other:
                connection, stays = await running.relayed(laptop), await running.relayed(other)
                clock.advance(timedelta(days=179, hours=1))  # a key lasts 180
                with pytest.raises(DoorwardError):
                    async with asyncio.timeout(5):
                        await connection.recv()
                await stays.ping(b"12345678")
                stays.close()


async def test_a_renewed_certificate_is_told_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REFRESH", 0.05)
    clock = FakeClock(SystemClock().now())
    async with working(settings_in(folder), clock) as running:
        await running.ask("POST", "/users", name="alice")
        async with running.node("laptop") as laptop:
            before = relay_of(laptop).CertName
            clock.advance(tls.LEAF_LIFE * 0.4)  # its backdated life counts too: a third of both is left
            await laptop.until(lambda _: relay_of(laptop).CertName != before)
            # And the relay presents the new one, to which the pin leads.
            presented = await asyncio.to_thread(_leaf, relay_of(laptop).DERPPort, pinned_context())
            assert relay_of(laptop).CertName.endswith(hashlib.sha256(presented).hexdigest())


async def test_a_certificate_that_cannot_be_renewed_keeps_no_other_back(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REFRESH", 0.05)
    cert, key, _ = write_certificate(folder, "door.tailnet.internal")
    clock = FakeClock(SystemClock().now())
    settings = settings_in(folder, tls=Tls(door=Certificate(cert=cert, key=key)))
    async with working(settings, clock) as running:
        await running.ask("POST", "/users", name="alice")
        async with running.node("laptop") as laptop:
            before = relay_of(laptop).CertName
            cert.write_text("half a fi")
            clock.advance(tls.LEAF_LIFE * 0.4)
            await laptop.until(lambda _: relay_of(laptop).CertName != before)


async def test_a_console_at_another_origin_uses_its_own_part_of_the_api_and_no_other(folder: Path) -> None:
    console = "https://console.example.com"
    async with working(settings_in(folder, console=Console(origins=(console,)))) as running:
        user = await running.ask("POST", "/users", name="ann", role="owner")
        port = running.settings.listen.rpartition(":")[2]
        secret = await sign_in(folder, user["id"], f"http://localhost:{port}")
        here = {"Host": f"localhost:{port}", "Cookie": f"doorward-{port}={secret}"}
        there = {**here, "Origin": console, "Sec-Fetch-Site": "same-site"}
        answer = await _fetch(running, "/api/v1/console", **there)
        assert answer.json()["user"]["name"] == "ann"
        assert answer.headers["access-control-allow-origin"] == console
        async with running.public() as client:
            leave = await client.options(
                "/api/v1/console", headers={"Origin": console, "Access-Control-Request-Method": "GET"}
            )
        assert (leave.status_code, leave.headers["access-control-allow-credentials"]) == (204, "true")
        refused = await _fetch(running, "/api/v1/status", **there)
        assert refused.status_code == 403
        assert "access-control-allow-origin" not in refused.headers
        other = {**there, "Origin": "https://evil.example.com"}
        for path in ("/api/v1/console", "/api/v1/status"):
            refused = await _fetch(running, path, **other)
            assert refused.status_code == 403
            assert "access-control-allow-origin" not in refused.headers
        # A name that is not the door's has no pages, whoever asks.
        assert (await _fetch(running, "/api/v1/console", **{**there, "Host": "x.example"})).status_code == 401


async def test_the_door_is_under_a_path_and_what_programs_know_is_not(folder: Path) -> None:
    door = "https://intranet.example.com/tailnet"
    settings = settings_in(folder, url="http://127.0.0.1:1", door=door)
    async with working(settings) as running:
        user = await running.ask("POST", "/users", name="ann", role="admin")
        secret = await sign_in(folder, user["id"], "https://intranet.example.com")
        port = running.settings.listen.rpartition(":")[2]
        async with httpx2.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", headers={"Host": "intranet.example.com"}, trust_env=False
        ) as client:
            cookie = {"Cookie": f"__Secure-doorward={secret}"}
            page = await client.get("/tailnet/me", headers=cookie)
            assert page.status_code == 200
            links = re.findall(r'(?:href|action|src)="(/[^"]*)"', page.text)
            assert len(links) > 4
            assert [link for link in links if not link.startswith("/tailnet/")] == []
            assert (await client.get(links[0])).headers["content-type"] == "image/svg+xml"
            assert (await client.get("/tailnet/api/v1/status", headers=cookie)).status_code == 200
            described = (await client.get("/tailnet/api/v1/openapi.json", headers=cookie)).json()
            assert "/tailnet/api/v1/status" in described["paths"]
            about = (await client.get("/tailnet/.well-known/openid-configuration")).json()
            assert about["issuer"] == door
            assert (await client.get(about["jwks_uri"].removeprefix("https://intranet.example.com"))).json()[
                "keys"
            ]
            told = (await client.get("/.well-known/oauth-authorization-server/tailnet")).json()
            assert told["token_endpoint"] == f"{door}/token"
            described = (await client.get("/tailnet/userinfo")).headers["www-authenticate"]
            assert (
                "https://intranet.example.com/.well-known/oauth-protected-resource/tailnet/userinfo"
                in described
            )
            known = await client.get("/.well-known/oauth-protected-resource/tailnet/userinfo")
            assert known.json()["resource"] == f"{door}/userinfo"
            left = await client.post(
                "/tailnet/signout",
                data={"": ""},
                headers={**cookie, "Origin": "https://intranet.example.com"},
            )
            assert left.headers["location"] == "/tailnet/signin"
            assert "Path=/tailnet;" in left.headers["set-cookie"]
            for path in ("/me", "/api/v1/status", "/.well-known/openid-configuration", "/join/x"):
                assert (await client.get(path, headers=cookie)).status_code == 404
            for path in ("/key?v=140", "/derp/probe", "/ca.pem"):
                assert (await client.get(path)).status_code == 200
            assert (await client.get("/")).headers["location"] == "/tailnet/"
            assert (await client.get("/tailnet/")).headers["location"] == "/tailnet/machines"
            asked = await client.get("/tailnet/machines?q=x")
            assert asked.headers["location"] == "/tailnet/signin?next=/machines%3Fq%3Dx"
            assert (await client.get(asked.headers["location"])).status_code == 200
            control = {"Host": "127.0.0.1:1"}
            assert (await client.get("/join/nosuchlink", headers=control)).status_code == 404
            assert "/_doorward/" in (await client.get("/join/nosuchlink", headers=control)).text
        invited = await running.ask("POST", "/invitations", user="ann")
        assert {link["url"].rpartition("/invite/")[0] for link in invited["links"]} == {
            door,
            f"http://localhost:{port}",
        }


async def test_a_door_under_a_path_of_our_own_is_refused(folder: Path) -> None:
    settings = settings_in(folder, url="http://127.0.0.1:1", door="https://intranet.example.com/signin")
    with pytest.raises(BadInput, match="doorward serves /signin itself"):
        async with working(settings):
            pass


async def test_reloading_reads_the_policy_file_and_a_bad_one_changes_nothing(folder: Path) -> None:
    policy = folder / "policy.hujson"
    policy.write_text(CLOSED)
    async with working(settings_in(folder, policy=Policy(file=policy))) as running:
        await running.ask("POST", "/users", name="alice")
        await running.ask("POST", "/users", name="bob")
        async with running.node("laptop") as laptop, running.node("server", "bob"):
            assert laptop.netmap.peers == ()
            policy.write_text("{")
            running.reload.set()
            await until(lambda: not running.reload.is_set())
            policy.write_text(OPEN)
            running.reload.set()
            assert (await laptop.until(lambda netmap: netmap.peers)).peers[0].Name.startswith("server.")
        parts = (await running.ask("GET", "/status"))["parts"]
        (text,) = (part["text"] for part in parts if part["name"] == "policy")
        assert text == f"version 3, set by file, owned by {policy}"


async def test_reloading_reads_other_relays_again_and_a_bad_map_changes_nothing(folder: Path) -> None:
    relays = folder / "relays.json"
    relays.write_text('{"Regions": {}}')
    async with working(settings_in(folder, relay=Relay(maps=(str(relays),)))) as running:
        await running.ask("POST", "/users", name="alice")
        async with running.node("laptop") as laptop:
            relays.write_text('{"Regions": {"900": {"RegionID": 900, "RegionCode": "x", "RegionName": "x"}}}')
            running.reload.set()
            await until(lambda: not running.reload.is_set())
            relays.write_text('{"Regions": {"901": {"RegionID": 901, "RegionCode": "x", "RegionName": "x"}}}')
            running.reload.set()
            netmap = await laptop.until(lambda netmap: netmap.derp_map and len(netmap.derp_map.Regions) == 2)
            assert netmap.derp_map is not None
            assert netmap.derp_map.Regions[900].RegionName == "doorward"


async def test_without_any_relay_it_does_not_start(folder: Path) -> None:
    with pytest.raises(BadInput, match="there is no relay"):
        async with working(settings_in(folder, relay=Relay(enabled=False))):
            pass


async def test_keys_are_made_once_and_are_nobody_else_s(folder: Path) -> None:
    settings = settings_in(folder)
    async with working(settings) as running:
        first = (await _fetch(running, "/key?v=140")).json()
        ports = running.settings.ports
    kept = {name: (folder / name).read_text() for name in ("noise.key", "relay.key")}
    assert len(set(kept.values())) == 2
    for name in (*kept, "tls/authority.key", "tls/relay.pem", "doorward.db"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600, name
    async with working(settings) as running:
        assert (await _fetch(running, "/key?v=140")).json() == first
        assert running.settings.ports == ports
    assert {name: (folder / name).read_text() for name in kept} == kept


async def test_it_stops_soon_whoever_is_connected(folder: Path) -> None:
    async with working(settings_in(folder)) as running:
        await running.ask("POST", "/users", name="alice")
        async with running.node("laptop") as laptop:
            connection = await running.relayed(laptop)
            idle = socket.create_connection(("127.0.0.1", running.settings.ports.relay))
            began = time.monotonic()
            running.stop.set()
            await until(lambda: not _listens(running.settings.ports.relay), 3)
            with pytest.raises(DoorwardError):
                async with asyncio.timeout(3):
                    await connection.recv()
            idle.close()
    assert time.monotonic() - began < 3.5


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def test_a_newer_database_is_refused_in_words(folder: Path) -> None:
    async with working(settings_in(folder)):
        pass
    with sqlite3.connect(folder / "doorward.db") as database:
        database.execute("UPDATE schema_version SET version_num = '9999'")
        database.execute("UPDATE settings SET value = '9999' WHERE key LIKE '%oldest%'")
    database.close()
    with pytest.raises(Unavailable) as refused:
        async with working(settings_in(folder)):
            pass
    assert "the database was written by doorward" in refused.value.message
    assert "Install doorward" in refused.value.cure


async def test_a_bad_policy_file_is_said_with_its_place(folder: Path) -> None:
    policy = folder / "policy.hujson"
    policy.write_text('{"grants": 5}')
    with pytest.raises(BadInput) as refused:
        async with working(settings_in(folder, policy=Policy(file=policy))):
            pass
    assert str(policy) in refused.value.place


async def test_where_control_has_a_certificate_the_relay_shares_its_listener(folder: Path) -> None:
    cert, key, authority = write_certificate(folder, "control.example.com")
    settings = settings_in(
        folder, url="https://control.example.com:8443", tls=Tls(url=Certificate(cert=cert, key=key))
    )
    async with working(settings) as running:
        assert running.worker._own_region() is not None
        port = int(running.settings.listen.rpartition(":")[2])
        context = ssl.create_default_context(cafile=str(authority))
        # By one name the control certificate, by the other the door's.
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=context, server_hostname="control.example.com"
        )
        writer.write(b"GET /derp/probe HTTP/1.1\r\nHost: control.example.com\r\nConnection: close\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.close()
        _, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=running.trust(), server_hostname=f"door.{running.settings.domain}"
        )
        writer.close()
        region = running.worker._own_region()
        assert region is not None
        assert (region.Nodes[0].CertName, region.Nodes[0].DERPPort, region.Nodes[0].IPv4) == ("", 8443, "")


async def test_a_relay_with_an_address_of_its_own_has_its_own_listener_and_certificate(folder: Path) -> None:
    cert, key, _ = write_certificate(folder, "control.example.com")
    settings = settings_in(
        folder,
        url="https://control.example.com:8443",
        tls=Tls(url=Certificate(cert=cert, key=key)),
        relay=Relay(host="127.0.0.2", region=905),
    )
    async with working(settings) as running:
        region = running.worker._own_region()
        assert region is not None
        (node,) = region.Nodes
        presented = x509.load_der_x509_certificate(
            await asyncio.to_thread(_leaf, node.DERPPort, pinned_context())
        )
        names = presented.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.IPAddress) == [IPv4Address("127.0.0.2")]
        assert node.HostName == "127.0.0.2"
        assert node.CertName.startswith("sha256-raw:")


async def test_the_supervisor_s_coroutine_takes_its_settings_from_the_payload(folder: Path) -> None:
    bound = bind(settings_in(folder), {})
    ready = asyncio.Event()
    child = Child(encode_payload(bound.settings, Team()), bound.share(0), ready.set)
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(module.work(child))
            async with asyncio.timeout(5):
                await ready.wait()
            async with httpx2.AsyncClient(base_url=bound.settings.url, trust_env=False) as client:
                assert (await client.get("/generate_204")).status_code == 204
            child.stop.set()
    finally:
        bound.close()


async def test_reloading_reads_the_countries_again_and_a_bad_file_changes_nothing(folder: Path) -> None:
    file = folder / "countries.mmdb"
    file.write_bytes(countries({"127.0.0.0/8": "DE"}))
    policy = """{"postures": {"posture:here": ["ip:country == 'DE'"]},
        "grants": [{"src": ["*"], "dst": ["*"], "ip": ["*"], "srcPosture": ["posture:here"]}]}"""
    async with working(settings_in(folder, geoip=file)) as running:
        await running.ask("POST", "/users", name="alice")
        await running.ask("PUT", "/policy", text=policy)

        async def reloaded() -> None:
            running.reload.set()
            await until(lambda: not running.reload.is_set())

        async with running.node("laptop") as laptop, running.node("server"):
            await laptop.until(lambda netmap: netmap.peers)
            assert (await running.ask("GET", "/nodes/laptop"))["came_from"] == "127.0.0.1"
            known = (await running.ask("GET", "/nodes/laptop/attributes"))["attributes"]
            assert {"key": "ip:country", "value": "DE", "custom": False, "expires": None} in known
            file.write_bytes(b"half a fi")
            await reloaded()
            file.unlink()
            await reloaded()
            assert laptop.netmap.peers
            file.write_bytes(countries({"127.0.0.0/8": "FR"}))
            await reloaded()
            await laptop.until(lambda netmap: not netmap.peers)
            file.write_bytes(countries({"127.0.0.0/8": "DE"}))
            await reloaded()
            await laptop.until(lambda netmap: netmap.peers)


async def test_without_a_good_database_of_countries_it_does_not_start(folder: Path) -> None:
    file = folder / "countries.mmdb"
    file.write_bytes(b"half a fi")
    with pytest.raises(BadInput, match="not a MaxMind DB file") as caught:
        async with working(settings_in(folder, geoip=file)):
            pass
    assert caught.value.place == str(file)


async def test_a_policy_that_asks_for_countries_stays_in_force_and_lets_nobody_in_without_them(
    folder: Path,
) -> None:
    file = folder / "countries.mmdb"
    file.write_bytes(countries({"127.0.0.0/8": "DE"}))
    policy = """{"postures": {"posture:away": ["ip:country != 'FR'"]},
        "grants": [{"src": ["*"], "dst": ["*"], "ip": ["*"], "srcPosture": ["posture:away"]}]}"""
    async with working(settings_in(folder, geoip=file)) as running:
        await running.ask("POST", "/users", name="alice")
        await running.ask("PUT", "/policy", text=policy)
    async with working(settings_in(folder)) as running:
        found = await running.ask("GET", "/doctor")
        assert any(one["subject"] == "countries" and "geoip" in one["cure"] for one in found)
        async with running.node("laptop") as laptop, running.node("server"):
            assert laptop.netmap.peers == ()
        async with running.admin() as client:
            refused = await client.post("/api/v1/policy/check", json={"text": policy})
        (fault,) = refused.json()["diagnostics"]
        assert (fault["line"], "geoip" in fault["cure"]) == (1, True)
