"""The audit log: read it, check that nobody has touched it, and take what proves that elsewhere."""

from doorward.api import audit_types as types
from doorward.api.access import Permission
from doorward.api.context import Call
from doorward.asgi import operation
from doorward.errors import BadInput, NotFound
from doorward.model import AuditEvent
from doorward.protocol.auditlog import Checkpoint, Verdict
from doorward.store import checkpoints


def answer(event: AuditEvent) -> types.Event:
    """An event as the API, exports and sinks show it."""
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
    subjects = []
    if query.user is not None:
        subjects.append(f"user:{query.user.strip().lower()}")
    if query.node is not None:
        subjects.append(f"node:{_stable_id(call, query.node)}")
    filters = {name: getattr(query, name) for name in query.__struct_fields__ if name not in {"user", "node"}}
    return [answer(event) for event in await call.registry.audit(subjects=subjects, **filters)]


def _stable_id(call: Call, text: str) -> str:
    try:
        return call.registry.snapshot.find_node(text).stable_id
    except NotFound:
        return text.strip()  # of a deleted node only this is left


@operation("GET", "/audit/verify", needs=Permission.READ)
async def verify_events(call: Call) -> types.AuditVerdict:
    """Check the chain of hashes from the first event to the last, and every checkpoint that there is."""
    return judged(await call.context.verify_audit())


def judged(verdict: Verdict) -> types.AuditVerdict:
    """What was found, as the API says it."""
    return types.AuditVerdict(
        ok=not verdict.problems,
        first_bad=verdict.problems[0].seq if verdict.problems else None,
        problems=tuple(
            types.AuditProblem(seq=one.seq, fault=one.fault.value, text=one.text) for one in verdict.problems
        ),
        events=verdict.events,
        last=verdict.last,
        digest=verdict.digest.hex(),
        confirmed=verdict.confirmed,
        keys=tuple(map(str, verdict.keys)),
    )


@operation("GET", "/audit/checkpoints", needs=Permission.READ)
async def list_checkpoints(call: Call, query: types.CheckpointFilter) -> list[types.AuditCheckpoint]:
    """List what was signed of the log, oldest first. Kept elsewhere, it shows later what was cut off or sealed anew."""
    database = call.registry.writer.database
    found = await database.read(checkpoints.load, after=query.after, limit=query.limit)
    return [_signed(checkpoint) for checkpoint in found]


def _signed(checkpoint: Checkpoint) -> types.AuditCheckpoint:
    return types.AuditCheckpoint(
        checkpoint=checkpoint.seq,
        digest=checkpoint.digest.hex(),
        at=checkpoint.at,
        key=str(checkpoint.key),
        signature=checkpoint.signature.hex(),
    )


@operation("GET", "/audit/key", needs=Permission.READ)
async def show_key(call: Call) -> types.AuditKey:
    """Show the public key of this doorward's checkpoints."""
    return types.AuditKey(key=str(call.context.audit_key))


OPERATIONS = (list_events, verify_events, list_checkpoints, show_key)
