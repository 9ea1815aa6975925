"""Checks of ssh: list those that wait, approve, deny."""

from doorward.api import types
from doorward.api.access import Permission
from doorward.api.context import Call
from doorward.asgi import operation
from doorward.errors import Conflict, NotFound
from doorward.model import Check, Node
from doorward.tailnet.snapshot import Snapshot


def _answer(snapshot: Snapshot, check: Check) -> types.Check:
    source, target = snapshot.nodes.get(check.source_id), snapshot.nodes.get(check.target_id)
    return types.Check(
        id=check.id,
        user="" if source is None else snapshot.owner_name(source),
        source=_name(source),
        target=_name(target),
        account=check.account,
        since=check.created,
        code=check.code,
        rule=check.rule,
        approvers=check.approvers,
        expires=check.expires,
        state=check.state.value,
        until=check.until,
    )


def _name(node: Node | None) -> str:
    return "(deleted)" if node is None else node.name


@operation("GET", "/ssh/checks", needs=Permission.READ)
async def list_checks(call: Call) -> list[types.Check]:
    """List the ssh that wait for approval, oldest first."""
    return [_answer(call.snapshot, check) for check in call.registry.checks.waiting()]


@operation("POST", "/ssh/checks/{number}/approve", needs=Permission.CHECKS, raises=[NotFound, Conflict])
async def approve_check(call: Call, number: types.Number) -> types.Check:
    """Let a waiting ssh go on. It still ends where the policy has changed meanwhile."""
    return _answer(call.snapshot, await call.registry.checks.decide(call.actor, number, approve=True))


@operation("POST", "/ssh/checks/{number}/deny", needs=Permission.CHECKS, raises=[NotFound, Conflict])
async def deny_check(call: Call, number: types.Number) -> types.Check:
    """Refuse a waiting ssh."""
    return _answer(call.snapshot, await call.registry.checks.decide(call.actor, number, approve=False))


OPERATIONS = (list_checks, approve_check, deny_check)
