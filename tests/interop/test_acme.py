"""Certificates from a real ACME authority (Pebble), for a whole server, by every way to prove a name."""

import asyncio
import datetime as dt
import json
import os
import signal
import ssl
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import dns.asyncresolver
import dns.resolver
import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from tests.support.pebble import (
    BLOCKED,
    HOST,
    ZONE,
    Pebble,
    presented,
    pretended_dns,
    running_knot,
    running_pebble,
)
from tests.support.postgres import Cluster
from tests.support.programs import require
from tests.support.server import Server, free_port

pytestmark = pytest.mark.interop

CONTROL, DOOR = f"control.{ZONE}", f"door.{ZONE}"


def _settle(server: Server, pebble: Pebble, *, url: str, door: str, lines: list[str]) -> None:
    """Write the settings file of a server that has not started, and expect what it will say."""
    port = server.listens_at[1]
    if url:
        server.url = f"https://{url}:{port}"
    text = [
        f'url = "{server.url}"',
        f'door = "https://{door}:{server.door_port}"',
        'tailscaled = "off"',
        "[tls.acme]",
        f'directory = "{pebble.directory}"',
        f'ca = "{pebble.ca}"',
        "agree = true",
        'email = "somebody@example.com"',
        *lines,
    ]
    (server.folder / "doorward.toml").write_text("\n".join(text))


async def _part(server: Server) -> dict[str, Any]:
    parts = (await server.json("status"))["parts"]
    return next(dict(part) for part in parts if part["name"] == "certificates")


async def _eventually(holds: Callable[[], Awaitable[bool]], within: float = 40) -> None:
    async with asyncio.timeout(within):
        while not await holds():  # noqa: ASYNC110 - asks a real program, which tells nobody when its answer changes
            await asyncio.sleep(0.2)


async def _until_said(server: Server, event: str) -> None:
    """Wait for a line of its log."""

    async def holds() -> bool:
        return event in server.log.read_text()

    await _eventually(holds)


async def _trusted(port: int, name: str, trust: ssl.SSLContext) -> x509.Certificate | None:
    """What is presented, where that is the authority's."""
    try:
        return await presented(port, name, trust)
    except ssl.SSLError:
        return None


async def _until_trusted(port: int, name: str, trust: ssl.SSLContext) -> x509.Certificate:
    found: list[x509.Certificate] = []

    async def holds() -> bool:
        if (leaf := await _trusted(port, name, trust)) is not None:
            found.append(leaf)
        return bool(found)

    await _eventually(holds)
    return found[0]


async def test_both_names_are_proven_by_tls_and_renewed_while_a_connection_stands() -> None:
    server = Server()
    port = server.listens_at[1]
    async with pretended_dns() as dns, running_pebble(dns_port=dns.port, tls_port=port) as pebble:
        _settle(server, pebble, url=CONTROL, door=DOOR, lines=['challenge = "tls-alpn-01"'])
        trust = await pebble.trust()
        async with server:
            # It serves before it has anything from the authority, which takes two seconds at least.
            first = await presented(port, CONTROL)
            assert first.issuer.rfc4514_string().startswith("CN=doorward authority")
            async with httpx2.AsyncClient(
                verify=False, timeout=40, trust_env=False, limits=httpx2.Limits(keepalive_expiry=None)
            ) as standing:
                address = f"https://{HOST}:{port}/key?v=100"
                extensions = {"sni_hostname": CONTROL}
                ours = _own_address(await standing.get(address, extensions=extensions))
                control = await _until_trusted(port, CONTROL, trust)
                door = await _until_trusted(port, DOOR, trust)  # by name, on the public listener
                assert control.public_key() != door.public_key()
                part = await _part(server)
                assert part["state"] == "running"
                assert CONTROL in part["text"]
                assert DOOR in part["text"]
                # The authority wants one of them renewed at once; it is asked four times a day, and when we are told to.
                now = dt.datetime.now(dt.UTC)  # noqa: TID251 - Pebble's clock is the machine's own
                window = [
                    (now - dt.timedelta(seconds=age)).strftime("%Y-%m-%dT%H:%M:%SZ") for age in (7200, 3600)
                ]
                pem = control.public_bytes(serialization.Encoding.PEM)
                await pebble.set_renewal_info(pem, *window)
                os.kill(server.pid, signal.SIGHUP)

                async def is_renewed() -> bool:
                    leaf = await _trusted(port, CONTROL, trust)
                    return leaf is not None and leaf.serial_number != control.serial_number

                await _eventually(is_renewed)
                assert _own_address(await standing.get(address, extensions=extensions)) == ours
            folder = server.folder / "tls" / "acme"
            secret = [*folder.glob("account-*.key"), folder / f"{CONTROL}.pem", folder / f"{DOOR}.pem"]
            assert len(secret) == 3
            for file in secret:
                assert stat.S_IMODE(file.stat().st_mode) == 0o600
                for line in file.read_text().splitlines()[1:3]:  # of the key in it
                    assert line not in server.log.read_text()
            assert not (folder / "answers.json").exists()
            before = pebble.issued()
            await server.stop()
            await server.start()
            assert await _trusted(port, CONTROL, trust) is not None  # at once, from what is kept
            assert pebble.issued() == before


def _own_address(answer: httpx2.Response) -> Any:
    """Our own end of the connection that a good answer came on."""
    assert answer.status_code == 200
    return answer.extensions["network_stream"].get_extra_info("client_addr")


async def test_one_name_is_proven_by_http_and_the_other_refused_without_being_asked_for_again() -> None:
    server, plain = Server(), free_port()
    port = server.listens_at[1]
    async with pretended_dns() as dns, running_pebble(dns_port=dns.port, http_port=plain) as pebble:
        lines = ['challenge = "http-01"', f'listen = "{HOST}:{plain}"']
        _settle(server, pebble, url=CONTROL, door=BLOCKED, lines=lines)
        async with server:
            await _until_trusted(port, CONTROL, await pebble.trust())

            await _until_said(server, "no certificate was had")
            part = await _part(server)
            assert "forbidden by policy" in part["text"]
            assert "Use a public DNS name of your own" in part["cure"]
            said = await server.run("doctor", "--json", check=False)
            found = {one["message"].split()[0]: one for one in json.loads(said.stdout)}
            assert (found[CONTROL]["level"], found[BLOCKED]["level"]) == ("ok", "error")
            assert (
                (await presented(port, BLOCKED)).issuer.rfc4514_string().startswith("CN=doorward authority")
            )
            # The plain listener proves names and leads people on; it is nobody's way to control.
            async with httpx2.AsyncClient(timeout=40, trust_env=False) as client:
                led = await client.get(f"http://{HOST}:{plain}/a?b=c", headers={"host": CONTROL})
                assert (led.status_code, led.headers["location"]) == (308, f"{server.url}/a?b=c")
                assert (await client.get(f"http://{HOST}:{plain}/key?v=100")).status_code == 404
                upgrade = {"host": CONTROL, "upgrade": "DERP", "connection": "upgrade"}
                assert (await client.get(f"http://{HOST}:{plain}/derp", headers=upgrade)).status_code == 308
            asked = pebble.log.read_text().count("POST /order-plz")
            await server.stop()
            await server.start()
            os.kill(server.pid, signal.SIGHUP)  # within a minute of the failure, which is too soon even so

            async def fails() -> bool:
                return bool((await _part(server))["state"] == "failing")

            await asyncio.sleep(2)  # in which the first order was made at the first start
            await _eventually(fails)
            assert pebble.log.read_text().count("POST /order-plz") == asked


async def test_a_name_is_proven_by_records_that_a_program_makes(tmp_path: Path) -> None:
    hook, seen = tmp_path / "hook", tmp_path / "seen"
    server = Server(environ={"DOORWARD_LOG_JSON": "false"})
    async with pretended_dns() as dns, running_pebble(dns_port=dns.port) as pebble:
        hook.write_text(
            "#!/bin/sh\n"
            'case "$1" in add) act=set-txt;; remove) act=clear-txt;; esac\n'
            f'echo "$1 $2" >> {seen}\n'
            f"env | grep -c ^DOORWARD_ >> {seen}\n"
            f"exec {require('curl')} -sf --noproxy '*' -d "
            '"{\\"host\\": \\"$2.\\", \\"value\\": \\"$3\\"}" '
            f"{dns.management}/$act\n"
        )
        hook.chmod(0o700)
        lines = ['challenge = "dns-01"', f'hook = "{hook}"']
        _settle(server, pebble, url="", door=DOOR, lines=lines)
        async with server:
            await _until_trusted(server.door_port, DOOR, await pebble.trust())
            record = f"_acme-challenge.{DOOR}"
            # It is told nothing of the settings, which may hold a password.
            assert seen.read_text().splitlines() == [f"add {record}", "0", f"remove {record}", "0"]


async def test_a_name_is_proven_by_records_that_a_dns_server_takes() -> None:
    server = Server()
    async with running_knot([DOOR]) as knot, running_pebble(dns_port=knot.port) as pebble:
        lines = [
            'challenge = "dns-01"',
            "[tls.acme.dns]",
            f'server = "{HOST}:{knot.port}"',
            f'key = "{knot.key_file}"',
            "wait = 0",
        ]
        _settle(server, pebble, url="", door=DOOR, lines=lines)
        async with server:
            await _until_trusted(server.door_port, DOOR, await pebble.trust())
            assert knot.secret not in server.log.read_text()
            asking = dns.asyncresolver.Resolver(configure=False)
            asking.nameservers, asking.port = [HOST], knot.port
            with pytest.raises(dns.resolver.NXDOMAIN):  # the record is gone again
                await asking.resolve(f"_acme-challenge.{DOOR}", "TXT", lifetime=40)


async def test_doorwards_on_one_database_answer_for_each_other_and_share_what_one_got(
    postgres: Cluster,
) -> None:
    """The authority's questions reach one of them, another one has the order; what it gets both present, all workers."""
    address = postgres.create_database()
    common = {"DOORWARD_DATABASE_URL": address}
    reached = Server(environ=common | {"DOORWARD_RELAY_REGION": "901"}, workers=2)
    orders = Server(environ=common | {"DOORWARD_RELAY_REGION": "902"})
    plain, directory = free_port(), free_port()
    async with pretended_dns() as dns:
        starting = running_pebble(dns_port=dns.port, http_port=plain, port=directory)
        lines = ['challenge = "http-01"', 'names = ["door"]']
        nobody = Pebble(f"https://{HOST}:{directory}/dir", reached.folder / "pebble.pem", Path(), "")
        _settle(reached, nobody, url="", door=DOOR, lines=[*lines, f'listen = "{HOST}:{plain}"'])
        async with reached:
            await _until_said(reached, "no certificate was had")  # there is no authority yet
            assert (await _part(reached))["state"] == "failing"
            async with starting as pebble:
                trust = await pebble.trust()
                # The file of the authority is not the first one's: its digest of settings must not change.
                _settle(orders, pebble, url="", door=DOOR, lines=[*lines, f'listen = "{HOST}:{free_port()}"'])
                for name in ("noise.key", "tls/authority.key", "tls/authority.pem"):
                    (orders.folder / name).parent.mkdir(mode=0o700, exist_ok=True)
                    (orders.folder / name).write_bytes((reached.folder / name).read_bytes())
                    (orders.folder / name).chmod(0o600)
                async with orders:
                    got = await _until_trusted(orders.door_port, DOOR, trust)
                    assert await _until_trusted(reached.door_port, DOOR, trust) == got
                    assert pebble.issued() == 1

                    async def all_workers_have_it() -> bool:
                        # The kernel spreads connections among them.
                        seen = [await _trusted(reached.door_port, DOOR, trust) for _ in range(12)]
                        return set(seen) == {got}

                    await _eventually(all_workers_have_it)
                    assert (await _part(reached))["state"] == "running"
        rows = postgres.execute(
            address.partition("@/")[2].partition("?")[0],
            "SELECT key, value FROM settings WHERE key LIKE 'acme.%'",
        )
        assert [key for key, _ in rows] == [f"acme.held.{DOOR}"]
        assert "PRIVATE KEY" not in str(rows)
