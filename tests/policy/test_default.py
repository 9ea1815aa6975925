from tests.support.policy import arrows, make_node, make_user

from doorward.policy import DEFAULT_POLICY, Policy, parse_policy
from doorward.protocol import hujson

USERS = [make_user(1, "alice"), make_user(2, "bob")]
NODES = [
    make_node(1, user=1),
    make_node(2, user=1),
    make_node(3, user=2),
    make_node(4, user=1, tags=("tag:server",)),
]


def test_people_reach_and_log_in_to_their_own_devices_and_nothing_else() -> None:
    policy = Policy.compile(parse_policy(DEFAULT_POLICY), USERS, NODES)
    assert policy.peers(1) == {2}
    assert policy.peers(3) == frozenset()
    assert policy.peers(4) == frozenset()
    own = "100.64.0.1 100.64.0.2 fd7a:115c:a1e0::1 fd7a:115c:a1e0::2"
    assert arrows(policy.filter_rules(1)) == [f"{own} -> 100.64.0.1:* fd7a:115c:a1e0::1:*"]
    assert policy.filter_rules(4) == []
    (rule,) = policy.ssh_policy(1).rules
    assert rule.sshUsers == {"root": "root", "*": "="}
    assert [principal.nodeIP for principal in rule.principals] == own.split()
    assert rule.action.accept is True
    assert policy.ssh_policy(4).rules == []
    assert policy.warnings() == []


def test_it_explains_itself() -> None:
    syntax = hujson.parse(DEFAULT_POLICY)
    assert isinstance(syntax, hujson.Object)
    for member in syntax.members:
        assert hujson.comments(member.name.before)
    # The rules that its comments propose are rules.
    for line in DEFAULT_POLICY.splitlines():
        if "{" in line and line.strip().startswith("//   {"):
            rule = line.strip().removeprefix("//").partition("},")[0] + "}"
            parse_policy(
                '{"grants": [' + rule + '], "tagOwners": {"tag:server": []}, "groups": {"group:dev": []}}'
            )
