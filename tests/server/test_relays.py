"""DERP maps: ours as clients need it, other people's as far as clients could use them."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.support.workers import data_folder, settings_in, write_certificate

from doorward.config import Ports
from doorward.config.settings import Relay
from doorward.errors import BadInput
from doorward.server.relays import MAX_MAP, REGION, OtherRelays, address_of, host_of, own_region, parse
from doorward.server.sockets import PUBLIC, RELAY, STUN, bind

PORTS = Ports(listen=8080, door=8443, relay=8444, stun=3478)
PIN = "sha256-raw:" + "ab" * 32


@pytest.fixture
def folder() -> Iterator[Path]:
    with data_folder() as name:
        yield name


def _map(*ids: int, **node: Any) -> dict[str, Any]:
    """A map with one relay in each of the regions."""
    regions = {
        str(number): {
            "RegionID": number,
            "RegionCode": f"r{number}",
            "RegionName": f"Region {number}",
            "Nodes": [
                {"Name": f"{number}a", "RegionID": number, "HostName": f"relay{number}.example.com", **node}
            ],
        }
        for number in ids
    }
    return {"Regions": regions}


@pytest.mark.parametrize(
    ("url", "listen", "host", "ipv4", "ipv6"),
    [
        ("http://127.0.0.1:8080", "127.0.0.1:8080", "127.0.0.1", "127.0.0.1", "none"),
        ("http://localhost:8080", "127.0.0.1:8080", "127.0.0.1", "127.0.0.1", "none"),
        # Bound to every address, yet told by the one that clients reach.
        ("http://192.168.1.10:8080", "0.0.0.0:8080", "192.168.1.10", "192.168.1.10", "none"),
        ("http://[fd00::10]:8080", "[::]:8080", "fd00::10", "none", "fd00::10"),
        ("https://control.example.com", "127.0.0.1:8080", "control.example.com", "", ""),
    ],
)
def test_our_region_is_where_clients_reach_control(
    tmp_path: Path, url: str, listen: str, host: str, ipv4: str, ipv6: str
) -> None:
    settings = settings_in(tmp_path, url=url, listen=listen).settled(PORTS)
    region = own_region(settings, PIN, shared=False)
    (node,) = region.Nodes
    assert (region.RegionID, node.RegionID) == (REGION, REGION)
    assert (node.HostName, node.IPv4, node.IPv6) == (host, ipv4, ipv6)
    assert (node.CertName, node.DERPPort, node.STUNPort) == (PIN, 8444, 3478)
    assert not node.InsecureForTests


@pytest.mark.parametrize(
    ("url", "port"), [("https://control.example.com", 443), ("https://a.example:8443", 8443)]
)
def test_a_relay_that_shares_control_s_certificate_needs_no_pin(tmp_path: Path, url: str, port: int) -> None:
    settings = settings_in(tmp_path, url=url).settled(PORTS)
    (node,) = own_region(settings, PIN, shared=True).Nodes
    assert (node.CertName, node.DERPPort) == ("", port)


def test_behind_a_proxy_the_relay_is_at_the_proxy_s_port(folder: Path) -> None:
    relay = Relay(proxied=True, listen="127.0.0.2")
    settings = settings_in(folder, url="https://control.example.com:8443", relay=relay)
    bound = bind(settings, {})
    try:
        assert RELAY not in bound.sockets  # nobody would come to one of its own
        assert bound.sockets[STUN][0].getsockname()[0] == "127.0.0.2"
        assert bound.sockets[PUBLIC][0].getsockname()[0] == "127.0.0.1"
        assert bound.settings.relay_is_at_url()
    finally:
        bound.close()
    (node,) = own_region(bound.settings, PIN, shared=bound.settings.relay_is_at_url()).Nodes
    assert (node.HostName, node.DERPPort, node.CertName) == ("control.example.com", 8443, "")


def test_a_relay_may_have_a_region_and_an_address_of_its_own(tmp_path: Path) -> None:
    """Control's address may lead to any of several processes; a relay's must lead to it alone."""
    relay = Relay(region=905, host="192.0.2.5")
    settings = settings_in(tmp_path, url="https://control.example.com", relay=relay).settled(PORTS)
    region = own_region(settings, PIN, shared=False)
    (node,) = region.Nodes
    assert (region.RegionID, region.RegionCode, region.RegionName) == (905, "home-905", "doorward-905")
    assert (node.RegionID, node.Name, node.HostName, node.IPv4, node.IPv6) == (
        905,
        "905a",
        "192.0.2.5",
        "192.0.2.5",
        "none",
    )
    assert (node.CertName, node.DERPPort) == (PIN, 8444)


def test_hosts_and_addresses() -> None:
    assert host_of("http://localhost:1") == "127.0.0.1"
    assert host_of("https://[fd00::1]:2/") == "fd00::1"
    assert address_of("control.example.com") is None
    assert str(address_of("fd00::1")) == "fd00::1"


async def test_maps_from_files_are_offered_together(tmp_path: Path) -> None:
    one, other = tmp_path / "one.json", tmp_path / "other.json"
    one.write_text(json.dumps(_map(1, 2, STUNPort=-1)))
    other.write_text(json.dumps(_map(901) | {"Unknown": 1}))
    relays = OtherRelays((str(one), str(other)), None)
    assert relays.regions == {}
    await relays.read()
    assert set(relays.regions) == {1, 2, 901}
    assert relays.regions[1].Nodes[0].STUNPort == -1
    assert relays.missing == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "no DERP map"),
        (b"", "no DERP map"),
        (b"\xff", "no DERP map"),
        (b"[]", "no DERP map"),
        (b'{"Regions": {"x": {}}}', "no DERP map"),
        (json.dumps({"Regions": {"2": _map(1)["Regions"]["1"]}}).encode(), "region 2 calls itself 1"),
        (json.dumps(_map(0)).encode(), "region 0"),
        (json.dumps(_map(-5)).encode(), "region -5"),
        (json.dumps(_map(1, RegionID=2)).encode(), "says it is in 2"),
        (json.dumps(_map(1, HostName="")).encode(), "no HostName"),
        (json.dumps(_map(1, Name="")).encode(), "no Name"),
        (json.dumps(_map(1, InsecureForTests=True)).encode(), "not to verify"),
    ],
)
async def test_a_map_that_clients_could_not_use_is_refused(
    tmp_path: Path, content: bytes, message: str
) -> None:
    file = tmp_path / "map.json"
    file.write_bytes(content)
    relays = OtherRelays((str(file),), None)
    with pytest.raises(BadInput, match=message) as refused:
        await relays.read()
    assert refused.value.place == str(file)
    assert refused.value.cure
    assert relays.regions == {}
    with pytest.raises(BadInput):
        parse(content, "anywhere")


async def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    for there in (tmp_path / "none.json", tmp_path):
        with pytest.raises(BadInput, match="cannot be read") as refused:
            await OtherRelays((str(there),), None).read()
        assert refused.value.place == str(there)


async def test_regions_and_names_are_unique_in_all_maps_and_ours(tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.json" for number in range(2)]
    own = own_region(settings_in(tmp_path).settled(PORTS), PIN, shared=False)
    relays = OtherRelays([str(file) for file in files], own)

    async def read(one: dict[str, Any], other: dict[str, Any]) -> None:
        for file, content in zip(files, (one, other), strict=True):
            file.write_text(json.dumps(content))
        await relays.read()

    await read(_map(1), _map(2))
    with pytest.raises(BadInput, match=r"region 1 is that of .*0\.json"):
        await read(_map(1), _map(1))
    with pytest.raises(BadInput, match="region 900 is that of doorward"):
        await read(_map(1), _map(REGION))
    with pytest.raises(BadInput, match="'900a'"):
        await read(_map(1), _map(2, Name="900a"))
    with pytest.raises(BadInput, match="is called 'x'"):
        await read(_map(1, Name="x"), _map(2, Name="x"))
    with pytest.raises(BadInput, match="is called 'x'"):
        await read(_map(1, 2, Name="x"), _map(3))
    assert set(relays.regions) == {1, 2}  # as it was


@asynccontextmanager
async def _server(folder: Path, answers: list[bytes]) -> AsyncIterator[str]:
    """An https server on this machine, for whoever trusts its authority; it answers with these bodies in turn."""
    cert, key, _ = write_certificate(folder, "localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = answers.pop(0)
        status = b"200 OK" if body else b"503 Busy"
        writer.write(
            b"HTTP/1.1 %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (status, len(body), body)
        )
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "localhost", 0, ssl=context) as server:
        yield f"https://localhost:{server.sockets[0].getsockname()[1]}/map.json"


async def test_a_server_that_does_not_help_is_missed_and_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    *_, authority = write_certificate(tmp_path, "localhost")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    good, better = json.dumps(_map(1)).encode(), json.dumps(_map(1, 2)).encode()
    answers = [b"", good, b"", b"<html>", b" " * (MAX_MAP + 1), better]
    async with _server(tmp_path, answers) as source:
        relays = OtherRelays((source,), None)
        await relays.read()  # a start without it
        assert relays.regions == {}
        assert "503" in relays.missing[source]
        await relays.read()
        assert (set(relays.regions), relays.missing) == ({1}, {})
        for why in ("503", "no DERP map", "more than"):
            await relays.read()
            assert set(relays.regions) == {1}
            assert why in relays.missing[source]
        await relays.read()
        assert (set(relays.regions), relays.missing) == ({1, 2}, {})
    await relays.read()
    assert set(relays.regions) == {1, 2}
    assert "cannot be reached" in relays.missing[source]


async def test_a_server_that_nobody_vouches_for_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    async with _server(tmp_path, [json.dumps(_map(1)).encode()]) as source:
        relays = OtherRelays((source,), None)
        await relays.read()
        assert relays.regions == {}
        assert source in relays.missing
