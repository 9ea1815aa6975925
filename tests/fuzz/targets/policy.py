"""Policy files: refused with every diagnostic in its place, or compiled and asked."""

from contextlib import suppress

from tests.support.policy import make_node, make_user

from doorward.policy import Diagnostic, Policy, PolicyError, parse_policy
from doorward.policy.check import check

_USERS = [make_user(1, "alice", email="alice@example.com"), make_user(2, "bob")]
_NODES = [
    make_node(1, user=1),
    make_node(2, user=2, advertised=("10.0.0.0/8", "0.0.0.0/0"), approved=("10.0.0.0/8", "0.0.0.0/0")),
    make_node(3, tags=("tag:a",)),
]


def fuzz(data: bytes) -> None:
    """Parse ``data`` as a policy and, if it is one, ask it everything."""
    found: tuple[Diagnostic, ...] = ()
    document = None
    try:
        document = parse_policy(data.decode("utf-8", "surrogateescape"))
    except PolicyError as error:
        found = error.diagnostics
    if document is None:
        assert found
        assert all(one.line >= 1 and one.column >= 1 and one.message and one.cure for one in found)
        return
    _ask(Policy.compile(document, _USERS, _NODES))


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
