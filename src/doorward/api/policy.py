"""The policy: read it, check a draft, put one in force, and ask what it means."""

from collections.abc import Iterable

from doorward.api import types
from doorward.api.access import Permission
from doorward.api.context import Call
from doorward.api.reach import compare, parse_goal, ways_to
from doorward.asgi import operation
from doorward.errors import BadInput, Conflict, NotFound
from doorward.model import Node, PolicyVersion
from doorward.policy import Diagnostic, Policy, PolicyError, parse_policy
from doorward.policy.check import check as run_tests
from doorward.tailnet.snapshot import Snapshot

# A tailnet with thousands of hosts and groups; the API's other requests are small.
TEXT_LIMIT = 2 * 1024 * 1024


def _compiled(snapshot: Snapshot, draft: types.PolicyDraft) -> Policy:
    """What the draft means for the users and nodes there are. Raises PolicyError; its own tests count."""
    document = parse_policy(draft.text, filename=draft.filename)
    policy = Policy.compile(document, snapshot.users.values(), snapshot.nodes.values())
    run_tests(policy)
    return policy


def _version(version: PolicyVersion, *, current: bool) -> types.PolicyVersion:
    return types.PolicyVersion(
        id=version.id,
        actor=version.actor,
        created=version.created,
        size=len(version.text.encode()),
        current=current,
    )


@operation("GET", "/policy", needs=Permission.READ)
async def get_policy(call: Call) -> types.PolicyText:
    """Show the policy in force, comments and all."""
    return types.PolicyText(text=call.registry.policy_text)


@operation("PUT", "/policy", needs=Permission.POLICY, body_limit=TEXT_LIMIT, raises=[PolicyError, Conflict])
async def set_policy(call: Call, body: types.PolicyDraft) -> types.PolicyVersion:
    """Put a policy in force. One with any fault is refused as a whole, with every fault's place."""
    version = await call.registry.set_policy(call.actor, body.text, filename=body.filename)
    return _version(version, current=True)


@operation("POST", "/policy/check", needs=Permission.READ, body_limit=TEXT_LIMIT)
async def check_policy(call: Call, body: types.PolicyDraft) -> types.PolicyCheck:
    """Check a draft against the users and nodes there are, its own tests included. Changes nothing."""
    try:
        policy = _compiled(call.snapshot, body)
    except PolicyError as error:
        return types.PolicyCheck(ok=False, diagnostics=_diagnostics(error.diagnostics))
    return types.PolicyCheck(ok=True, warnings=_diagnostics(policy.warnings()))


def _diagnostics(found: Iterable[Diagnostic]) -> tuple[types.Diagnostic, ...]:
    return tuple(
        types.Diagnostic(line=one.line, column=one.column, message=one.message, cure=one.cure)
        for one in found
    )


@operation("POST", "/policy/compile", needs=Permission.READ, body_limit=TEXT_LIMIT, raises=[PolicyError])
async def compile_policy(
    call: Call, body: types.PolicyDraft, query: types.CompileFilter
) -> list[types.CompiledNode]:
    """Compile a draft: the packet filter and SSH rules that each node would be sent. Changes nothing."""
    snapshot = call.snapshot
    policy = _compiled(snapshot, body)
    nodes = _ordinary_nodes(snapshot) if query.node is None else [snapshot.find_node(query.node)]
    return [
        types.CompiledNode(
            node=node.name, filter=policy.filter_rules(node.id), ssh=policy.ssh_policy(node.id)
        )
        for node in nodes
    ]


@operation("POST", "/policy/diff", needs=Permission.READ, body_limit=TEXT_LIMIT, raises=[PolicyError])
async def diff_policy(call: Call, body: types.PolicyDraft) -> list[types.NodeDiff]:
    """Compare a draft with the policy in force: what each node would let in, and what no longer. Changes nothing."""
    snapshot = call.snapshot
    return compare(snapshot, _compiled(snapshot, body))


@operation("GET", "/policy/reach", needs=Permission.READ, raises=[BadInput, NotFound])
async def get_reach(call: Call, query: types.ReachFilter) -> types.Reach:
    """Say whether a node, or any node of a person, reaches a destination, and by which rule."""
    snapshot = call.snapshot
    person = snapshot.user_by_name(query.source)
    if person is None:
        sources = [snapshot.find_node(query.source)]
    else:
        sources = [node for node in _ordinary_nodes(snapshot) if not node.tags and node.user_id == person.id]
    return _reach(snapshot, query.destination, query.protocol, sources)


@operation("GET", "/policy/who-can", needs=Permission.READ, raises=[BadInput, NotFound])
async def get_who_can(call: Call, query: types.WhoCanFilter) -> types.Reach:
    """List every node that reaches a destination, and by which rule."""
    snapshot = call.snapshot
    return _reach(snapshot, query.destination, query.protocol, _ordinary_nodes(snapshot))


def _ordinary_nodes(snapshot: Snapshot) -> list[Node]:
    """All nodes but doorward's own, by name."""
    nodes = (node for node in snapshot.nodes.values() if not node.system)
    return sorted(nodes, key=lambda node: node.name)


def _reach(snapshot: Snapshot, destination: str, protocol: str, sources: Iterable[Node]) -> types.Reach:
    ways = ways_to(snapshot, parse_goal(snapshot, destination, protocol), sources)
    return types.Reach(allowed=bool(ways), ways=ways)


@operation("GET", "/policy/history", needs=Permission.READ)
async def list_versions(call: Call, query: types.PolicyVersionFilter) -> list[types.PolicyVersion]:
    """List the versions of the policy, newest first."""
    return _versions(await call.registry.policy_history(query.limit))


def _versions(found: Iterable[PolicyVersion]) -> list[types.PolicyVersion]:
    return [_version(version, current=index == 0) for index, version in enumerate(found)]


@operation("POST", "/policy/rollback", needs=Permission.POLICY, raises=[PolicyError, Conflict])
async def rollback_policy(call: Call, body: types.Rollback) -> types.PolicyVersion:
    """Put an earlier version in force again, as a new version."""
    wanted = body.version
    if wanted is None:
        found = await call.registry.policy_history(2)
        if len(found) < 2:
            raise Conflict("there is no earlier version to go back to")
        wanted = found[1].id
    return _version(await call.registry.rollback_policy(call.actor, wanted), current=True)


OPERATIONS = (
    get_policy,
    set_policy,
    check_policy,
    compile_policy,
    diff_policy,
    get_reach,
    get_who_can,
    list_versions,
    rollback_policy,
)
