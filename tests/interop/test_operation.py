"""Running a server: what its commands say, the policy in a file, other relays, another database, certificates of one's own."""

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest
from cryptography import x509
from tests.support.clients import StockClient
from tests.support.derper import running_derper
from tests.support.fetching import fetch
from tests.support.machines import all_ready, machines
from tests.support.postgres import Cluster
from tests.support.relay import make_leaf
from tests.support.server import Server
from tests.support.waiting import eventually, promptly

pytestmark = pytest.mark.interop

EVERYBODY = '{"grants": [{"src": ["*"], "dst": ["*"], "ip": ["*"]}]}\n'


async def _all_up(server: Server, *clients: StockClient) -> None:
    """All at once: what a client told to use no UDP needs to find that out takes it 3 seconds."""
    keys = [await server.key("--user", "alice") for _ in clients]
    await asyncio.gather(*(client.up(server.url, key) for client, key in zip(clients, keys, strict=True)))
    await all_ready(list(clients))


async def test_the_commands_keep_their_contract(server: Server) -> None:
    async with machines(server, "laptop") as (laptop,):
        (node,) = await server.json("nodes", "list")
        contract = {"id", "name", "user", "tags", "addresses", "online", "last_seen", "routes", "expiry"}
        assert contract <= set(node)
        assert (node["name"], node["user"], node["online"], node["tags"]) == ("laptop", "alice", True, [])
        assert node["addresses"] == (await laptop.status())["Self"]["TailscaleIPs"]
        both = {one["name"] for one in await server.json("nodes", "list", "--all")}
        assert both == {"laptop", "doorward"}
        assert "laptop" in (await server.run("nodes", "list")).stdout
        assert "laptop.tailnet.internal" in (await server.run("nodes", "show", node["addresses"][0])).stdout
        authority = (await server.run("ca")).stdout
        shown = x509.load_pem_x509_certificate(authority.encode())
        assert shown.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        assert authority == (await fetch(f"{server.url}/ca.pem")).text
        await server.own_node()
        status = await server.json("status")
        assert (status["url"], status["nodes"], status["online"]) == (server.url, 1, 1)
        states = {part["name"]: part["state"] for part in status["parts"]}
        assert states == dict.fromkeys(
            ("control", "relay", "database", "policy", "own node", "audit"), "running"
        )
        doctor = await server.run("doctor")
        assert "error" not in doctor.stdout
        assert "the chain of audit events is unbroken" in doctor.stdout
        actions = [event["action"] for event in await server.json("audit", "list")]
        assert {"user.create", "key.create", "node.register"} <= set(actions)
        assert "The audit log is whole." in (await server.run("audit", "verify")).stdout


async def test_numbers_are_on_the_administrators_socket_alone(server: Server) -> None:
    async with machines(server, "laptop"):
        seen = await fetch("http://doorward/metrics", "--unix-socket", str(server.folder / "doorward.sock"))
        assert seen.status == 200
        values = dict(
            line.rsplit(" ", 1) for line in seen.text.splitlines() if line and not line.startswith("#")
        )
        assert sum(float(value) for name, value in values.items() if name.endswith("map_streams")) >= 1
        assert (await fetch(f"{server.url}/metrics")).status == 403


async def test_a_policy_file_owns_the_policy(tmp_path: Path) -> None:
    file = tmp_path / "policy.hujson"
    file.write_text('{"grants": []} // nobody reaches anybody\n')
    async with (
        Server(environ={"DOORWARD_POLICY_FILE": str(file)}) as server,
        machines(server, "laptop") as (laptop,),
        StockClient("bobs") as bobs,
    ):
        await server.user("bob")
        await bobs.up(server.url, await server.key("--user", "bob"))
        assert (await server.run("policy", "get")).stdout == file.read_text()

        async def sees_bob() -> bool:
            return "bobs" in (await laptop.cli("status")).stdout

        assert not await sees_bob()
        other = tmp_path / "other.hujson"
        other.write_text(EVERYBODY)
        for command in (("policy", "set", str(other)), ("policy", "rollback")):
            refused = await server.run(*command, check=False)
            assert refused.returncode == 1
            assert f"the policy is owned by {file}" in refused.stderr
        file.write_text(EVERYBODY)
        os.kill(server.pid, signal.SIGHUP)
        await promptly(sees_bob, within=3)
        assert "pong from bobs" in await laptop.ping("bobs")
        history = await server.json("policy", "history")
        assert history[0]["actor"] == "file"

        file.write_text('{"grants": [\n  {"src": ["group:nobody"], "dst": ["*"], "ip": ["*"]}]}\n')
        os.kill(server.pid, signal.SIGHUP)

        async def is_refused() -> bool:
            return f"{file}:2:" in server.log.read_text()

        await eventually(is_refused)
        assert await sees_bob()
        assert (await server.run("policy", "get")).stdout == EVERYBODY
        # Gone for a moment, as editors do it: what was in force stays so.
        file.unlink()
        os.kill(server.pid, signal.SIGHUP)

        async def is_missed() -> bool:
            return "the policy file cannot be read" in server.log.read_text()

        await eventually(is_missed)
        assert "pong from bobs" in await laptop.ping("bobs")


async def test_a_relay_of_others_from_a_map_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "derp.json"
    relayed = {"TS_DEBUG_ALWAYS_USE_DERP": "1"}
    async with running_derper() as derper:
        file.write_text(derper.map())
        async with (
            Server(environ={"DOORWARD_RELAY_MAPS": str(file)}) as server,
            StockClient("laptop", environ=relayed) as laptop,
            StockClient("server", environ=relayed) as other,
        ):
            await server.user("alice")
            await _all_up(server, laptop, other)
            report = json.loads((await laptop.cli("netcheck", "--format=json")).stdout)
            assert set(report["RegionLatency"]) == {"900", "901"}
            for number, code in ((901, "second"), (900, "home")):
                await other.cli("debug", "force-prefer-derp", str(number))
                await other.cli("debug", "restun")

                async def has_moved(code: str = code) -> bool:
                    peers = (await laptop.status())["Peer"].values()
                    return any(peer["HostName"] == "server" and peer["Relay"] == code for peer in peers)

                await promptly(has_moved, within=20)
                assert f"via DERP({code})" in await laptop.ping("server")


async def test_the_same_on_postgresql(postgres: Cluster) -> None:
    async with (
        Server(environ={"DOORWARD_DATABASE_URL": postgres.create_database()}) as server,
        machines(server, "laptop", "server") as (laptop, other),
    ):
        assert "pong from server" in await laptop.ping("server")
        assert not list(server.folder.glob("*.db"))
        status = await server.json("status")
        assert any("postgresql" in part["text"] for part in status["parts"])
        address = (await other.cli("ip", "-4")).stdout.strip()
        assert {node["addresses"][0] for node in await server.json("nodes", "list")} >= {address}
        await server.set_policy('{"grants": []}')

        async def is_alone() -> bool:
            return "server" not in (await laptop.cli("status")).stdout

        await promptly(is_alone, within=2)
        await server.stop()
        await server.start()
        assert len(await server.json("nodes", "list")) == 2
        assert (await server.run("policy", "get")).stdout.strip() == '{"grants": []}'


async def test_a_certificate_of_ones_own_serves_control_and_relay(tmp_path: Path) -> None:
    leaf = make_leaf()
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(leaf.pem)
    trusting = {"SSL_CERT_FILE": str(trusted)}
    async with (
        Server(leaf=leaf) as server,
        StockClient("laptop", environ=trusting | {"TS_DEBUG_ALWAYS_USE_DERP": "1"}) as laptop,
        StockClient("server", environ=trusting) as other,
        StockClient("stranger") as stranger,
    ):
        await server.user("alice")
        # Who does not trust the certificate gives no key away.
        key = await server.key("--user", "alice")
        refused, _ = await asyncio.gather(
            stranger.up(server.url, key, within=3, check=False), _all_up(server, laptop, other)
        )
        assert refused.returncode != 0
        assert (await server.json("keys", "list"))[0]["state"] == "valid"
        relays = json.loads((await laptop.cli("debug", "derp-map")).stdout)["Regions"]["900"]["Nodes"]
        assert str(relays[0]["DERPPort"]) == server.url.rpartition(":")[2]
        assert not relays[0].get("CertName")
        assert "via DERP(home)" in await laptop.ping("server")
        said = await laptop.cli("debug", "ts2021", f"--host={server.url.removeprefix('https://')}")
        assert "mkey:" in said.stdout
