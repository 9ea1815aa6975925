"""Tabs as their pages are told of them."""

import pytest
from tests.support.nouns import NOW

from doorward.api import tabs as module
from doorward.model import TabEnd, TabOver
from doorward.policy import parse_policy
from doorward.protocol.tailcfg.derpmap import DERPMap, DERPNode, DERPRegion
from doorward.tailnet.settings import Settings
from doorward.tailnet.snapshot import Snapshot


def _snapshot(*regions: DERPRegion) -> Snapshot:
    settings = Settings(
        domain="tailnet.internal",
        url="http://127.0.0.1:8080",
        derp_map=DERPMap(Regions={one.RegionID: one for one in regions}),
    )
    return Snapshot.build(settings, (), (), parse_policy("{}"), "{}")


def _region(number: int, *nodes: DERPNode) -> DERPRegion:
    return DERPRegion(
        RegionID=number, RegionCode=f"r{number}", RegionName=f"Region {number}", Nodes=list(nodes)
    )


def test_ours_is_at_the_door_and_of_others_only_what_a_browser_trusts() -> None:
    def relay(number: int, **fields: object) -> DERPNode:
        values = {"Name": f"{number}a", "RegionID": number, "HostName": "relay.example.com"}
        return DERPNode(**(values | fields))  # type: ignore[arg-type]

    snapshot = _snapshot(
        _region(900, relay(900, HostName="127.0.0.1", CertName="sha256-raw:00", DERPPort=8444)),
        _region(1, relay(1), relay(1, DERPPort=8443), relay(1, STUNOnly=True)),
        _region(2, relay(2, CertName="other.example.com")),
        _region(3, relay(3, CertName="sha256-raw:00")),
        _region(4, relay(4, InsecureForTests=True)),
        _region(5, relay(5, HostName="2001:db8::1", DERPPort=443)),
    )
    found = module.relays(snapshot, 900, "https://door.example.com:8443")
    assert found.home == 900
    assert {number: region.urls for number, region in found.regions.items()} == {
        "1": ("wss://relay.example.com/derp", "wss://relay.example.com:8443/derp"),
        "5": ("wss://[2001:db8::1]/derp",),
        "900": ("wss://door.example.com:8443/derp",),
    }
    local = module.relays(snapshot, 900, "http://localhost:8080").regions["900"]
    assert local.urls == ("ws://localhost:8080/derp",)
    assert module.origins(snapshot) == {
        "wss://relay.example.com",
        "wss://relay.example.com:8443",
        "wss://[2001:db8::1]",
    }


@pytest.mark.parametrize("over", list(TabOver))
def test_every_end_has_a_cure(over: TabOver) -> None:
    ended = TabEnd(id=4, user_id=1, session_id=2, over=over, reason="it was away for too long", at=NOW)
    shown, told = module.over(ended), module.ended_event(ended)
    assert (shown.state, shown.over, shown.reason) == ("over", over.value, "It was away for too long.")
    assert shown.cure
    assert (told.id, told.over, told.reason, told.cure) == (4, shown.over, shown.reason, shown.cure)
