"""The door: who a stock client is, read off its connection through the tailnet, and off nothing else."""

import json
from typing import Any

import pytest
from tests.support.clients import StockClient
from tests.support.fetching import Answer, fetch
from tests.support.machines import knows_door, machines
from tests.support.openssh import run
from tests.support.server import Server

pytestmark = pytest.mark.interop


async def ask_door(server: Server, client: StockClient, path: str = "/whoami", *options: str) -> Answer:
    """Ask the door through the tailnet, by its name, trusting doorward's own authority and nothing else."""
    authority = client.folder / "authority.pem"
    authority.write_text((await server.run("ca")).stdout, encoding="ascii")
    await server.own_node()
    await knows_door(client)
    proxy = f"socks5h://localhost:{client.socks_port}"
    url = f"https://door.tailnet.internal:{server.door_port}{path}"
    return await fetch(url, "--proxy", proxy, "--cacert", str(authority), *options)


async def test_whoami_names_the_person_and_the_device(server: Server) -> None:
    await server.user("bob", "--role", "admin")
    async with machines(server, "laptop") as (laptop,), StockClient("bobs") as bobs:
        await bobs.up(server.url, await server.key("--user", "bob"))
        for client, person, role in ((laptop, "alice", "member"), (bobs, "bob", "admin")):
            answer = await ask_door(server, client, "/whoami", "--header", "Accept: application/json")
            assert answer.status == 200, answer.text
            said: dict[str, Any] = answer.json()
            assert said["user"]["login_name"] == person
            assert said["user"]["role"] == role
            assert said["node"]["fqdn"] == f"{client.name}.tailnet.internal"
            own = (await client.status())["Self"]
            assert said["node"]["stable_id"] == own["ID"]
            assert list(said["node"]["addresses"]) == own["TailscaleIPs"]
            assert said["known_by"] == "tailnet-connection"
        # The policy lets people reach their own devices only, and says nothing of the door: it is outside the policy.
        assert "alice" in (await ask_door(server, laptop)).text
        page = await ask_door(server, laptop, "/whoami", "--header", "Accept: text/html")
        assert "<html" in page.text
        assert "laptop" in page.text


async def test_whoami_believes_no_header_and_no_other_way_in(server: Server) -> None:
    async with machines(server, "laptop") as (laptop,):
        known = json.loads(
            (await ask_door(server, laptop, "/whoami", "--header", "Accept: application/json")).text
        )
        lies = [
            part
            for header in (
                "Tailscale-User-Login: mallory",
                "X-Forwarded-For: 100.64.0.2",
                "X-Webauth-User: mallory",
                f"X-Doorward-Node: {known['node']['stable_id']}",
            )
            for part in ("--header", header)
        ]
        answer = await ask_door(server, laptop, "/whoami", "--header", "Accept: application/json", *lies)
        assert answer.json() == known
        # Without the tailnet: the public listener says no, whatever it is told.
        outside = await fetch(f"{server.url}/whoami", "--header", "Accept: application/json", *lies)
        assert outside.status == 403
        assert "this request did not come through the tailnet" in outside.text
        # The door's own port on loopback is where tailnet connections arrive; any other is closed before TLS.
        authority = laptop.folder / "authority.pem"
        command = ["curl", "-sS", "--max-time", "40", "--cacert", str(authority), *lies]
        command += ["--resolve", f"door.tailnet.internal:{server.door_port}:127.0.0.1"]
        closed = await run(
            [*command, f"https://door.tailnet.internal:{server.door_port}/whoami"], check=False
        )
        assert closed.returncode not in {0, 28}  # closed, not left to wait
        assert "mallory" not in closed.stdout
        assert not closed.stdout


async def test_nothing_but_the_door_can_be_reached_through_our_own_node(server: Server) -> None:
    async with machines(server, "laptop") as (laptop,):
        await server.set_policy('{"grants": [{"src": ["*"], "dst": ["*"], "ip": ["*"]}]}')
        assert (await ask_door(server, laptop)).status == 200
        address = await server.own_node()
        public = server.url.rpartition(":")[2]
        for port in (public, str(server.relay_port)):
            blocked = await run(
                [
                    *(
                        "curl",
                        "-sS",
                        "--max-time",
                        "2",
                        "--proxy",
                        f"socks5h://localhost:{laptop.socks_port}",
                    ),
                    f"http://{address}:{port}/key",
                ],
                check=False,
            )
            assert blocked.returncode != 0
            assert not blocked.stdout
