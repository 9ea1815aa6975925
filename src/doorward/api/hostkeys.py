"""The host keys of machines that publish none, as an administrator pins them for terminals in the browser."""

from doorward.api import types
from doorward.api.access import Permission
from doorward.api.context import Call
from doorward.api.nodes import find_device
from doorward.asgi import operation
from doorward.errors import BadInput, Conflict, NotFound
from doorward.model import HostKey, Node
from doorward.protocol.hostkeys import fingerprint
from doorward.tailnet import hostkeys


def _answer(node: Node, pinned: tuple[HostKey, ...]) -> types.HostKeys:
    return types.HostKeys(
        node=node.name,
        published=tuple(node.observed.hostinfo.sshHostKeys or ()),
        pinned=tuple(
            types.HostKey(key=one.key, fingerprint=fingerprint(one.key), actor=one.actor, created=one.created)
            for one in pinned
        ),
    )


@operation("GET", "/nodes/{node}/host-keys", needs=Permission.READ, raises=[NotFound])
async def get_host_keys(call: Call, node: str) -> types.HostKeys:
    """Show the host keys of a machine: those that it publishes, and those that are pinned for it."""
    found = call.snapshot.find_node(node)
    return _answer(found, await hostkeys.pinned(call.registry.writer.database, found.id))


@operation("POST", "/nodes/{node}/host-keys", needs=Permission.NODES, raises=[BadInput, NotFound, Conflict])
async def change_host_keys(call: Call, node: str, body: types.HostKeyChange) -> types.HostKeys:
    """Pin host keys of a machine for everybody, or take pins back."""
    found = find_device(call, node)
    after = await hostkeys.pin(call.registry.writer, call.actor, found, body.pin, body.unpin)
    return _answer(found, after)


OPERATIONS = (get_host_keys, change_host_keys)
