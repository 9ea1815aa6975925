import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fuzz.targets import policy as fuzz_target

from doorward.policy import PolicyError, parse_policy
from doorward.policy.document import NO_RULES
from doorward.policy.reader import MAX_FAULTS


def _refusals(text: str) -> list[str]:
    with pytest.raises(PolicyError) as raised:
        parse_policy(text, filename="f")
    assert all(one.cure for one in raised.value.diagnostics)
    return str(raised.value).splitlines()


def test_reports_everything_that_is_wrong_in_the_order_of_the_file() -> None:
    text = """{
  "gruops": {},
  "acls": [
    {"action": "deny", "src": ["tag:x"], "dst": ["*"]},
    {"action": "accept", "src": ["*"], "dst": ["10.0.0.1/8:22"]},
  ],
  "tagOwners": {"tag:1": [], "tag:srv": []},
}"""
    assert _refusals(text) == [
        'f:2:3: unknown key "gruops" in the policy',
        'f:4:16: "deny" is not a valid action',
        'f:4:32: src=tag not found: "tag:x"',
        'f:4:50: dst "*" has no ports',
        'f:5:48: "10.0.0.1/8" has bits set after its prefix length',
        "f:7:26: tagOwners[\"tag:1\"]: tag names must start with a letter, after 'tag:'",
    ]


def test_the_cure_names_the_closest_key_and_the_closest_name() -> None:
    with pytest.raises(PolicyError) as raised:
        parse_policy(
            '{"grant": [], "groups": {"group:dev": []},'
            ' "grants": [{"src": ["group:deb"], "dst": ["*"], "ip": ["*"]}]}'
        )
    assert [one.cure for one in raised.value.diagnostics] == [
        'Did you mean "grants"?',
        'Did you mean "group:dev"?',
    ]


def test_a_text_that_is_no_hujson_is_refused_at_its_place() -> None:
    assert _refusals('{\n "acls": [') == ["f:2:11: the end of the text where a value was expected"]


@pytest.mark.parametrize("text", ["[]", "1", '"acls"'])
def test_a_policy_is_an_object(text: str) -> None:
    assert "must be an object" in _refusals(text)[0]


def test_keys_in_other_cases_and_the_old_names_are_understood() -> None:
    document = parse_policy(
        '{"ACLs": [{"Action": "accept", "Users": ["*"], "Ports": ["*:22"]}], "TagOwners": {"tag:a": ["x"]}}'
    )
    assert document.rules[0].origin == "acls[0]"
    assert document.rules[0].flows[0].ports[0].First == 22
    assert set(document.tag_owners) == {"tag:a"}


def test_one_key_in_two_cases_is_refused() -> None:
    assert "occurs twice" in _refusals('{"acls": [], "ACLs": []}')[0]


def test_what_is_not_supported_is_refused_and_never_ignored() -> None:
    assert "not supported yet" in _refusals('{"extraDNSRecords": [{"name": "a"}]}')[0]


def test_what_is_not_supported_may_be_there_when_it_says_nothing() -> None:
    parse_policy('{"ipsets": {}, "postures": null, "extraDNSRecords": [], "grants": []}')


def test_after_two_hundred_faults_reading_ends() -> None:
    words = ", ".join(f'"tag:t{number}"' for number in range(100_000))
    with pytest.raises(PolicyError) as raised:
        parse_policy(
            '{"grants": [{"src": [' + words[:900_000].rpartition(",")[0] + '], "dst": ["*"], "ip": ["*"]}]}'
        )
    assert len(raised.value.diagnostics) == MAX_FAULTS + 1
    assert raised.value.diagnostics[-1].message == "there are more faults than are shown"


def test_a_rule_may_not_stand_for_more_than_a_filter_can_hold() -> None:
    ports = [str(port) for port in range(1, 1001)]
    grant = {"src": ["*"], "dst": [f"10.{n}.0.0/16" for n in range(100)], "ip": ports}
    (refusal,) = _refusals(json.dumps({"grants": [grant]}))
    assert "grants[0] comes to 100000 destinations with ports; the limit is 50000" in refusal


def test_a_posture_by_default_stands_in_every_rule_without_one_of_its_own() -> None:
    document = parse_policy(
        json.dumps(
            {
                "postures": {"posture:a": ["node:os == 'linux'"], "posture:b": ["custom:b IS SET"]},
                "defaultSrcPosture": ["posture:a"],
                "grants": [
                    {"src": ["*"], "dst": ["*"], "ip": ["*"]},
                    {"src": ["*"], "dst": ["*"], "ip": ["*"], "srcPosture": ["posture:b"]},
                    {"src": ["*"], "dst": ["*"], "ip": ["*"], "srcPosture": []},
                ],
                "ssh": [{"action": "accept", "src": ["ann"], "dst": ["ann"], "users": ["root"]}],
            }
        )
    )
    named = [[one.value for one in rule.postures] for rule in [*document.rules]]
    named += [[one.value for one in rule.postures] for rule in document.ssh]
    assert named == [["posture:a"], ["posture:b"], [], ["posture:a"]]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"OneCGNATRoute": "always"}', '"always" is not a value of "OneCGNATRoute"'),
        ('{"defaultSrcPosture": ["posture:x"]}', 'posture not found: "posture:x"'),
        (
            '{"tests": [{"src": "a", "srcPostureAttrs": {"node:os": []}}]}',
            "must be a string, a number, true or false",
        ),
    ],
)
def test_small_sections_are_refused_with_a_reason(text: str, words: str) -> None:
    assert any(words in one for one in _refusals(text))


def test_small_sections() -> None:
    document = parse_policy('{"OneCGNATRoute": "mac-never", "disableIPv4": true, "grants": []}')
    assert document.one_cgnat_route is False
    assert document.disable_ipv4
    assert parse_policy('{"OneCGNATRoute": ""}').one_cgnat_route is None


def test_a_file_without_rules_allows_everything_and_an_empty_list_nothing() -> None:
    assert [rule.origin for rule in parse_policy("{}").rules] == [NO_RULES]
    assert parse_policy('{"grants": []}').rules == ()
    assert parse_policy('{"acls": []}').rules == ()


def test_grants_come_before_acls() -> None:
    document = parse_policy(
        '{"acls": [{"action": "accept", "src": ["*"], "dst": ["*:*"]}],'
        ' "grants": [{"src": ["*"], "dst": ["*"], "ip": ["*"]}]}'
    )
    assert [rule.origin for rule in document.rules] == ["grants[0]", "acls[0]"]


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ('{"dev": []}', "group names must start with 'group:'"),
        ('{"group:a": ["group:b"], "group:b": []}', "group members cannot be recursive"),
        ('{"group:a": ["*"]}', "is not a user"),
        ('{"group:a": ["tag:x"]}', "tag not found"),
        ('{"group:a": [1]}', "must be a string"),
        ('{"group:a": "alice"}', "must be a list"),
    ],
)
def test_groups_hold_users(groups: str, words: str) -> None:
    assert words in _refusals('{"grants": [], "groups": ' + groups + "}")[0]


def test_hosts_are_names_of_addresses() -> None:
    document = parse_policy('{"grants": [], "hosts": {"db": "100.64.0.9", "lan": "10.0.0.0/8"}}')
    assert {name: str(prefix) for name, prefix in document.hosts.items()} == {
        "db": "100.64.0.9/32",
        "lan": "10.0.0.0/8",
    }
    assert "invalid address" in _refusals('{"hosts": {"db": "nowhere"}}')[0]
    assert "not a name for a host" in _refusals('{"hosts": {"tag:db": "100.64.0.9"}}')[0]


def test_auto_approvers_and_attributes_are_read() -> None:
    document = parse_policy(
        '{"grants": [], "tagOwners": {"tag:r": []}, "randomizeClientPort": true,'
        ' "autoApprovers": {"routes": {"10.0.0.0/8": ["tag:r"]}, "exitNode": ["alice"]},'
        ' "nodeAttrs": [{"target": ["tag:r", "100.64.0.1"], "attr": ["funnel"]}]}'
    )
    assert [str(prefix) for prefix, _ in document.auto_approvers.routes] == ["10.0.0.0/8"]
    assert [one.value for one in document.auto_approvers.exit_node] == ["alice"]
    assert document.node_attributes[0].names == ("funnel",)
    assert document.randomize_client_port
    assert (
        "cannot be a target" in _refusals('{"nodeAttrs": [{"target": ["autogroup:self"], "attr": ["a"]}]}')[0]
    )
    assert "cannot be an owner" in _refusals('{"tagOwners": {"tag:a": ["*"]}}')[0]


def test_tests_are_kept_as_written_with_their_places() -> None:
    document = parse_policy(
        '{"grants": [],\n "tests": [{"src": "a", "accept": ["b:1"], "proto": "udp"}],\n'
        ' "sshTests": [{"src": "a", "dst": ["b"], "check": ["root"]}]}'
    )
    assert document.tests[0].accept[0].value == "b:1"
    assert document.tests[0].accept[0].place.line == 2
    assert document.ssh_tests[0].check[0].value == "root"


_WORDS = st.sampled_from(
    [
        "*",
        "alice",
        "bob@",
        "alice@example.com",
        "tag:a",
        "tag:",
        "group:g",
        "autogroup:member",
        "autogroup:self",
        "autogroup:internet",
        "h",
        "10.0.0.0/8",
        "fd00::/8",
        "100.64.0.1",
        "user:*@example.com",
        "%",
        "a:b",
        "",
    ]
)
_PORTS = st.sampled_from(["*", "22", "1-2", "0", "x", "tcp:80", "icmp:*", "1,2", "udp:1-65536", ""])


@st.composite
def _policies(draw: st.DrawFn) -> str:
    words = st.lists(_WORDS, max_size=3)
    acl = st.fixed_dictionaries(
        {"action": st.sampled_from(["accept", "check"]), "src": words},
        optional={"dst": st.lists(st.builds("{}:{}".format, _WORDS, _PORTS), max_size=3), "proto": _PORTS},
    )
    grant = st.fixed_dictionaries(
        {"src": words, "dst": words},
        optional={
            "ip": st.lists(_PORTS, max_size=2),
            "via": words,
            "app": st.just({"example.com/cap/x": [{"a": 1}]}),
        },
    )
    ssh = st.fixed_dictionaries(
        {"action": st.sampled_from(["accept", "check"]), "src": words, "dst": words},
        optional={"users": words, "checkPeriod": st.sampled_from(["1h", "-1m", "always", "1" * 40 + "h"])},
    )
    policy = st.fixed_dictionaries(
        {"groups": st.just({"group:g": ["alice"]}), "tagOwners": st.just({"tag:a": ["bob"]})},
        optional={
            "hosts": st.just({"h": "100.64.0.2"}),
            "acls": st.lists(acl, max_size=2),
            "grants": st.lists(grant, max_size=2),
            "ssh": st.lists(ssh, max_size=2),
            "nodeAttrs": st.lists(st.fixed_dictionaries({"target": words, "attr": words}), max_size=1),
        },
    )
    return json.dumps(draw(policy))


@settings(deadline=None)  # the machine may be busy
@given(_policies())
def test_a_policy_is_refused_in_its_places_or_compiles_and_answers(text: str) -> None:
    fuzz_target.fuzz(text.encode())


@settings(deadline=None)  # the machine may be busy
@given(st.binary(max_size=60))
def test_any_bytes_are_refused_or_compile(data: bytes) -> None:
    fuzz_target.fuzz(data)
