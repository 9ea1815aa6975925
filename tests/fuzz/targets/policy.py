"""Policy files, with their tests: refused with every diagnostic in its place, or compiled and asked."""

from contextlib import suppress
from functools import partial

from tests.fuzz.feeding import argument_of, feed
from tests.support.policy import make_node, make_user

from doorward.policy import (
    DEFAULT_POLICY,
    Diagnostic,
    Policy,
    PolicyError,
    edit,
    parse_policy,
    ranges,
    selectors,
)
from doorward.policy.check import check
from doorward.policy.parse_ssh import parse_check_period
from doorward.policy.posture import Posture, attributes_of, parse_assertion
from doorward.policy.words import WordError
from doorward.protocol.tailcfg.hostinfo import Hostinfo

COVERS = (
    "policy.check:check",
    "policy.edit:_apply",
    "policy.edit:_remove_name",
    "policy.parse:parse_policy",
    "policy.parse_names:parse_groups",
    "policy.parse_names:parse_hosts",
    "policy.parse_names:parse_ipsets",
    "policy.parse_names:parse_postures",
    "policy.parse_names:parse_tag_owners",
    "policy.parse_nodes:_degrees",
    "policy.parse_nodes:parse_auto_approvers",
    "policy.parse_nodes:parse_node_attribute",
    "policy.parse_nodes:parse_relays",
    "policy.parse_rules:parse_acl",
    "policy.parse_rules:parse_grant",
    "policy.parse_ssh:parse_ssh_rule",
    "policy.parse_ssh:parse_check_period",
    "policy.parse_ssh:_account",
    "policy.parse_ssh:_accounts",
    "policy.parse_ssh:_environment",
    "policy.posture:Assertion._fits",
    "policy.posture:_about_place",
    "policy.posture:_check_name",
    "policy.posture:_network",
    "policy.posture:_tokens",
    "policy.posture:_value",
    "policy.posture:attributes_of",
    "policy.posture:parse_assertion",
    "policy.posture:version_key",
    "policy.ranges:of_text",
    "policy.roster:advertised",
    "policy.selectors:_group",
    "policy.selectors:check_tag_name",
    "policy.selectors:parse_selector",
    "policy.selectors:_address_or_user",
    "policy.selectors:parse_prefix",
    "policy.selectors:parse_range",
    "policy.selectors:parse_ports",
    "policy.selectors:parse_protocol",
    "policy.selectors:parse_service",
    "policy.selectors:_parse_port_range",
    "policy.selectors:_port",
    "policy.ssh:localpart_of",
)
LIMIT = 256 << 10  # the API takes four times as much; a thousand nodes' filters of it are not this target's
SEEDS = (
    DEFAULT_POLICY.encode(),
    b"""{
      "groups": {"group:g": ["alice", "bob@example.com"]},
      "hosts": {"h": "10.1.2.3", "n": "10.0.0.0/8"},
      "tagOwners": {"tag:a": ["group:g", "autogroup:admin"], "tag:b": ["tag:a"]},
      "acls": [{"action": "accept", "proto": "tcp", "src": ["group:g", "*", "fd7a::/48"], "dst": ["h:22,80-90", "tag:a:*"]}],
      "grants": [{"src": ["alice", "autogroup:member", "group:eng@example.com"], "dst": ["autogroup:self", "ipset:s"], "ip": ["tcp:443", "icmp:*"]},
                 {"src": ["tag:a"], "dst": ["n"], "ip": ["*"], "via": ["tag:b"], "app": {"example.com/cap/x": [{"k": 1}]}}],
      "ipsets": {"ipset:s": ["add 10.0.0.0/8", "remove host:h"]},
      "ssh": [{"action": "check", "checkPeriod": "12h", "src": ["autogroup:member"], "dst": ["autogroup:self", "tag:a"],
               "users": ["autogroup:nonroot", "root", "localpart:*@example.com"], "acceptEnv": ["GIT_*"]}],
      "autoApprovers": {"routes": {"10.0.0.0/8": ["tag:a"]}, "exitNode": ["alice"]},
      "nodeAttrs": [{"target": ["*"], "attr": ["funnel"], "ipPool": ["100.81.0.0/16"]}],
      "postures": {"posture:p": ["node:os == 'linux'"]},
      "tests": [{"src": "alice", "accept": ["10.1.2.3:22"], "deny": ["tag:a:80"], "proto": "tcp"}],
      "sshTests": [{"src": "alice", "dst": ["alice"], "accept": ["root"], "deny": ["bob"], "check": ["x"]}],
      "randomizeClientPort": true, "OneCGNATRoute": "mac-always",
    }""",
    (
        b'{"acls":[{"action":"accept","src":["*"],"dst":["*:*"]}],"ssh":[{"action":"accept","src":["bob"],"dst":["bob"],'
        b'"users":["localpart:*@example.com","root"],"acceptEnv":["A_?"]}],"autoApprovers":{"exitNode":["tag:a"]},'
        b'"tagOwners":{"tag:a":[]},"tests":[{"src":"bob","accept":["alice:1"]}]}'
    ),
    b"""{
      "grants": [{"src": ["100.64.0.1-100.64.0.9", "ipset:s"], "dst": ["h"], "ip": ["*"], "srcPosture": ["posture:p"]}],
      "hosts": {"h": "10.1.2.3"}, "ipsets": {"ipset:s": ["add 10.0.0.0/8", "remove 10.1.0.0/16", "add 10.0.0.1-10.0.0.9"]},
      "postures": {"posture:p": ["node:os == 'macos'", "node:tsVersion >= '1.60'", "custom:tier IN ['a', 2, true]"]},
      "nodeAttrs": [{"target": ["*"], "attr": ["funnel"], "app": {"example.com/x": [{"a": 1}]}, "ipPool": ["100.81.0.0/16"]}],
      "derpMap": {"OmitDefaultRegions": true, "Regions": {"1": null, "900": {"RegionID": 900, "RegionCode": "x", "Latitude": 1.5,
        "Longitude": -2e1, "Nodes": [{"HostName": "r", "IPv4": "1.2.3.4", "STUNPort": -1, "DERPPort": 443}]}}},
    }""",
    b"node:tsVersion >= '1.60.2-beta'",
    b'custom:tier NOT IN ["a", -2.5, true]',
    b"custom:owner NOT SET",
    b"ip:address NOT IN ['192.0.2.0/24', '2001:db8::7']",
    b"ip:country == 'DE'",
    b"100.64.0.0-100.64.0.9",
    b"1h30m0.5s",
    b"tcp:80,443-500",
    b"localpart:*@example.com",
)
WORDS = (
    *(b'"acls"', b'"grants"', b'"ssh"', b'"tests"', b'"sshTests"', b'"groups"', b'"hosts"', b'"tagOwners"', b'"ipsets"'),
    *(b'"autoApprovers"', b'"nodeAttrs"', b'"src"', b'"dst"', b'"ip"', b'"app"', b'"via"', b'"proto"', b'"action"'),
    *(b"autogroup:self", b"autogroup:internet", b"autogroup:member", b"autogroup:tagged", b"autogroup:nonroot"),
    *(b"group:", b"tag:", b"host:", b"ipset:", b"localpart:*@", b"posture:", b"10.0.0.0/8", b"*:*", b"65536", b"checkPeriod"),
)  # fmt: skip

_USERS = [make_user(1, "alice", email="alice@example.com"), make_user(2, "bob")]
_NODES = [
    make_node(1, user=1),
    make_node(2, user=2, advertised=("10.0.0.0/8", "0.0.0.0/0"), approved=("10.0.0.0/8", "0.0.0.0/0")),
    make_node(3, tags=("tag:a",)),
]

EDITS = [
    partial(edit.apply, edits=[change])
    for change in (
        edit.AddName("groups", "group:g", "carol"),
        edit.RemoveName("groups", "group:g", "alice"),
        edit.RemoveName("tagOwners", "tag:a", "group:g"),
        edit.SetHost("h", "10.1.2.4"),
        edit.SetHost("n", None),
        edit.AddRule("grants", {"src": ["*"], "dst": ["*"], "ip": ["*"]}),
        edit.RemoveRule("acls", 0),
    )
]


def fuzz(data: bytes) -> None:
    """Parse ``data`` as a policy and, if it is one, ask it everything; and as each of the words in one."""
    text = argument_of(data)
    if len(text) < 200:
        _words(text)
    if len(text) < 5000:
        feed(text, *EDITS)
    found: tuple[Diagnostic, ...] = ()
    document = None
    try:
        document = parse_policy(text)
    except PolicyError as error:
        found = error.diagnostics
    if document is None:
        assert found
        assert all(one.line >= 1 and one.column >= 1 and one.message and one.cure for one in found)
        return
    _ask(Policy.compile(document, _USERS, _NODES))


def _words(text: str) -> None:
    """Readers of words raise the policy's refusal of one; the filter's own ranges a ValueError."""
    feed(text, ranges.of_text, refusal=ValueError)
    feed(
        text,
        parse_check_period,
        selectors.parse_prefix,
        selectors.parse_range,
        _judge,
        selectors.parse_ports,
        selectors.parse_protocol,
        selectors.parse_service,
        selectors.split_target,
        refusal=WordError,
    )


def _judge(text: str) -> None:
    """A posture of this one assertion, and a node that says the same of itself."""
    attributes = attributes_of(
        Hostinfo(OS=text, OSVersion=text, IPNVersion=text), {f"custom:{text}": text, "custom:tier": 2}
    )
    posture = Posture((parse_assertion(text),))
    for said in (text, "192.0.2.7"):
        posture.met_by({"ip:address": said, "ip:country": said})
    assert posture.met_by(attributes) == (not posture.failing(attributes))


def _ask(policy: Policy) -> None:
    policy.warnings()
    with suppress(PolicyError):
        check(policy)
    for node in _NODES:
        policy.filter_rules(node.id)
        policy.ssh_policy(node.id)
        policy.node_attributes(node.id)
        for other in _NODES:
            seen = policy.can_see(other.id, node.id)
            assert seen == (other.id in policy.peers(node.id)) == (node.id in policy.peers(other.id))
            assert seen or other is node or not policy.routes_for(node.id, other.id)
