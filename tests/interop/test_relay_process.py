"""Relays of their own under stock clients: a region of two, whose clients are each at another."""

import contextlib
import json
import tempfile
from pathlib import Path

import pytest
from tests.support.clients import StockClient
from tests.support.machines import all_ready
from tests.support.netns import switch
from tests.support.relay_process import RelayProcess, relay_process
from tests.support.server import Server
from tests.support.waiting import eventually

from doorward.server.relay_process import RelayOptions
from doorward.server.relay_shard import derp_map

pytestmark = [pytest.mark.interop, pytest.mark.root]

PORT = 8443


def map_node(folder: Path, address: str, name: str) -> dict[str, object]:
    """What the operator's map says of a relay."""
    options = RelayOptions(folder=folder / "relay", hostname=address, listen=f"{address}:{PORT}")
    (node,) = json.loads(derp_map(options, 901, "x"))["Regions"]["901"]["Nodes"]
    return {**node, "Name": name}


async def clients_at(relay: RelayProcess) -> tuple[float, float]:
    """How many keys are there, other relays counted in, and how many it knows to be elsewhere."""
    metrics = await relay.metrics()
    return metrics["doorward_relay_clients"], metrics["doorward_relay_clients_elsewhere"]


async def test_stock_clients_at_two_relays_of_a_region_reach_each_other() -> None:
    with tempfile.TemporaryDirectory(prefix="dw-region-", dir="/tmp") as name, switch() as net:
        folder = Path(name)
        async with contextlib.AsyncExitStack() as stack:
            first, second, near, far = (
                stack.enter_context(net.host(each)) for each in ("r1", "r2", "n", "f")
            )
            nodes = [
                map_node(folder / host.name, host.address, f"901{letter}")
                for host, letter in ((first, "a"), (second, "b"))
            ]
            region = {"RegionID": 901, "RegionCode": "two", "RegionName": "Two relays", "Nodes": nodes}
            (folder / "map.json").write_text(json.dumps({"Regions": {"901": region}}))
            key = folder / "mesh.key"
            key.write_text("5a" * 32)
            key.chmod(0o600)
            server = await stack.enter_async_context(
                Server(
                    namespace=net.name,
                    host="0.0.0.0",
                    shown=net.address,
                    environ={
                        "DOORWARD_RELAY_ENABLED": "false",
                        "DOORWARD_RELAY_MAPS": str(folder / "map.json"),
                        "DOORWARD_TAILSCALED": "off",
                    },
                )
            )
            mesh = [
                f"--verify-url={server.url}/verify",
                f"--mesh-key-file={key}",
                "--mesh-with",
                *(f"https://{node['HostName']}:{PORT}#{node['CertName']}" for node in nodes),
            ]
            relays = [
                await stack.enter_async_context(
                    relay_process(
                        folder / host.name,
                        *mesh,
                        host=host.address,
                        port=PORT,
                        stun=f"{host.address}:3478",
                        command=tuple(host.command()),
                    )
                )
                for host in (first, second)
            ]
            # A client uses its region's first relay that it can reach: one of ours must not reach the first.
            far.run("ip", "route", "add", "unreachable", first.address)
            # And nobody may find a direct path.
            for host in (near, far):
                stack.enter_context(host.without_udp())
            await server.user("alice")
            clients = []
            for label, host in (("near", near), ("far", far)):
                client = await stack.enter_async_context(StockClient(label, namespace=host.name))
                await client.up(server.url, await server.key("--user", "alice"))
                clients.append(client)
            await all_ready(clients)

            async def one_at_each() -> bool:
                # Each relay counts its client and the line of the other.
                return [await clients_at(relay) for relay in relays] == [(2, 1), (2, 1)]

            await eventually(one_at_each, 60)
            assert "via DERP(two)" in await clients[0].ping("far")
            assert "via DERP(two)" in await clients[1].ping("near")
            for relay in relays:
                assert (await relay.metrics())['doorward_relay_events_total{what="packets_forwarded"}'] > 0
                assert (await relay.metrics())['doorward_relay_verify_total{outcome="yes"}'] >= 1
