"""What clients say of themselves, and the names, routes, nodes and DNS settings that administrators write."""

from datetime import UTC, datetime

from tests.fuzz.feeding import feed, text_of
from tests.support.policy import make_node, make_user

from doorward.errors import BadInput
from doorward.model import Attribute
from doorward.policy import DEFAULT_POLICY, parse_policy
from doorward.protocol.tailcfg.codec import decode_request
from doorward.protocol.tailcfg.dns import DNSRecord
from doorward.protocol.tailcfg.hostinfo import Hostinfo
from doorward.tailnet import attributes, dns, names, reported, secrets, units
from doorward.tailnet.settings import DNS, Settings
from doorward.tailnet.snapshot import Snapshot, advertised

COVERS = (
    "tailnet.dns:checked",
    "tailnet.dns:_name",
    "tailnet.dns:_nameserver",
    "tailnet.dns:_over_http",
    "tailnet.dns:_address",
    "tailnet.attributes:check_attribute",
    "tailnet.attributes:check_key",
    "tailnet.names:label_of",
    "tailnet.names:check_label",
    "tailnet.reported:usable_endpoints",
    "tailnet.reported:usable_hostinfo",
    "tailnet.reported:_routes",
    "tailnet.reported:_host_keys",
    "tailnet.secrets:digest",
    "tailnet.snapshot:advertised",
    "tailnet.snapshot:Snapshot.find_node",
    "tailnet.units:prefixes",
)
LIMIT = 1 << 20  # one Hostinfo may fill a whole request
SEEDS = (
    b"192.0.2.1:41641",
    b"[2001:db8::1]:41641",
    b"[::ffff:192.0.2.1]:1",
    b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ5 host\nssh-rsa AAAA",
    b"10.0.0.0/8",
    b"fe80::1%eth0/64",
    b"host.local",
    b"https://dns.example/dns-query",
    b"http://100.64.0.1:80/x",
    b"[2001:db8::1]:53",
    b"_dmarc.corp.example.",
    b"node-2.tailnet.internal.",
    b"100.64.0.2",
    b"2",
    (
        b'{"Hostname":"h","RoutableIPs":["10.0.0.0/8","x"],"RequestTags":["tag:a"],"sshHostKeys":["ssh-rsa AAAA="],'
        b'"Services":[{"Proto":"tcp","Port":80}],"NetInfo":{"DERPLatency":{"1-v4":0.1},"PreferredDERP":1},'
        b'"Location":{"Priority":4294967296,"City":"x"},"WoLMACs":["a"],"Unknown":1}'
    ),
)
SETTINGS = Settings(domain="tailnet.internal", url="http://127.0.0.1:8080")
SNAPSHOT = Snapshot.build(
    SETTINGS,
    [make_user(1, "alice")],
    [make_node(1, user=1), make_node(2, user=1)],
    parse_policy(DEFAULT_POLICY),
    DEFAULT_POLICY,
)


def _dns(text: str) -> None:
    parts = tuple(text.split("\n")[:8])
    for given in (
        DNS(search=parts),
        DNS(nameservers=parts),
        DNS(split={part: (part,) for part in parts}),
        DNS(split={"corp.example": parts}),
        DNS(records=tuple(DNSRecord(Name=part, Value=part) for part in parts)),
        DNS(records=tuple(DNSRecord(Name="a.b", Value=part) for part in parts)),
    ):
        feed(given, lambda one: dns.checked(dns.checked(one, SETTINGS), SETTINGS))


def fuzz(data: bytes) -> None:
    """Cleaning refuses nothing and is done once for all; administrators' words are taken or refused with a reason."""
    text = text_of(data)
    lines = text.split("\n")
    endpoints = reported.usable_endpoints(lines)
    assert reported.usable_endpoints(endpoints) == endpoints
    for given in (
        Hostinfo(Hostname=text, RoutableIPs=lines, RequestTags=lines, sshHostKeys=lines, OS=text),
        _read(data),
    ):
        if given is not None:
            clean = reported.usable_hostinfo(given)
            assert reported.usable_hostinfo(clean) == clean
            advertised(make_node(1, user=1, advertised=tuple(clean.RoutableIPs or ())))
    label = names.label_of(text)
    assert names.check_label(label) == label
    secrets.digest(text)
    feed(text, names.check_label, SNAPSHOT.find_node, _dns)
    feed(Attribute(key="custom:a", value=text), _attribute)
    feed(Attribute(key=text, value=1), _attribute)
    feed(lines, units.prefixes, refusal=BadInput)


def _attribute(given: Attribute) -> Attribute:
    return attributes.check_attribute(given, datetime(2026, 1, 1, tzinfo=UTC))


def _read(data: bytes) -> Hostinfo | None:
    try:
        return decode_request(data, Hostinfo)
    except BadInput:
        return None
