"""Pairs of nodes that are kept apart: list, cut, lift."""

from datetime import timedelta

from doorward.api import types
from doorward.api.access import Permission
from doorward.api.context import Call
from doorward.api.nodes import find_device
from doorward.asgi import operation
from doorward.errors import BadInput, Conflict, NotFound
from doorward.model import Cut
from doorward.tailnet.snapshot import Snapshot


def _answer(snapshot: Snapshot, cut: Cut) -> types.Cut:
    first, second = (snapshot.nodes.get(node_id) for node_id in cut.pair)
    return types.Cut(
        id=cut.id,
        nodes=(
            "(deleted)" if first is None else first.name,
            "(deleted)" if second is None else second.name,
        ),
        created=cut.created,
        created_by=cut.created_by,
        expires=cut.expires,
        comment=cut.comment,
    )


@operation("GET", "/cuts", needs=Permission.READ)
async def list_cuts(call: Call) -> list[types.Cut]:
    """List the pairs of nodes that are kept apart, oldest first."""
    snapshot = call.snapshot
    return [_answer(snapshot, snapshot.cuts[number]) for number in sorted(snapshot.cuts)]


@operation("PUT", "/nodes/{node}/cuts/{other}", needs=Permission.CUT, raises=[BadInput, NotFound, Conflict])
async def cut_nodes(call: Call, node: str, other: str, body: types.NewCut) -> types.Cut:
    """Keep two nodes apart at once, with all that is open between them. Where they are already, its end is changed."""
    one, another = find_device(call, node), find_device(call, other)
    lasts = None if body.expires_in is None else timedelta(seconds=body.expires_in)
    cut = await call.registry.access.cut(call.actor, one.id, another.id, lasts=lasts, comment=body.comment)
    return _answer(call.snapshot, cut)


@operation("DELETE", "/nodes/{node}/cuts/{other}", needs=Permission.CUT, raises=[NotFound, Conflict])
async def lift_cut(call: Call, node: str, other: str) -> types.Cut:
    """Let two nodes see each other again, as the policy says."""
    one, another = find_device(call, node), find_device(call, other)
    return _answer(call.snapshot, await call.registry.access.lift(call.actor, one.id, another.id))


OPERATIONS = (list_cuts, cut_nodes, lift_cut)
