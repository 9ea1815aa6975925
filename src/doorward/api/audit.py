"""The audit log: read it, and check that nobody has touched it."""

from doorward.api import types
from doorward.api.access import Permission
from doorward.api.context import Call
from doorward.asgi import operation
from doorward.errors import BadInput
from doorward.model import AuditEvent


def _answer(event: AuditEvent) -> types.Event:
    return types.Event(
        seq=event.seq,
        at=event.at,
        actor=event.actor,
        action=event.action,
        target=event.target,
        details=event.details,
        previous=event.previous.hex(),
        digest=event.digest.hex(),
    )


@operation("GET", "/audit", needs=Permission.READ, raises=[BadInput])
async def list_events(call: Call, query: types.EventFilter) -> list[types.Event]:
    """List events, newest first; oldest first where `after` is given.

    The number of the last event of one page, as `before` or `after`, asks for the next.
    """
    if query.before is not None and query.after is not None:
        raise BadInput("`before` and `after` are two ways to turn pages", cure="Give one of them.")
    filters = {name: getattr(query, name) for name in query.__struct_fields__}
    return [_answer(event) for event in await call.registry.audit(**filters)]


@operation("GET", "/audit/verify", needs=Permission.READ)
async def verify_events(call: Call) -> types.AuditVerdict:
    """Check the chain of hashes from the first event to the last."""
    first_bad = await call.registry.verify_audit()
    return types.AuditVerdict(ok=first_bad is None, first_bad=first_bad)


OPERATIONS = (list_events, verify_events)
