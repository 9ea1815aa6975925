"""Auth keys: list, create, revoke."""

from datetime import datetime, timedelta
from typing import Literal

from doorward.api import types
from doorward.api.access import Permission
from doorward.api.context import Call
from doorward.api.users import find_user
from doorward.asgi import operation
from doorward.errors import BadInput, NotFound
from doorward.model import AuthKey
from doorward.tailnet.snapshot import Snapshot


def _state(key: AuthKey, now: datetime) -> Literal["valid", "used", "expired", "revoked"]:
    if key.revoked is not None:
        return "revoked"
    if key.used is not None and not key.reusable:
        return "used"
    return "expired" if key.expires <= now else "valid"


def _answer(snapshot: Snapshot, key: AuthKey, now: datetime) -> types.Key:
    owner = None if key.user_id is None else snapshot.users.get(key.user_id)
    return types.Key(
        id=key.id,
        prefix=key.prefix,
        user=None if owner is None else owner.name,
        tags=key.tags,
        reusable=key.reusable,
        ephemeral=key.ephemeral,
        preapproved=key.preapproved,
        created=key.created,
        expires=key.expires,
        used=key.used,
        revoked=key.revoked,
        state=_state(key, now),
    )


@operation("GET", "/keys", needs=Permission.READ)
async def list_keys(call: Call) -> list[types.Key]:
    """List the auth keys, oldest first, without their secrets."""
    now = call.context.clock.now()
    keys = await call.registry.list_auth_keys()
    return [_answer(call.snapshot, key, now) for key in keys if not key.system]


@operation("POST", "/keys", needs=Permission.KEYS, status=201, raises=[BadInput, NotFound])
async def create_key(call: Call, body: types.NewKey) -> types.MadeKey:
    """Create an auth key. Its secret is in this answer and nowhere else."""
    if body.user is not None:
        call.principal.require_rank(find_user(call.snapshot, body.user).role)
    key, secret = await call.registry.create_auth_key(
        call.actor,
        user=body.user,
        tags=body.tags,
        reusable=body.reusable,
        ephemeral=body.ephemeral,
        preapproved=body.preapproved,
        expires_in=timedelta(seconds=body.expires_in),
    )
    return types.MadeKey(key=_answer(call.snapshot, key, call.context.clock.now()), secret=secret)


@operation("DELETE", "/keys/{number}", needs=Permission.KEYS, raises=[NotFound])
async def revoke_key(call: Call, number: types.Number) -> types.Key:
    """Revoke an auth key: it admits nobody any more. The nodes it admitted stay."""
    key = await call.registry.revoke_auth_key(call.actor, number)
    return _answer(call.snapshot, key, call.context.clock.now())


OPERATIONS = (list_keys, create_key, revoke_key)
