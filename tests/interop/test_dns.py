"""Names as stock clients resolve them: the tailnet's, those an administrator adds, and those that another server answers."""

import asyncio
import ipaddress
import json
import struct
from typing import Any

import pytest
from tests.support.clients import StockClient
from tests.support.machines import machines
from tests.support.server import Server
from tests.support.waiting import promptly

pytestmark = pytest.mark.interop


class _Nameserver(asyncio.DatagramProtocol):
    """Answers every A question with one address, and remembers what it was asked."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.asked: set[str] = set()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, source: Any) -> None:
        labels, at = [], 12
        while data[at]:
            labels.append(data[at + 1 : at + 1 + data[at]].decode())
            at += data[at] + 1
        question = data[12 : at + 5]
        (kind,) = struct.unpack("!H", question[-4:-2])
        self.asked.add(".".join(labels).lower())
        found = kind == 1  # A
        answer = data[:2] + struct.pack("!HHHHH", 0x8580, 1, int(found), 0, 0) + question
        if found:
            answer += b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 60, 4)
            answer += ipaddress.IPv4Address(self.address).packed
        self.transport.sendto(answer, source)


async def _set_dns(server: Server, dns: dict[str, Any]) -> None:
    file = server.folder / "dns.json"
    file.write_text(json.dumps(dns), encoding="ascii")
    await server.run("dns", "set", str(file))


async def _query(client: StockClient, name: str, kind: str = "A") -> str:
    return (await client.cli("dns", "query", name, kind, check=False)).stdout


async def test_names_of_ones_own_and_search_domains_reach_clients_at_once(server: Server) -> None:
    async with machines(server, "laptop", "server") as (laptop, other):
        address = (await other.cli("ip", "-4")).stdout.strip()
        await _set_dns(
            server,
            {
                "search": ["corp.example"],
                "records": [
                    {"name": "wiki.corp.example", "address": address},
                    {"name": "wiki.corp.example", "address": "2001:db8::7"},
                ],
            },
        )

        async def is_there() -> bool:
            return address in await _query(laptop, "wiki.corp.example")

        await promptly(is_there, within=3)
        assert "2001:db8::7" in await _query(laptop, "wiki.corp.example", "AAAA")
        shown = json.loads((await laptop.cli("dns", "status", "--all", "--json")).stdout)
        assert set(shown["SearchDomains"]) == {"tailnet.internal", "corp.example"}
        netmap = json.loads((await laptop.cli("debug", "netmap")).stdout)
        assert netmap["DNS"]["Domains"] == [
            "tailnet.internal",
            "corp.example",
        ]  # in this order they are tried
        assert shown["CurrentTailnet"]["MagicDNSEnabled"]
        assert {record["Name"] for record in shown["ExtraRecords"]} >= {"wiki.corp.example"}
        # Programs that go through the client's proxy find it too, by whatever family the proxy asks for.
        greeter = await asyncio.start_server(_greet, "127.0.0.1", 0)
        async with greeter:
            port = greeter.sockets[0].getsockname()[1]
            stream = await laptop.api.dial("wiki.corp.example", port)
            async with asyncio.timeout(30):
                assert await stream.reader.readline() == b"hello\n"
            stream.writer.close()
        await _set_dns(server, {"magic_dns": False})

        async def is_off() -> bool:
            said = json.loads((await laptop.cli("dns", "status", "--all", "--json")).stdout)
            return not said["CurrentTailnet"]["MagicDNSEnabled"] and not said["SearchDomains"][1:]

        await promptly(is_off, within=3)


async def test_split_dns_asks_the_server_of_that_domain_and_no_other(server: Server) -> None:
    loop = asyncio.get_running_loop()
    servers = []
    for address in ("192.0.2.77", "192.0.2.88"):
        made = _Nameserver(address)
        await loop.create_datagram_endpoint(lambda made=made: made, ("127.0.0.1", 0))  # type: ignore[misc]
        servers.append(made)
    corp, world = servers
    addresses = [":".join(map(str, made.transport.get_extra_info("sockname")[:2])) for made in servers]
    try:
        async with machines(server, "laptop") as (laptop,):
            await _set_dns(server, {"nameservers": [addresses[1]], "split": {"corp.example": [addresses[0]]}})

            async def is_split() -> bool:
                return "192.0.2.77" in await _query(laptop, "build.corp.example")

            await promptly(is_split, within=5)
            assert "192.0.2.88" in await _query(laptop, "www.example.org")
            # What is ours is answered by the client itself, and asked nowhere.
            own = (await laptop.cli("ip", "-4")).stdout.strip()
            assert own in await _query(laptop, "laptop.tailnet.internal")
            assert "RCodeNameError" in await _query(laptop, "nobody.tailnet.internal")
            assert corp.asked == {"build.corp.example"}
            assert "www.example.org" in world.asked
            assert not [name for name in world.asked if name.endswith(("corp.example", "tailnet.internal"))]
    finally:
        for made in servers:
            made.transport.close()


async def _greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"hello\n")
    await writer.drain()
    writer.close()
