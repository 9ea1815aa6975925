"""Whatever a client says, its peers get only what a stock client can decode."""

import re
from ipaddress import ip_address, ip_network
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.protocol.tailcfg.codec import encode
from doorward.protocol.tailcfg.hostinfo import Hostinfo, Location, NetInfo, Service
from doorward.tailnet.reported import MAX_ENDPOINTS, MAX_ROUTES, merged, usable_endpoints, usable_hostinfo


@pytest.mark.parametrize(
    ("given_text", "kept"),
    [
        ("192.0.2.1:41641", "192.0.2.1:41641"),
        ("[2001:db8::1]:41641", "[2001:db8::1]:41641"),
        ("[2001:DB8:0::1]:41641", "[2001:db8::1]:41641"),
        ("[::ffff:192.0.2.1]:5", "192.0.2.1:5"),
        ("100.80.1.2:9", "100.80.1.2:9"),  # carriers use that range too
        ("127.0.0.1:9", "127.0.0.1:9"),
        ("[fe80::1%eth0]:5", None),
        ("[2001:db8::1%eth0]:5", None),
        ("[fe80::1]:5", None),
        ("169.254.1.1:5", None),
        ("0.0.0.0:5", None),
        ("[::]:5", None),
        ("224.0.0.1:5", None),
        ("[ff02::1]:5", None),
        ("255.255.255.255:5", None),
        ("192.0.2.1:0", None),
        ("192.0.2.1:65536", None),
        ("192.0.2.1:-1", None),
        ("192.0.2.1", None),
        ("192.0.2.01:5", None),
        ("example.com:5", None),
        ("", None),
        (":", None),
        ("192.0.2.1:" + "9" * 5000, None),
    ],
)
def test_an_endpoint_passes_only_in_its_one_form(given_text: str, kept: str | None) -> None:
    assert usable_endpoints([given_text]) == (() if kept is None else (kept,))


def test_endpoints_are_bounded_and_come_once() -> None:
    many = [f"192.0.2.1:{port}" for port in range(1, 1000)]
    assert usable_endpoints([many[0], *many]) == tuple(many[:MAX_ENDPOINTS])


GO_ADDR_PORT = re.compile(r"(\d+\.\d+\.\d+\.\d+|\[[0-9a-f:.]+\]):\d+")


@given(st.lists(st.one_of(st.text(max_size=40), st.ip_addresses().map(lambda one: f"[{one}]:41641"))))
def test_every_endpoint_that_passes_can_be_parsed(texts: list[str]) -> None:
    for endpoint in usable_endpoints(texts):
        assert GO_ADDR_PORT.fullmatch(endpoint)
        host, _, port = endpoint.rpartition(":")
        ip_address(host.strip("[]"))
        assert 0 < int(port) < 65536


def test_routes_have_one_form_and_no_host_bits() -> None:
    routes = [
        "10.0.0.0/8",
        "10.0.0.0/255.0.0.0",
        "10.0.0.1/8",
        "192.0.2.7",
        "FD00::/64",
        "fe80::%eth0/64",
        "::ffff:10.0.0.0/104",
        "0.0.0.0/0",
        "::/0",
        "everything",
        "",
    ]
    kept = ["10.0.0.0/8", "192.0.2.7/32", "fd00::/64", "0.0.0.0/0", "::/0"]
    assert usable_hostinfo(Hostinfo(RoutableIPs=routes)).RoutableIPs == kept
    many = [f"10.{n // 256}.{n % 256}.0/24" for n in range(MAX_ROUTES + 5)]
    assert usable_hostinfo(Hostinfo(RoutableIPs=many)).RoutableIPs == many[:MAX_ROUTES]


def test_host_keys_are_one_line_each() -> None:
    keys = [
        "ssh-ed25519 AAAAC3Nza/+=",
        "ssh-ed25519 AAAAC3Nza comment of mine",
        "  ssh-rsa\tAAAAB3\n",
        "ssh-ed25519 AAAA\n* ssh-ed25519 BBBB",
        "* ssh-ed25519 AAAA",
        "ssh-ed25519 not base64!",
        'command="x" ssh-ed25519 AAAA',
        "ssh-ed25519",
        "",
    ]
    assert usable_hostinfo(Hostinfo(sshHostKeys=keys)).sshHostKeys == [
        "ssh-ed25519 AAAAC3Nza/+=",
        "ssh-ed25519 AAAAC3Nza",
        "ssh-rsa AAAAB3",
        "ssh-ed25519 AAAA",
        "ssh-ed25519 not",
    ]
    assert len(usable_hostinfo(Hostinfo(sshHostKeys=["ssh-rsa AAAA"] * 99)).sshHostKeys or ()) == 16


def test_words_hold_nothing_that_a_terminal_obeys_and_are_short() -> None:
    clean = usable_hostinfo(
        Hostinfo(
            Hostname="\x1b[2Jlap\x00top\n",
            OS="x" * 5000,
            DeviceModel="Grüße 東京",
            Services=[Service(Proto="tcp\x07", Port=65535, Description="\u202egpj")] * 100,
            Location=Location(City="\x1bParis", Priority=2**64),
            NetInfo=NetInfo(LinkType="wi\rfi", DERPLatency={f"{n}-v4\n": 0.1 for n in range(2000)}),
        )
    )
    assert clean.Hostname == "[2Jlaptop"
    assert clean.OS == "x" * 256
    assert clean.DeviceModel == "Grüße 東京"
    assert clean.Services == [Service(Proto="tcp", Port=65535, Description="gpj")] * 64
    assert clean.Location == Location(City="Paris", Priority=0)
    assert clean.NetInfo is not None
    assert clean.NetInfo.LinkType == "wifi"
    assert clean.NetInfo.DERPLatency is not None
    assert len(clean.NetInfo.DERPLatency) == 512
    assert all(region.isprintable() for region in clean.NetInfo.DERPLatency)


def test_what_is_well_formed_stays_as_it_is() -> None:
    honest = Hostinfo(
        IPNVersion="1.102.4-ERR-BuildInfo",
        OS="linux",
        Hostname="laptop",
        Container=False,
        RoutableIPs=["10.0.0.0/8", "::/0"],
        RequestTags=["tag:web"],
        WoLMACs=["00:11:22:33:44:55"],
        Services=[Service(Proto="peerapi4", Port=41234)],
        NetInfo=NetInfo(PreferredDERP=900, DERPLatency={"900-v4": 0.0125}, WorkingUDP=True),
        sshHostKeys=["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI"],
        Location=Location(Country="Austria", Latitude=48.2, Priority=10),
    )
    assert usable_hostinfo(honest) == honest
    assert usable_hostinfo(Hostinfo()) == Hostinfo()
    assert usable_hostinfo(Hostinfo(RoutableIPs=[])).RoutableIPs == []


def every_field() -> st.SearchStrategy[dict[str, Any]]:
    word = st.text(max_size=600)
    kinds: dict[str, st.SearchStrategy[Any]] = {
        "RoutableIPs": st.lists(word, max_size=3),
        "sshHostKeys": st.lists(word, max_size=3),
        "RequestTags": st.lists(word, max_size=3),
        "Services": st.lists(st.builds(Service, word, st.integers(0, 65535), word), max_size=3),
        "Location": st.builds(Location, City=word, Priority=st.integers()),
        "NetInfo": st.builds(NetInfo, DERPLatency=st.dictionaries(word, st.floats(0, 1), max_size=3)),
    }
    texts = {info.name: word for info in msgspec.structs.fields(Hostinfo) if info.type is str}
    return st.fixed_dictionaries({}, optional={**texts, **kinds})


@given(every_field())
def test_the_result_is_fit_and_stays_so(fields: dict[str, Any]) -> None:
    once = usable_hostinfo(Hostinfo(**fields))
    assert usable_hostinfo(once) == once
    again = msgspec.json.decode(encode(once), type=Hostinfo)
    for prefix in again.RoutableIPs or ():
        assert str(ip_network(prefix)) == prefix
    for key in again.sshHostKeys or ():
        assert len(key.split()) == 2
    assert all(
        value.isprintable() and len(value) <= 256
        for value in msgspec.structs.asdict(again).values()
        if type(value) is str
    )


def test_net_info_lasts_until_it_is_measured_again() -> None:
    measured = Hostinfo(Hostname="a", NetInfo=NetInfo(PreferredDERP=900))
    renamed = merged(measured, Hostinfo(Hostname="b"))
    assert (renamed.Hostname, renamed.NetInfo) == ("b", NetInfo(PreferredDERP=900))
    moved = Hostinfo(NetInfo=NetInfo(PreferredDERP=901))
    assert merged(measured, moved) == moved
    assert merged(Hostinfo(), Hostinfo()) == Hostinfo()
