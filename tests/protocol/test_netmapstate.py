"""What becomes of a map session's messages, compared with what the stock client's own code made of them."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.errors import BadInput, LocalProtocolError, RemoteProtocolError
from doorward.protocol.keys import DiscoPublic, NodePublic
from doorward.protocol.netmapstate import Netmap, NetmapState
from doorward.protocol.tailcfg.codec import encode
from doorward.protocol.tailcfg.derpmap import DERPMap
from doorward.protocol.tailcfg.dns import DNSConfig
from doorward.protocol.tailcfg.filter import FilterRule
from doorward.protocol.tailcfg.map import ClientVersion, Debug, DisplayMessage, MapResponse
from doorward.protocol.tailcfg.node import Node, PeerChange, UserProfile
from doorward.protocol.tailcfg.ssh import SSHPolicy

VECTORS = Path(__file__).parent.parent / "vectors" / "netmap_sequences.json"
NOW = datetime(2026, 6, 1, tzinfo=UTC)


class Expected(msgspec.Struct, forbid_unknown_fields=True):
    """A netmap as the stock client wrote it. Nodes are compared as JSON objects."""

    Node: dict[str, Any]
    Peers: list[dict[str, Any]]
    DERPMap: "DERPMap | None"
    DNS: DNSConfig
    Domain: str
    PacketFilter: list[FilterRule]
    SSHPolicy: "SSHPolicy | None"
    UserProfiles: dict[int, UserProfile]
    DisplayMessages: dict[str, DisplayMessage]
    CollectServices: bool


class Sequence(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    messages: list[dict[str, Any]]
    netmap: Expected


class File(msgspec.Struct, forbid_unknown_fields=True):
    about: str
    sequences: list[Sequence]


SEQUENCES = msgspec.json.decode(VECTORS.read_bytes(), type=File).sequences


def play(messages: list[dict[str, Any]]) -> Netmap:
    state = NetmapState()
    for message in messages:
        state.receive(json.dumps(message).encode(), now=NOW)
    return state.netmap()


def plain(node: Node | dict[str, Any]) -> dict[str, Any]:
    """A node as JSON, in one form: no empty list where there is none, no [] for a capability without value."""
    value: dict[str, Any] = json.loads(encode(node)) if isinstance(node, Node) else dict(node)
    value.pop("Capabilities", None)
    if not value.get("Endpoints"):
        value.pop("Endpoints", None)
    if "CapMap" in value:
        value["CapMap"] = {name: values or None for name, values in value["CapMap"].items()}
        if not value["CapMap"]:
            del value["CapMap"]
    return value


@pytest.mark.parametrize("sequence", SEQUENCES, ids=lambda s: s.name)
def test_the_netmap_is_the_stock_clients(sequence: Sequence) -> None:
    netmap, expected = play(sequence.messages), sequence.netmap
    assert plain(netmap.node) == plain(expected.Node)
    assert list(map(plain, netmap.peers)) == list(map(plain, expected.Peers))
    assert netmap.derp_map == expected.DERPMap
    assert netmap.dns == expected.DNS
    assert netmap.domain == expected.Domain
    assert list(netmap.packet_filter) == expected.PacketFilter
    assert netmap.ssh_policy == expected.SSHPolicy
    assert netmap.user_profiles == expected.UserProfiles
    assert netmap.display_messages == expected.DisplayMessages
    assert netmap.collect_services == expected.CollectServices


def node(number: int, **fields: Any) -> Node:
    values: dict[str, Any] = {
        "ID": number,
        "StableID": f"n{number}",
        "Name": f"n{number}.example.internal.",
        "User": 1,
        "Key": NodePublic(bytes([number]) * 32),
        "Addresses": [f"100.64.0.{number}/32"],
    }
    return Node(**{**values, **fields})


ME = node(1)
SELDOM = st.sampled_from(["one.example.internal.", "two.example.internal."])
# Online throughout: about offline peers a client keeps what it finds newer, as the recorded sequences show.
PEERS = st.builds(
    node,
    st.integers(2, 5),
    Name=SELDOM,
    User=st.integers(1, 3),
    Endpoints=st.lists(st.sampled_from(["192.0.2.1:1", "[2001:db8::1]:2"]), max_size=2),
    HomeDERP=st.integers(0, 2),
    DiscoKey=st.sampled_from([DiscoPublic(b"a" * 32), DiscoPublic(b"b" * 32)]),
    Online=st.just(True),
    Cap=st.integers(113, 115),
    Tags=st.lists(st.just("tag:x"), max_size=1),
)
LISTS = st.lists(PEERS, min_size=1, max_size=4, unique_by=lambda peer: peer.ID)
CHANGES = st.builds(
    PeerChange,
    NodeID=st.integers(2, 6),
    DERPRegion=st.integers(0, 2),
    Online=st.booleans(),
    Endpoints=st.lists(st.just("192.0.2.9:9"), max_size=1),
)
MESSAGES = st.builds(MapResponse, Peers=LISTS) | st.builds(
    MapResponse,
    PeersChanged=LISTS,
    PeersRemoved=st.lists(st.integers(2, 6), max_size=2),
    PeersChangedPatch=st.lists(CHANGES, max_size=2),
    OnlineChange=st.dictionaries(st.integers(2, 6), st.booleans(), max_size=2),
)


def state_of(*messages: MapResponse) -> NetmapState:
    state = NetmapState()
    for message in messages:
        state.apply(message, now=NOW)
    return state


@given(st.lists(MESSAGES, max_size=5), LISTS)
def test_after_a_complete_list_the_past_is_forgotten(past: list[MapResponse], peers: list[Node]) -> None:
    first = MapResponse(Node=ME)
    assert (
        state_of(first, *past, MapResponse(Peers=[*peers])).netmap().peers
        == state_of(MapResponse(Node=ME, Peers=[*peers])).netmap().peers
    )


@given(st.lists(MESSAGES, max_size=5))
def test_messages_come_out_of_the_wire_as_they_went_in(messages: list[MapResponse]) -> None:
    state = NetmapState()
    for message in (MapResponse(Node=ME), *messages):
        assert state.receive(encode(message), now=NOW) == message
    assert state.netmap() == state_of(MapResponse(Node=ME), *messages).netmap()


@given(LISTS, LISTS)
def test_removing_and_adding_leads_from_one_list_to_another(old: list[Node], new: list[Node]) -> None:
    """The plainest delta there is: all that went, then all that is there, each peer once gone and come again."""
    state = state_of(MapResponse(Node=ME, Peers=[*old]))
    state.apply(MapResponse(PeersRemoved=[peer.ID for peer in old]), now=NOW)
    assert state.netmap().peers == ()
    state.apply(MapResponse(PeersChanged=[*new]), now=NOW)
    assert state.netmap() == state_of(MapResponse(Node=ME, Peers=[*new])).netmap()


def test_a_netmap_does_not_change_under_its_reader() -> None:
    state = state_of(MapResponse(Node=ME, Peers=[node(2)], DisplayMessages={}))
    before = state.netmap()
    state.apply(
        MapResponse(
            PeersChanged=[node(3)],
            DisplayMessages={"a": DisplayMessage(Title="a", Text="b", Severity="low")},
        ),
        now=NOW,
    )
    assert [peer.ID for peer in before.peers] == [2]
    assert before.display_messages == {}
    assert before.peer(2) == node(2, AllowedIPs=["100.64.0.2/32"], Endpoints=[])
    assert before.peer(3) is None


def test_seen_now_is_the_clients_own_clock() -> None:
    state = state_of(MapResponse(Node=ME, Peers=[node(2)]))
    later = NOW + timedelta(hours=1)
    state.apply(MapResponse(PeerSeenChange={2: True}), now=later)
    assert state.netmap().peers[0].LastSeen == later


def test_health_shows_only_without_display_messages() -> None:
    state = state_of(MapResponse(Node=ME, Health=["old"]))
    assert state.netmap().health == ("old",)
    message = DisplayMessage(Title="a", Text="b", Severity="low")
    state.apply(MapResponse(DisplayMessages={"a": message}), now=NOW)
    assert state.netmap().health == ()
    state.apply(MapResponse(DisplayMessages={"a": None}), now=NOW)
    assert state.netmap().health == ("old",)
    state.apply(MapResponse(Health=[]), now=NOW)
    assert state.netmap().health == ()


def test_signs_are_taken_from_keep_alives_and_nothing_else_is() -> None:
    state = NetmapState()
    version = ClientVersion(LatestVersion="1.102.4")
    keep_alive = MapResponse(
        KeepAlive=True, ControlTime=NOW, ClientVersion=version, Debug=Debug(Exit=1), Node=ME
    )
    assert not state.apply(keep_alive, now=NOW)
    assert state.control_time == NOW
    assert state.client_version == version
    assert state.debug is None
    with pytest.raises(LocalProtocolError, match="no netmap"):
        state.netmap()
    assert state.apply(MapResponse(Node=ME, Debug=Debug(DisableLogTail=True)), now=NOW)
    assert state.debug == Debug(DisableLogTail=True)


def test_the_first_message_must_have_the_node() -> None:
    with pytest.raises(RemoteProtocolError, match="own node"):
        state_of(MapResponse(KeepAlive=True), MapResponse(Peers=[node(2)]))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"ID": 0}, "from 1 to"),
        ({"ID": 2**53}, "from 1 to"),
        ({"StableID": ""}, "StableID"),
        ({"Name": ""}, "full domain name"),
        ({"Name": "a.b"}, "full domain name"),
        ({"Name": "a..b."}, "full domain name"),
        ({"Name": "a" * 64 + ".b."}, "full domain name"),
        ({"Name": "abcdefg." * 32}, "full domain name"),
        ({"Addresses": ["100.64.0.1"]}, "not a prefix"),
        ({"Addresses": ["100.64.0.1/24"]}, "beyond its length"),
        ({"Addresses": ["fe80::1%eth0/128"]}, "not a prefix"),
        ({"AllowedIPs": ["nonsense/8"]}, "nonsense"),
        ({"PrimaryRoutes": ["192.0.2.0/33"]}, "192.0.2.0/33"),
        ({"Endpoints": ["192.0.2.1"]}, "form ip:port"),
        ({"Endpoints": ["192.0.2.1:65536"]}, "form ip:port"),
        ({"Endpoints": ["[192.0.2.1]:1"]}, "form ip:port"),
        ({"Endpoints": ["2001:db8::1:1"]}, "form ip:port"),
        ({"Endpoints": ["host:1"]}, "form ip:port"),
        ({"Endpoints": ["192.0.2.1:"]}, "form ip:port"),
    ],
)
def test_one_malformed_value_ends_the_poll(fields: dict[str, Any], words: str) -> None:
    bad = node(2, **fields)
    for message in (
        MapResponse(Node=bad),
        MapResponse(Node=ME, Peers=[bad]),
        MapResponse(Node=ME, PeersChanged=[bad]),
    ):
        with pytest.raises(RemoteProtocolError, match=words):
            state_of(message)


def test_malformed_values_in_patches_and_relays_end_it_too() -> None:
    with pytest.raises(RemoteProtocolError, match="form ip:port"):
        state_of(MapResponse(Node=ME, PeersChangedPatch=[PeerChange(NodeID=2, Endpoints=["x"])]))
    region = {"RegionID": 901, "RegionCode": "a", "RegionName": "a"}
    message = {"Node": json.loads(encode(ME)), "DERPMap": {"Regions": {"900": region}}}
    with pytest.raises(RemoteProtocolError, match="region 900"):
        play([message])
    with pytest.raises(BadInput):
        play([{"Node": {"ID": 1}}])


def test_peers_made_before_are_read() -> None:
    raw = msgspec.Raw(encode(node(2)))
    assert state_of(MapResponse(Node=ME, Peers=[raw])).netmap().peers[0].ID == 2
