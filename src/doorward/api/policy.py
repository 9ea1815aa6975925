"""The policy: read it, check a draft, put one in force, and ask what it means."""

from collections.abc import Iterable

import msgspec

from doorward.api import policy_types as types
from doorward.api.access import Permission
from doorward.api.context import Call
from doorward.api.reach import apart, ordinary_nodes
from doorward.api.types import Diagnostic as FaultAnswer
from doorward.api.types import Number
from doorward.asgi import operation
from doorward.errors import BadInput, Conflict, NotFound
from doorward.model import PolicyEntry, PolicyVersion
from doorward.policy import Diagnostic, Policy, PolicyError, parse_policy
from doorward.policy.check import check as run_tests
from doorward.policy.compare import Labels, compare
from doorward.policy.edit import AddName, AddRule, Edit, RemoveName, RemoveRule, SetHost
from doorward.policy.edit import apply as apply_edits
from doorward.policy.textdiff import count_changes, unified
from doorward.tailnet.snapshot import Snapshot
from doorward.tailnet.units import PolicyChanged

# A tailnet with thousands of hosts and groups; the API's other requests are small.
TEXT_LIMIT = 2 * 1024 * 1024


def _compiled(snapshot: Snapshot, draft: types.PolicyDraft) -> Policy:
    """What the draft means for the users and nodes there are. Raises PolicyError; its own tests count."""
    document = parse_policy(draft.text, filename=draft.filename)
    policy = snapshot.compile(document)
    run_tests(policy)
    return policy


def _entry(version: PolicyVersion | PolicyEntry, *, current: bool) -> types.PolicyVersion:
    return types.PolicyVersion(
        id=version.id,
        actor=version.actor,
        created=version.created,
        comment=version.comment,
        added=version.added,
        removed=version.removed,
        size=version.size if isinstance(version, PolicyEntry) else len(version.text),
        current=current,
    )


def _expected(if_match: str | None) -> int | None:
    """The version that an If-Match header names. Raises BadInput."""
    if if_match is None:
        return None
    if not if_match.isascii() or not if_match.isdecimal() or len(if_match) > 18:
        raise BadInput(
            "the entity tag in If-Match is no version of the policy",
            cure="Send back what the ETag header of GET /policy said.",
            place="If-Match",
        )
    return int(if_match)


@operation("GET", "/policy", needs=Permission.READ)
async def get_policy(call: Call) -> types.PolicyText:
    """Show the policy in force, comments and all.

    The ETag header names its version: sent back as If-Match with a change, it keeps two people from overwriting each other.
    """
    now, owner = await call.registry.current_policy(), call.registry.policy_file
    return types.PolicyText(
        text=now.text,
        version=now.id,
        actor=now.actor,
        created=now.created,
        comment=now.comment,
        owner=None if owner is None else str(owner),
    )


@operation(
    "PUT",
    "/policy",
    needs=Permission.POLICY,
    body_limit=TEXT_LIMIT,
    raises=[PolicyError, Conflict, PolicyChanged],
)
async def set_policy(call: Call, body: types.PolicyDraft, if_match: str | None) -> types.PolicyVersion:
    """Put a policy in force. One with any fault is refused as a whole, with every fault's place.

    The text that is in force already makes no new version.
    """
    version = await call.registry.set_policy(
        call.actor, body.text, filename=body.filename, comment=body.comment, expected=_expected(if_match)
    )
    return _entry(version, current=True)


@operation("POST", "/policy/check", needs=Permission.READ, body_limit=TEXT_LIMIT)
async def check_policy(call: Call, body: types.PolicyDraft) -> types.PolicyCheck:
    """Check a draft against the users and nodes there are, its own tests included. Changes nothing."""
    try:
        policy = _compiled(call.snapshot, body)
    except PolicyError as error:
        return types.PolicyCheck(ok=False, diagnostics=_diagnostics(error.diagnostics))
    return types.PolicyCheck(ok=True, warnings=_diagnostics(policy.warnings()))


def _diagnostics(found: Iterable[Diagnostic]) -> tuple[FaultAnswer, ...]:
    return tuple(
        FaultAnswer(line=one.line, column=one.column, message=one.message, cure=one.cure) for one in found
    )


@operation("POST", "/policy/compile", needs=Permission.READ, body_limit=TEXT_LIMIT, raises=[PolicyError])
async def compile_policy(
    call: Call, body: types.PolicyDraft, query: types.CompileFilter
) -> list[types.CompiledNode]:
    """Compile a draft: the packet filter and SSH rules that each node would be sent. Changes nothing."""
    snapshot = call.snapshot
    policy = _compiled(snapshot, body)
    nodes = ordinary_nodes(snapshot) if query.node is None else [snapshot.find_node(query.node)]
    return [
        types.CompiledNode(
            node=node.name, filter=policy.filter_rules(node.id), ssh=policy.ssh_policy(node.id)
        )
        for node in nodes
    ]


@operation("POST", "/policy/diff", needs=Permission.READ, body_limit=TEXT_LIMIT, raises=[PolicyError])
async def diff_policy(call: Call, body: types.PolicyDraft) -> list[types.NodeDiff]:
    """Compare a draft with the policy in force: what each node gives and gets under it, and what no longer. Changes nothing."""
    document = parse_policy(body.text, filename=body.filename)

    def answer(snapshot: Snapshot, before: Policy) -> list[types.NodeDiff]:
        after = snapshot.compile(document)
        run_tests(after)
        found = compare(before, after, _labels(snapshot))
        return [types.NodeDiff(node=one.node, lost=one.lost, gained=one.gained) for one in found]

    return await apart(call.snapshot, answer)


def _labels(snapshot: Snapshot) -> Labels:
    nodes = ordinary_nodes(snapshot)
    return Labels(
        {node.id: node.name for node in nodes},
        {node.id: " ".join(node.tags) or snapshot.owner_name(node) for node in nodes},
    )


@operation("GET", "/policy/history", needs=Permission.READ)
async def list_versions(call: Call, query: types.PolicyVersionFilter) -> list[types.PolicyVersion]:
    """List the versions of the policy, newest first.

    The newest thousand are kept, the largest of them fewer; the audit log names every version for good.
    """
    found = await call.registry.policy_history(query.limit, before=query.before)
    return [_entry(each, current=index == 0 and query.before is None) for index, each in enumerate(found)]


@operation("GET", "/policy/versions/{number}", needs=Permission.READ, raises=[NotFound])
async def get_version(call: Call, number: Number) -> types.PolicyVersionText:
    """Show a version of the policy."""
    version, now = await call.registry.policy_version(number), await call.registry.current_policy()
    entry = _entry(version, current=version.id == now.id)
    return types.PolicyVersionText(**msgspec.structs.asdict(entry), text=version.text)


@operation("GET", "/policy/versions/{number}/diff", needs=Permission.READ, raises=[NotFound])
async def diff_versions(call: Call, number: Number, query: types.TextDiffFilter) -> types.TextDiff:
    """Compare the texts of two versions."""
    new = await call.registry.policy_version(number)
    if query.against is None:
        old = await call.registry.policy_before(number)
    else:
        old = await call.registry.policy_version(query.against)
    before, name = ("", "nothing") if old is None else (old.text, f"version {old.id}")
    added, removed = count_changes(before, new.text)
    return types.TextDiff(
        old=None if old is None else old.id,
        new=new.id,
        added=added,
        removed=removed,
        diff=unified(before, new.text, name, f"version {new.id}"),
    )


@operation(
    "POST",
    "/policy/rollback",
    needs=Permission.POLICY,
    raises=[PolicyError, Conflict, NotFound, PolicyChanged],
)
async def rollback_policy(call: Call, body: types.Rollback, if_match: str | None) -> types.PolicyVersion:
    """Put an earlier version in force again, as a new version. It is checked like any other."""
    version = await call.registry.rollback_policy(
        call.actor, body.version, comment=body.comment, expected=_expected(if_match)
    )
    return _entry(version, current=True)


@operation(
    "POST",
    "/policy/edit",
    needs=Permission.POLICY,
    body_limit=TEXT_LIMIT,
    raises=[PolicyError, Conflict, NotFound, PolicyChanged],
)
async def edit_policy(call: Call, body: types.PolicyEdits, if_match: str | None) -> types.PolicyEdited:
    """Change parts of the policy: comments, layout and everything else stay as they are written.

    The changed policy is checked like any other. Without If-Match, a change that somebody else makes meanwhile is kept, and
    the edits are made on top of it.
    """
    edits = [_edit(each) for each in body.edits]
    expected = _expected(if_match)
    if not body.dry_run:
        before, after = await call.registry.edit_policy(
            call.actor, edits, comment=body.comment, expected=expected
        )
        return _edited(before, after.text, version=after.id, name=f"version {after.id}")
    now = await call.registry.current_policy()
    if expected is not None and expected != now.id:
        raise PolicyChanged(expected, now)
    text = apply_edits(now.text, edits)
    _compiled(call.snapshot, types.PolicyDraft(text=text, filename="the changed policy"))
    return _edited(now, text, version=now.id, name="changed")


def _edited(before: PolicyVersion, text: str, *, version: int, name: str) -> types.PolicyEdited:
    diff = unified(before.text, text, f"version {before.id}", name)
    return types.PolicyEdited(version=version, changed=text != before.text, diff=diff)


def _edit(given: types.PolicyEdit) -> Edit:
    match given:
        case types.AddName():
            return AddName(given.section, given.key, given.name)
        case types.RemoveName():
            return RemoveName(given.section, given.key, given.name)
        case types.SetHost():
            return SetHost(given.name, given.address)
        case types.AddRule():
            return AddRule(given.section, given.rule)
        case types.RemoveRule():
            return RemoveRule(given.section, given.number)


OPERATIONS = (
    get_policy,
    set_policy,
    check_policy,
    compile_policy,
    diff_policy,
    list_versions,
    get_version,
    diff_versions,
    rollback_policy,
    edit_policy,
)
