"""Nodes: what is left out, and what is said although it is empty."""

from doorward.protocol.keys import NodePublic
from doorward.protocol.tailcfg.codec import encode
from doorward.protocol.tailcfg.node import Node, PeerChange, UserProfile

SMALLEST = Node(
    ID=1, StableID="n", Name="a.b.", User=2, Key=NodePublic(b"\x11" * 32), Addresses=["100.64.0.1/32"]
)


def test_the_smallest_node_has_only_what_it_needs() -> None:
    assert encode(SMALLEST) == (
        b'{"ID":1,"StableID":"n","Name":"a.b.","User":2,"Key":"nodekey:' + b"11" * 32 + b'",'
        b'"Addresses":["100.64.0.1/32"]}'
    )


def test_no_endpoints_and_no_traffic_are_said() -> None:
    node = Node(
        ID=1,
        StableID="n",
        Name="a.b.",
        User=2,
        Key=NodePublic(b"\x11" * 32),
        Addresses=["100.64.0.1/32"],
        AllowedIPs=[],
        Endpoints=[],
        Online=False,
    )
    assert encode(node).endswith(b',"AllowedIPs":[],"Endpoints":[],"Online":false}')


def test_a_change_says_only_what_changed() -> None:
    assert encode(PeerChange(NodeID=1, Online=False)) == b'{"NodeID":1,"Online":false}'
    assert encode(PeerChange(NodeID=1, Endpoints=[], CapMap={})) == b'{"NodeID":1,"CapMap":{},"Endpoints":[]}'


def test_a_profile_without_picture_has_none() -> None:
    profile = UserProfile(ID=1, LoginName="a@example.com", DisplayName="A")
    assert encode(profile) == b'{"ID":1,"LoginName":"a@example.com","DisplayName":"A"}'
