"""The map over the real transport: lite updates, the stream, and when it ends."""

import asyncio
import struct
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Any

import msgspec
import pytest
from tests.support.detour import detour
from tests.support.policy import written
from tests.support.served_control import Link, Served, Stream, node, serving_control
from tests.support.waiting import until
from tests.support.world import CAPVER, World

from doorward.control import fanout as module
from doorward.policy import PolicyError
from doorward.policy.posture import CountryOf
from doorward.policy.ranges import of_text
from doorward.protocol.keys import DiscoPublic
from doorward.protocol.netmapstate import NetmapState
from doorward.protocol.tailcfg.codec import encode
from doorward.protocol.tailcfg.hostinfo import Hostinfo, NetInfo, Service
from doorward.protocol.tailcfg.map import MapRequest
from doorward.store import nodes
from doorward.tailnet import observe
from doorward.tailnet.settings import Joining

OWN = '{"grants": [{"src": ["autogroup:member"], "dst": ["autogroup:self"], "ip": ["*"]}]}'


@pytest.fixture
async def link(served: Served) -> Link:
    """The first machine, whose node is in."""
    made = await served.link(1)
    await made.join(1)
    return made


@pytest.fixture
async def other(served: Served, link: Link) -> Link:
    """A second machine, whose node is in."""
    assert link.served is served
    made = await served.link(2)
    await made.join(2)
    return made


def online(served: Served, node_id: int) -> bool:
    return served.world.registry.snapshot.nodes[node_id].observed.online


# Lite updates


async def test_a_lite_update_is_taken_in_and_answered_with_nothing(served: Served, link: Link) -> None:
    answer = await link.report(
        1,
        DiscoKey=DiscoPublic(b"\x05" * 32),
        Endpoints=["192.0.2.1:41641"],
        Hostinfo=Hostinfo(Hostname="renamed", NetInfo=NetInfo(PreferredDERP=900)),
    )
    assert answer == (200, b"")
    known = served.world.registry.snapshot.nodes[1]
    assert (known.name, known.observed.home_derp) == ("renamed", 900)
    assert known.observed.endpoints == ("192.0.2.1:41641",)
    assert not known.observed.online
    # A crash right after the answer loses nothing: the client would not say it again.
    (stored,) = await served.world.registry.writer.database.read(nodes.load_all)
    assert stored.observed == known.observed


async def test_who_only_reads_changes_nothing(served: Served, link: Link) -> None:
    before = served.world.registry.snapshot
    assert await link.report(1, Endpoints=["192.0.2.1:1"], ReadOnly=True) == (200, b"")
    assert served.world.registry.snapshot is before


async def test_a_single_map(served: Served, link: Link, other: Link) -> None:
    body = MapRequest(Version=CAPVER, NodeKey=node(1).public())
    status, data, _ = await link.ask("/machine/map", body)
    assert status == 200
    (size,) = struct.unpack("<I", data[:4])
    assert size == len(data) - 4
    message = msgspec.json.decode(data[4:])
    assert [peer["ID"] for peer in message["Peers"]] == [2]
    assert len(served.world.registry.writer.changes) == 0
    assert other is not link


@pytest.mark.parametrize(
    ("machine", "key", "status"), [(1, 9, 404), (2, 1, 403), (1, 2, 403)], ids=["unknown", "stolen", "others"]
)
@pytest.mark.parametrize("stream", [False, True])
async def test_whose_node_it_is_not(
    served: Served, link: Link, other: Link, machine: int, key: int, status: int, *, stream: bool
) -> None:
    before = served.world.registry.snapshot
    body = MapRequest(Version=CAPVER, NodeKey=node(key).public(), Stream=stream, Endpoints=["192.0.2.1:1"])
    got, text, _ = await (link if machine == 1 else other).ask("/machine/map", body)
    assert got == status
    assert text.strip()
    assert served.world.registry.snapshot is before


async def test_a_suspended_persons_node_gets_no_map(served: Served, link: Link) -> None:
    stream = await link.stream(1)
    await stream.next()
    await served.world.registry.suspend_user("test", "ann", suspended=True)
    await stream.ended()
    status, text = await link.report(1)
    assert (status, text) == (403, b"ann is suspended\n")


async def test_a_suspended_nodes_last_message_takes_everybody_away(
    served: Served, link: Link, other: Link
) -> None:
    """Two that are shut out would go on with each other else: each by the netmap that it had."""
    registry = served.world.registry
    here, there = (registry.snapshot.node_by_key(node(key).public()) for key in (1, 2))
    assert here is not None
    assert there is not None
    assert other.served is served
    stream = await link.stream(1)
    assert there.id in {peer["ID"] for peer in (await stream.next())["Peers"]}
    await registry.access.suspend_node("test", here.id, suspended=True)
    last = (await stream.ended())[-1]
    assert there.id in last["PeersRemoved"]
    assert "MachineAuthorized" not in last["Node"]
    assert await link.report(1) == (403, b"the device host1 is suspended\n")
    await registry.access.suspend_node("test", here.id, suspended=False)
    again = await link.stream(1)
    assert there.id in {peer["ID"] for peer in (await again.next())["Peers"]}
    again.close()


async def test_a_node_that_waits_has_a_stream_and_nobody_in_it_until_it_is_approved(
    served: Served, link: Link
) -> None:
    registry = served.world.registry
    await registry.access.set_joining("test", Joining(approval=True))
    waits = await served.link(5)
    _, auth = await registry.create_auth_key("test", user="ann")
    assert (await waits.register(5, auth=auth)).MachineAuthorized is False
    known = registry.snapshot.node_by_key(node(5).public())
    assert known is not None
    others = await link.stream(1)
    assert known.id not in {peer["ID"] for peer in (await others.next())["Peers"]}
    stream = await waits.stream(5)
    first = await stream.next()
    assert (first["Node"].get("MachineAuthorized", False), first["Peers"]) == (False, [])
    await registry.access.approve_node("test", known.id)
    message = await stream.next()
    assert message["Node"]["MachineAuthorized"] is True
    assert message["PeersChanged"]
    assert known.id in {peer["ID"] for peer in (await others.next())["PeersChanged"]}
    assert (await waits.register(5)).MachineAuthorized is True
    for each in (stream, others):
        each.close()


async def _until_let_in(stream: Stream, address: IPv4Address, wanted: bool) -> None:
    """Read on until a filter comes that lets the address in, or (not ``wanted``) none that did before does so any more."""
    async with asyncio.timeout(5):
        while True:
            message = await stream.next()
            filters = message.get("PacketFilters")
            rules = message.get("PacketFilter") if filters is None else filters.get("base") or []
            if rules is None:
                continue
            sources = [text for rule in rules for text in rule["SrcIPs"]]
            if any(text == "*" or address in of_text(text) for text in sources) == wanted:
                return


async def test_others_are_told_at_once_that_a_person_is_suspended_and_restored(
    served: Served, link: Link
) -> None:
    bobs_link = await served.link(3)
    bob_id = await bobs_link.join(3, "bob")
    bob = served.world.registry.snapshot.nodes[bob_id]
    anns, bobs = await link.stream(1), await bobs_link.stream(3)
    await _until_let_in(anns, bob.ipv4, wanted=True)
    await bobs.next()
    async with served.world.client() as admin:
        assert (await admin.patch("/users/bob", json={"suspended": True})).status_code == 200
        await _until_let_in(anns, bob.ipv4, wanted=False)
        await bobs.ended()
        assert (await admin.patch("/users/bob", json={"suspended": False})).status_code == 200
        await _until_let_in(anns, bob.ipv4, wanted=True)
    again = await bobs_link.stream(3)
    assert "Node" in await again.next()
    for stream in (anns, again):
        stream.close()


async def test_bodies_that_are_no_request(link: Link) -> None:
    for body in (b"", b"{}", b"{", b'{"Version": -1}', b"null"):
        assert (await link.ask("/machine/map", body))[0] == 400
    assert (await link.ask("/machine/map", b" " * ((1 << 20) + 1)))[0] == 413
    assert (await link.ask("/machine/map", method="GET"))[0] == 404
    assert (await link.report(1))[0] == 200


# The stream


@pytest.mark.parametrize("compress", ["", "zstd"])
async def test_the_first_message_is_complete(served: Served, link: Link, other: Link, compress: str) -> None:
    first = await (await link.stream(1, compress=compress)).next()
    assert first["Node"]["Key"] == str(node(1).public())
    assert first["Node"]["MachineAuthorized"] is True
    assert first["Node"]["Name"] == "host1.tailnet.internal."
    assert [peer["Name"] for peer in first["Peers"]] == ["host2.tailnet.internal."]
    assert set(first["DERPMap"]["Regions"]) == {"900"}
    assert first["DNSConfig"]["Proxied"] is True
    assert first["Domain"]
    assert first["CollectServices"] is False
    assert first["PacketFilters"]["base"]
    assert first["UserProfiles"] == [{"ID": 1, "LoginName": "ann", "DisplayName": "ann"}]
    assert first["SSHPolicy"] == {"rules": []}
    assert first["Debug"] == {"DisableLogTail": True}
    assert first["ControlTime"] == "2026-01-02T03:04:05Z"
    assert other.served is served


async def test_without_peers_none_are_said(link: Link) -> None:
    """Some clients take an empty list for "no peers", and stock clients for nothing at all."""
    assert not (await (await link.stream(1)).next()).get("Peers")


async def test_a_difference_follows_each_change(served: Served, link: Link, other: Link) -> None:
    stream = await link.stream(1)
    await stream.next()
    await other.report(2, Endpoints=["192.0.2.9:1"], DiscoKey=DiscoPublic(b"\x05" * 32))
    patch = {"NodeID": 2, "Endpoints": ["192.0.2.9:1"], "DiscoKey": "discokey:" + "05" * 32}
    assert await stream.next() == {"PeersChangedPatch": [patch]}
    watcher = await other.stream(2)
    assert await stream.next() == {"PeersChangedPatch": [{"NodeID": 2, "Online": True}]}
    await served.world.registry.rename_node("test", 2, "new")
    (changed,) = (await stream.next())["PeersChanged"]
    assert changed["Name"] == "new.tailnet.internal."
    third = await served.link(3)
    third_id = await third.join(3, "bob")
    message = await stream.next()
    assert [peer["ID"] for peer in message["PeersChanged"]] == [third_id]
    assert message["UserProfiles"] == [{"ID": 2, "LoginName": "bob", "DisplayName": "bob"}]
    await served.world.registry.delete_node("test", third_id)
    assert (await stream.next())["PeersRemoved"] == [third_id]
    await served.world.registry.set_policy("test", OWN)
    assert "PacketFilters" in await stream.next()
    await stream.quiet()
    watcher.close()


async def test_a_slow_client_gets_one_difference(
    served: Served, link: Link, other: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MERGE", "MERGE_MOST"):  # long enough for the reports on a busy machine
        monkeypatch.setattr(module, name, 1.0)
    stream = await link.stream(1)
    await stream.next()
    await other.report(2, Endpoints=["192.0.2.9:1"])
    assert await stream.next() == {"PeersChangedPatch": [{"NodeID": 2, "Endpoints": ["192.0.2.9:1"]}]}
    for port in range(2, 30):
        await other.report(2, Endpoints=[f"192.0.2.9:{port}"])
    assert await stream.next() == {"PeersChangedPatch": [{"NodeID": 2, "Endpoints": ["192.0.2.9:29"]}]}
    await stream.quiet(0.2)
    assert len(served.world.registry.writer.changes) == 1


async def test_what_a_client_does_not_see_does_not_wake_it(served: Served, link: Link) -> None:
    await served.world.registry.set_policy("test", OWN)
    stream = await link.stream(1)
    await stream.next()
    await (await served.link(3)).join(3, "bob")
    await stream.quiet()


async def test_keep_alives(served: Served, link: Link, other: Link) -> None:
    stream = await link.stream(1, compress="zstd")
    await stream.next()
    now = asyncio.get_running_loop().time()
    served.control.fanout.look_at_clock(now + module.KEEP_ALIVE - 1)
    await other.report(2, Endpoints=["192.0.2.9:1"])
    assert "PeersChangedPatch" in await stream.next()
    for _ in range(3):
        served.control.fanout.look_at_clock(now + module.KEEP_ALIVE + module.KEEP_ALIVE_JITTER + 5)
        assert await stream.next() == {"KeepAlive": True}


def test_keep_alives_come_often_enough() -> None:
    """Clients give up after 120 s; proxies may after 60 (control.md, sections 12 and 28.19)."""
    assert module.KEEP_ALIVE + module.KEEP_ALIVE_JITTER < 60


async def test_a_newer_stream_ends_the_older_and_the_node_stays_online(served: Served, link: Link) -> None:
    first = await link.stream(1)
    await first.next()
    again = await (await served.link(1)).stream(1)
    await again.next()
    assert await first.ended() == []
    await asyncio.sleep(0.02)
    assert online(served, 1)
    assert len(served.world.registry.writer.changes) == 1


async def test_a_lite_update_does_not_disturb_the_stream(link: Link) -> None:
    stream = await link.stream(1)
    await stream.next()
    await link.report(1, Endpoints=["192.0.2.1:1"], Hostinfo=Hostinfo(Hostname="host1"))
    message = await stream.next()
    assert message["Node"]["Endpoints"] == ["192.0.2.1:1"]
    await stream.quiet()


async def test_a_deleted_node_has_no_stream(served: Served, link: Link) -> None:
    stream = await link.stream(1)
    await stream.next()
    await served.world.registry.delete_node("test", 1)
    (last,) = await stream.ended()
    assert last["Node"]["KeyExpiry"] == last["ControlTime"]  # the client asks for a login
    assert (last["PacketFilters"], last["SSHPolicy"]) == ({"*": None, "base": []}, {"rules": []})
    assert (await link.report(1))[0] == 404


async def test_a_new_key_ends_the_old_keys_stream(served: Served, link: Link) -> None:
    stream = await link.stream(1)
    await stream.next()
    _, auth = await served.world.registry.create_auth_key("test", user="ann")
    await link.register(2, auth=auth, OldNodeKey=node(1).public())
    await stream.ended()
    assert (await link.report(1))[0] == 404
    fresh = await link.stream(2)
    assert (await fresh.next())["Node"]["ID"] == 1


async def test_an_ended_key_is_told_and_not_refused(served: Served, link: Link) -> None:
    """A refusal would leave the client trying for ever; the past expiry makes it ask for a login."""
    stream = await link.stream(1)
    await stream.next()
    await served.world.registry.expire_node("test", 1)
    assert (await stream.next())["Node"]["KeyExpiry"] == "2026-01-02T03:04:05Z"
    again = await link.stream(1)
    assert (await again.next())["Node"]["KeyExpiry"] == "2026-01-02T03:04:05Z"


async def test_the_end_of_the_last_stream_is_noticed(
    served: Served, link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    graces: list[int] = []
    observations = served.world.registry.observations
    monkeypatch.setattr(observations, "disconnected", graces.append)
    stream = await link.stream(1)
    await stream.next()
    assert online(served, 1)
    stream.close()
    await until(lambda: graces == [1])
    lost = await served.link(1)
    await (await lost.stream(1)).next()
    lost.h2.close()
    await until(lambda: graces == [1, 1])
    assert len(served.world.registry.writer.changes) == 0


async def test_two_clients_see_each_other(served: Served) -> None:
    async with served.client(1) as one, served.client(2) as two:
        for client in (one, two):
            _, auth = await served.world.registry.create_auth_key("test", user="ann")
            await client.join(auth_key=auth)
        async with asyncio.TaskGroup() as group:
            following = [group.create_task(client.follow()) for client in (one, two)]
            await two.report(home_derp=900, endpoints=["192.0.2.2:41641"])
            netmap = await one.until(
                lambda netmap: [peer for peer in netmap.peers if peer.HomeDERP and peer.Online]
            )
            (peer,) = netmap.peers
            assert (peer.Name, peer.Endpoints) == ("host2.tailnet.internal.", ["192.0.2.2:41641"])
            assert [each.Name for each in (await two.until(lambda seen: seen.peers)).peers] == [
                "host1.tailnet.internal."
            ]
            for task in following:
                task.cancel()


async def test_a_node_that_goes_at_once_leaves_nothing_behind(served: Served, link: Link) -> None:
    """Deleted between the request and its first message."""
    for attempt in range(10):
        made = await served.link(50 + attempt)
        node_id = await made.join(50 + attempt)
        async with asyncio.TaskGroup() as group:
            streaming = group.create_task(made.stream(50 + attempt))
            group.create_task(served.world.registry.delete_node("test", node_id))
        assert len(await streaming.result().ended()) <= 2  # the map, and that it is gone
    assert len(served.world.registry.writer.changes) == 0
    assert (await link.report(1))[0] == 200


# Nothing that one client says may break another's poll (control.md, section 28.12)

PREFIX = '{"Version":140,"OmitPeers":true,"NodeKey":"%s",'
HOSTILE = [
    '"Endpoints":["1.2.3.4:99999","[fe80::1%eth0]:1","x","1.2.3.4:1","0.0.0.0:0","[::ffff:1.2.3.4]:7"]',
    '"Hostinfo":{"Hostname":"\\u001b[2J\\n..-","OS":"' + "x" * 100_000 + '"}',
    '"Hostinfo":{"RoutableIPs":["10.0.0.1/8","fe80::%eth0/64","10.0.0.0/99","","*","10.0.0.0/8"]}',
    '"Hostinfo":{"sshHostKeys":["ssh-ed25519 AAAA\\nevil ssh-rsa BBBB","","\\u0007"]}',
    '"Hostinfo":{"Location":{"Priority":99999999999999999999999}}',
    '"Hostinfo":{"NetInfo":{"PreferredDERP":9223372036854775807}}',
    '"Hostinfo":{"NetInfo":{"PreferredDERP":-1,"DERPLatency":{"900-v4":1e308}}}',
    '"Hostinfo":{"Services":[{"Proto":"peerapi4","Port":70000}]}',
    '"Hostinfo":{"Services":[{"Proto":"peerapi4","Port":-1}]}',
    '"Hostinfo":{"Services":[' + ",".join(['{"Proto":"tcp","Port":1}'] * 5000) + "]}",
    '"Hostinfo":{"Hostname":"\\ud800"}',
    '"Hostinfo":{"Hostname":"a\\u0000b"}',
    '"hostinfo":{"hostname":null,"services":null,"routableips":null}',
    '"DiscoKey":"discokey:' + "0" * 64 + '"',
    '"Version":2147483647',
    '"Hostinfo":{"RequestTags":["tag:x","' + "y" * 9999 + '"],"WoLMACs":["z"]}',
]


def is_prefix(text: str) -> bool:
    from ipaddress import ip_network  # noqa: PLC0415 - of this check alone

    return str(ip_network(text)) == text


def decodable(peer: dict[str, Any]) -> None:
    """What Go's decoders demand of a Node's fields."""
    assert all(is_prefix(each) for each in (*peer["Addresses"], *peer.get("AllowedIPs", [])))
    host = peer["Hostinfo"]
    assert all(is_prefix(each) for each in host.get("RoutableIPs", []))
    assert all(0 <= service.get("Port", 0) < 65536 for service in host.get("Services", []))
    assert all("\n" not in key for key in host.get("sshHostKeys", []))
    assert 0 <= peer.get("HomeDERP", 0) < 2**31
    assert -(2**31) < host.get("Location", {}).get("Priority", 0) < 2**31
    assert 0 <= peer["Cap"] < 2**31
    assert len(peer["Name"]) <= 254
    assert all(0 < len(label) <= 63 for label in peer["Name"].rstrip(".").split("."))


@pytest.mark.parametrize("said", HOSTILE, ids=range(len(HOSTILE)))
async def test_what_one_says_does_not_break_another(
    served: Served, link: Link, other: Link, said: str
) -> None:
    await served.world.registry.set_routes("test", 2, approve=["10.0.0.0/8"])
    stream = await link.stream(1)
    state = NetmapState()
    now = served.world.clock.now()
    state.receive(encode_again(await stream.next()), now=now)
    body = (PREFIX % node(2).public() + said + "}").encode()
    status, text, _ = await other.ask("/machine/map", body)
    assert status in {200, 400}
    assert (status == 200) == (text == b"")
    await other.report(2, Endpoints=["192.0.2.200:1"])
    while True:
        state.receive(encode_again(await stream.next()), now=now)
        (peer,) = state.netmap().peers
        if peer.Endpoints == ["192.0.2.200:1"]:
            break
    full = await (await link.stream(1)).next()
    decodable(full["Peers"][0])
    assert len(encode(full)) < 40_000
    await served.world.registry.observations.flush()


def encode_again(message: dict[str, Any]) -> bytes:
    return msgspec.json.encode(message)


async def test_a_service_is_shown_to_peers(link: Link, other: Link) -> None:
    await other.report(
        2, Hostinfo=Hostinfo(Hostname="host2", Services=[Service(Proto="peerapi4", Port=65535)])
    )
    (peer,) = (await (await link.stream(1)).next())["Peers"]
    assert peer["Hostinfo"]["Services"] == [{"Proto": "peerapi4", "Port": 65535}]


async def test_a_policy_with_routes_reaches_the_stream(served: Served, link: Link, other: Link) -> None:
    stream = await link.stream(1)
    await stream.next()
    await other.report(2, Hostinfo=Hostinfo(Hostname="host2", RoutableIPs=["10.7.0.0/16"]))
    assert "10.7" not in str(await stream.next())
    await served.world.registry.set_routes("test", 2, approve=["10.7.0.0/16"])
    message = await stream.next()
    (peer,) = message["PeersChanged"]
    assert peer["PrimaryRoutes"] == ["10.7.0.0/16"]
    await served.world.registry.set_policy("test", written({"grants": []}))
    assert (await stream.next())["PeersRemoved"] == [2]


# Where nodes come from

PLACED = """{"postures": {"posture:here": [%s]},
             "grants": [{"src": ["bob"], "dst": ["*"], "ip": ["*"], "srcPosture": ["posture:here"]}]}"""


def came_from(served: Served, node_id: int) -> str:
    return str(served.world.registry.snapshot.nodes[node_id].observed.came_from)


async def test_access_goes_and_comes_with_the_address_that_a_node_connects_from(
    served: Served, link: Link
) -> None:
    registry = served.world.registry
    await registry.set_policy("test", PLACED % "\"ip:address IN ['127.0.0.2/32', '2001:db8::/32']\"")
    bobs = await served.link(3)
    bob_id = await bobs.join(3, "bob")
    bob = registry.snapshot.nodes[bob_id].ipv4
    await (await bobs.stream(3)).next()
    watching = await link.stream(1)
    await _until_let_in(watching, bob, wanted=False)
    assert came_from(served, bob_id) == "127.0.0.1"
    async with detour(served.url) as elsewhere:
        for _ in range(2):
            there = await served.link(3, url=elsewhere)
            now_there = await there.stream(3)
            async with asyncio.timeout(1):
                await _until_let_in(watching, bob, wanted=True)
            assert came_from(served, bob_id) == "127.0.0.2"
            back = await served.link(3)
            await back.stream(3)
            async with asyncio.timeout(1):
                await _until_let_in(watching, bob, wanted=False)
            assert came_from(served, bob_id) == "127.0.0.1"
            await now_there.ended()
            there.h2.close()


async def test_a_node_that_is_away_is_judged_by_where_it_was(
    served: Served, link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observe.Observations.disconnected, "__kwdefaults__", {"grace": 0.01})
    registry = served.world.registry
    await registry.set_policy("test", PLACED % "\"ip:address == '127.0.0.1'\"")
    bobs = await served.link(3)
    bob_id = await bobs.join(3, "bob")
    bob = registry.snapshot.nodes[bob_id].ipv4
    await (await bobs.stream(3)).next()
    bobs.h2.close()
    await until(lambda: not online(served, bob_id))
    watching = await link.stream(1)
    await _until_let_in(watching, bob, wanted=True)
    # A restart forgets nothing of it.
    await registry.observations.flush()
    (stored,) = await registry.writer.database.read(nodes.by_ids, [bob_id])
    assert stored.observed.came_from == IPv4Address("127.0.0.1")


async def test_a_country_is_that_of_the_address_and_of_the_newest_database(
    served: Served, link: Link
) -> None:
    registry = served.world.registry
    here = IPv4Address("127.0.0.1")

    def germany(address: IPv4Address | IPv6Address) -> str | None:
        return "DE" if address == here else None

    def france(address: IPv4Address | IPv6Address) -> str | None:
        return "FR" if address == here else None

    policy = PLACED % "\"ip:country == 'DE'\""
    with pytest.raises(PolicyError, match="nobody knows here which address is in which country") as caught:
        await registry.set_policy("test", policy)
    (fault,) = caught.value.diagnostics
    assert (fault.line, "geoip" in fault.cure) == (1, True)
    registry.set_countries(germany)
    await registry.set_policy("test", policy)
    bobs = await served.link(3)
    bob_id = await bobs.join(3, "bob")
    bob = registry.snapshot.nodes[bob_id].ipv4
    watching = await link.stream(1)
    await _until_let_in(watching, bob, wanted=False)
    await bobs.stream(3)
    await _until_let_in(watching, bob, wanted=True)
    told: list[tuple[CountryOf | None, bool]] = [(france, False), (germany, True), (None, False)]
    for country_of, wanted in told:
        registry.set_countries(country_of)
        async with asyncio.timeout(1):
            await _until_let_in(watching, bob, wanted=wanted)


@pytest.mark.parametrize(
    ("trusted", "says", "expected"),
    [
        (True, "198.51.100.1, 203.0.113.9", "203.0.113.9"),
        (True, "::ffff:203.0.113.9", "203.0.113.9"),
        (True, "", "127.0.0.2"),
        (False, "203.0.113.9", "127.0.0.2"),
    ],
)
async def test_a_proxys_word_counts_where_it_is_trusted(
    world: World, trusted: bool, says: str, expected: str
) -> None:
    proxies = [ip_network("127.0.0.2/32")] if trusted else []
    async with serving_control(world, proxies=proxies) as served, detour(served.url, says=says) as url:
        link = await served.link(1, url=url)
        node_id = await link.join(1)
        assert came_from(served, node_id) == "None"  # to register is no stream
        await (await link.stream(1)).next()
        assert came_from(served, node_id) == expected
        link.h2.close()
