"""The answers of a daemon as both supported versions write them."""

import msgspec

from doorward.engine.base import Ping, Status


def test_a_status_with_a_node_and_a_peer() -> None:
    status = msgspec.json.decode(
        b'{"Version":"1.102.4","TUN":true,"BackendState":"Running","HaveNodeKey":true,"AuthURL":"",'
        b'"TailscaleIPs":["100.64.0.1"],"Health":null,"Self":{"ID":"n1","HostName":"me","DNSName":"me.tailnet.internal.",'
        b'"TailscaleIPs":["100.64.0.1","fd7a:115c:a1e0::1"],"Online":true,"Extra":1},'
        b'"Peer":{"nodekey:00":{"ID":"n2","DNSName":"a.tailnet.internal.","TailscaleIPs":null,"CurAddr":"1.2.3.4:5",'
        b'"Relay":"home","sshHostKeys":["ssh-ed25519 AAAA"]}}}',
        type=Status,
    )
    assert status.running
    assert status.tun
    assert status.addresses == ("100.64.0.1", "fd7a:115c:a1e0::1")
    assert status.peers is not None
    peer = status.peers["nodekey:00"]
    assert (peer.stable_id, peer.cur_addr, peer.relay, peer.ssh_host_keys) == (
        "n2",
        "1.2.3.4:5",
        "home",
        ("ssh-ed25519 AAAA",),
    )


def test_a_status_before_any_login() -> None:
    status = msgspec.json.decode(
        b'{"BackendState":"NeedsLogin","Self":{"ID":"","TailscaleIPs":null},"Peer":null}', type=Status
    )
    assert (status.running, status.addresses, status.peers, status.have_node_key) == (False, (), None, False)


def test_a_ping_by_way_of_the_relay() -> None:
    ping = msgspec.json.decode(
        b'{"IP":"100.64.0.2","NodeIP":"100.64.0.2","NodeName":"a","Err":"","LatencySeconds":0.01,"Endpoint":"",'
        b'"DERPRegionID":900,"DERPRegionCode":"home"}',
        type=Ping,
    )
    assert (ping.err, ping.latency_seconds, ping.derp_region_id, ping.derp_region_code) == (
        "",
        0.01,
        900,
        "home",
    )
