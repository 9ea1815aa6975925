import json
from ipaddress import ip_network
from typing import Any

import pytest

from doorward.policy import PolicyError, parse_policy

RELAY = {"Name": "900a", "RegionID": 900, "HostName": "relay.example.com", "DERPPort": 8443, "STUNPort": -1}


def test_node_attributes_in_full() -> None:
    entry = {
        "target": ["*"],
        "attr": ["funnel", "nextdns:abc"],
        "app": {"tailscale.com/app-connectors": [{"name": "a", "connectors": ["tag:c"]}]},
        "ipPool": ["100.81.0.0/16", "100.82.0.0/24"],
    }
    (attribute,) = parse_policy(json.dumps({"nodeAttrs": [entry]})).node_attributes
    assert attribute.names == ("funnel", "nextdns:abc")
    assert attribute.app == entry["app"]
    assert attribute.pools == (ip_network("100.81.0.0/16"), ip_network("100.82.0.0/24"))


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"ipPool": ["100.100.100.0/24"]}, "IPPool(100.100.100.0/24): network within reserved range"),
        ({"ipPool": ["10.0.0.0/8"]}, "IPPool(10.0.0.0/8): network outside 100.64.0.0/10"),
        ({"ipPool": ["fd7a:115c:a1e0::/64"]}, "network outside"),
        ({"ipPool": ["x"]}, "invalid address"),
        ({"attr": [""]}, "an empty attribute"),
        ({"app": {"a.com/b": {}}}, "must be a list"),
        ({"target": ["autogroup:self"]}, '"autogroup:self" cannot be a target'),
        ({"target": ["autogroup:internet"]}, "cannot be a target"),
        ({"target": ["0.0.0.0/0"]}, "cannot be a target"),
        ({"targets": ["*"]}, 'unknown key "targets"'),
    ],
)
def test_node_attributes_that_are_refused(entry: dict[str, Any], words: str) -> None:
    with pytest.raises(PolicyError) as raised:
        parse_policy(json.dumps({"nodeAttrs": [{"target": ["*"]} | entry]}))
    assert words in str(raised.value)
    assert raised.value.cure


def test_changes_to_the_relays() -> None:
    text = json.dumps({"derpMap": {"Regions": {"900": {"RegionID": 900, "Nodes": [RELAY]}, "1": None}}})
    relays = parse_policy(text).relays
    assert relays is not None
    assert not relays.omit_default
    assert relays.regions[1] is None
    region = relays.regions[900]
    assert region is not None
    assert (region.RegionCode, region.RegionName) == ("900", "Region 900")
    assert (region.Nodes[0].HostName, region.Nodes[0].DERPPort, region.Nodes[0].STUNPort) == (
        "relay.example.com",
        8443,
        -1,
    )


@pytest.mark.parametrize(
    ("relays", "words"),
    [
        ({"OmitDefaultRegions": True}, "leaves no relay at all"),
        ({"OmitDefaultRegions": True, "Regions": {"900": None}}, "leaves no relay at all"),
        ({"Regions": {"x": {}}}, '"x" is not the number of a region'),
        ({"Regions": {"900": {"RegionID": 901}}}, "is another number"),
        ({"Regions": {"900": {"Nodes": [{"Name": "a"}]}}}, 'has no "HostName"'),
        ({"Regions": {"900": {"Nodes": [RELAY | {"InsecureForTests": True}]}}}, "would not be verified"),
        ({"Regions": {"900": {"Nodes": [RELAY | {"DERPPort": 70000}]}}}, "is no port"),
        ({"Regions": {"900": {"Nodes": [RELAY | {"DERPPort": "443"}]}}}, "must be a whole number"),
        ({"Regions": {"900": {"Latitude": 1000}}}, "no number of degrees"),
        ({"Regions": {"900": {"Nodes": [RELAY | {"Host": "a"}]}}}, 'unknown key "Host"'),
    ],
)
def test_relays_that_are_refused(relays: dict[str, Any], words: str) -> None:
    with pytest.raises(PolicyError) as raised:
        parse_policy(json.dumps({"derpMap": relays}))
    assert words in str(raised.value)
    assert all(one.cure for one in raised.value.diagnostics)
