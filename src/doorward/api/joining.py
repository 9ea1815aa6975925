"""Who gets in, and for how long: show it, change it."""

import msgspec

from doorward.api import types
from doorward.api.access import Permission
from doorward.api.context import Call
from doorward.asgi import operation
from doorward.errors import BadInput
from doorward.tailnet.settings import Joining


def _answer(joining: Joining) -> types.Joining:
    return types.Joining(approval=joining.approval, key_lifetime=joining.key_lifetime)


@operation("GET", "/joining", needs=Permission.READ)
async def get_joining(call: Call) -> types.Joining:
    """Show whether new devices wait for an administrator, and how long a person stays signed in."""
    return _answer(call.snapshot.settings.joining)


@operation("PATCH", "/joining", needs=Permission.SETTINGS, raises=[BadInput])
async def change_joining(call: Call, body: types.JoiningChange) -> types.Joining:
    """Change it, for whoever signs in from now on. Devices that are in stay in, and those that wait go on waiting."""
    wanted = call.snapshot.settings.joining
    if body.approval is None and body.key_lifetime is None:
        raise BadInput("nothing is to be changed", cure="Send approval, or key_lifetime, or both.")
    if body.approval is not None:
        wanted = msgspec.structs.replace(wanted, approval=body.approval)
    if body.key_lifetime is not None:
        wanted = msgspec.structs.replace(wanted, key_lifetime=body.key_lifetime or None)
    return _answer(await call.registry.access.set_joining(call.actor, wanted))


OPERATIONS = (get_joining, change_joining)
