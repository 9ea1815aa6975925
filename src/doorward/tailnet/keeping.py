"""What falls due is done: one task that sleeps until then, and looks every second anyway.

Deadlines are found by ``deadlines``; here is what each of them is about. Where several processes serve, all of them get here: what
has to happen once is decided in its transaction, and the others find that it is done.
"""

import asyncio

import msgspec

from doorward.errors import DoorwardError
from doorward.tailnet import attributes, units
from doorward.tailnet.access import Access
from doorward.tailnet.checks import Checks
from doorward.tailnet.deadlines import Due
from doorward.tailnet.writer import Writer
from doorward.telemetry import log

LOOK = 1.0  # seconds between two looks at what has fallen due, where nothing is known to fall due earlier
_BREATH = 0.05  # seconds between two looks at least, however much falls due

_log = log("tailnet")


async def keep_deadlines(writer: Writer, checks: Checks, access: Access) -> None:
    """Do what falls due, until cancelled."""
    now = writer.now()
    while True:
        soon = min(filter(None, (writer.deadlines.next(), access.next_end())), default=None)
        left = LOOK if soon is None else (soon - writer.now()).total_seconds()
        await asyncio.sleep(min(LOOK, max(_BREATH, left)))
        before, now = now, writer.now()
        checks.look_at_clock(now)
        try:
            await access.end_over(now)
        except DoorwardError as error:  # tried again at the next look
            _log.warning("a cut could not be lifted", reason=error.message)
        overdue = writer.deadlines.due(now, writer.snapshot.nodes)
        if now < before:  # the clock was set back: what has been called over falls due again
            for node in writer.snapshot.nodes.values():
                writer.deadlines.add(node)
        for node_id, due in overdue:
            try:
                await _do(writer, node_id, due)
            except Exception as error:  # noqa: BLE001 - one node's trouble must not stop the rest
                _log.warning("a deadline could not be kept", node=node_id, reason=str(error))
                _remember(writer, node_id)  # tried again at the next look


async def _do(writer: Writer, node_id: int, due: Due) -> None:
    if due is Due.REMOVE:
        await _remove_away(writer, node_id)
    elif due is Due.ATTRIBUTE:
        await writer.apply(attributes.end_attributes, node_id, writer.now())
    else:
        _announce_expiry(writer, node_id)


async def _remove_away(writer: Writer, node_id: int) -> None:
    if writer.process is None:
        await writer.apply(units.delete_node, "system", node_id, units.AWAY, writer.now())
        return
    # Every process gets here: the first removes it, and the others find that it is gone.
    grace = writer.snapshot.settings.ephemeral_grace
    await writer.apply(units.remove_away, node_id, grace, writer.now())
    _remember(writer, node_id)


def _remember(writer: Writer, node_id: int) -> None:
    if (node := writer.snapshot.nodes.get(node_id)) is not None:
        writer.deadlines.add(node)


def _announce_expiry(writer: Writer, node_id: int) -> None:
    """Clients judge expiry by their own clock; those who watch the snapshot (the relay) are told here."""
    node = writer.snapshot.nodes.get(node_id)
    if node is not None:
        _log.info("node key expired", node=node.stable_id, name=node.name)
        writer.observe(msgspec.structs.replace(node))
