"""API tokens: list, create, revoke."""

from datetime import datetime, timedelta
from typing import Literal

from doorward.api import types
from doorward.api.access import Permission
from doorward.api.context import Call
from doorward.asgi import operation
from doorward.errors import BadInput, NotFound
from doorward.model import ApiToken, Role


def _state(token: ApiToken, now: datetime) -> Literal["valid", "expired", "revoked"]:
    if token.revoked is not None:
        return "revoked"
    return "expired" if token.expires is not None and token.expires <= now else "valid"


def _answer(call: Call, token: ApiToken) -> types.Token:
    now = call.context.clock.now()
    owner = None if token.user_id is None else call.snapshot.users.get(token.user_id)
    return types.Token(
        id=token.id,
        prefix=token.prefix,
        description=token.description,
        role=token.role.value,
        user=None if owner is None else owner.name,
        created=token.created,
        expires=token.expires,
        revoked=token.revoked,
        state=_state(token, now),
    )


@operation("GET", "/tokens", needs=Permission.READ)
async def list_tokens(call: Call) -> list[types.Token]:
    """List the API tokens, oldest first, without their secrets."""
    return [_answer(call, token) for token in await call.registry.list_api_tokens()]


@operation("POST", "/tokens", needs=Permission.TOKENS, status=201, raises=[BadInput])
async def create_token(call: Call, body: types.NewToken) -> types.MadeToken:
    """Create an API token. Its secret is in this answer and nowhere else."""
    role = Role(body.role)
    call.principal.require_rank(role)
    token, secret = await call.registry.create_api_token(
        call.actor,
        description=body.description,
        role=role,
        expires_in=None if body.expires_in is None else timedelta(seconds=body.expires_in),
        # What a person's token makes is theirs, too: else it would outlive their suspension.
        owner=call.principal.person or call.principal.lender,
    )
    return types.MadeToken(token=_answer(call, token), secret=secret)


@operation("DELETE", "/tokens/{number}", needs=Permission.TOKENS, raises=[NotFound])
async def revoke_token(call: Call, number: types.Number) -> types.Token:
    """Revoke an API token: from now on it says nothing."""
    for token in await call.registry.list_api_tokens():
        if token.id == number:
            call.principal.require_rank(token.role)
    return _answer(call, await call.registry.revoke_api_token(call.actor, number))


OPERATIONS = (list_tokens, create_token, revoke_token)
