"""Auth keys, which admit nodes, and API tokens, which admit programs. Of both only the SHA-256 of the secret is here."""

from collections.abc import Iterable
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy import Connection

from doorward.model import ApiToken, AuthKey
from doorward.store import rows
from doorward.store.tables import api_tokens, auth_keys

_CONSUME = sa.update(auth_keys).where(
    auth_keys.c.id == sa.bindparam("wanted"),
    sa.or_(auth_keys.c.reusable.is_(sa.true()), auth_keys.c.used.is_(None)),
    auth_keys.c.revoked.is_(None),
    auth_keys.c.expires > sa.bindparam("now"),
)
_BY_HASHES = sa.select(auth_keys).where(auth_keys.c.secret_hash.in_(sa.bindparam("wanted", expanding=True)))


def insert_auth_key(connection: Connection, draft: AuthKey) -> AuthKey:
    """Store a new auth key. Raises Conflict when its user is not there."""
    return rows.add(connection, auth_keys, draft)


def consume(connection: Connection, key_id: int, now: datetime) -> bool:
    """Use the key to admit a node: true for a key that is good now, and for a single-use key only the first time.

    One statement decides and marks, so of two units that ask for the same single-use key exactly one is told true.
    False says only that it is unknown, used, revoked or expired: look at the key to say which.
    """
    return connection.execute(_CONSUME, {"wanted": key_id, "now": now, "used": now}).rowcount == 1


def revoke_auth_key(connection: Connection, key_id: int, now: datetime) -> bool:
    """End an auth key. False when it is unknown or was revoked before; the first time stays."""
    statement = sa.update(auth_keys).where(auth_keys.c.id == key_id, auth_keys.c.revoked.is_(None))
    return connection.execute(statement.values(revoked=now)).rowcount == 1


def delete_auth_keys_of(connection: Connection, user_id: int) -> list[int]:
    """Delete a user's auth keys, before the user is deleted; return their ids. Nodes they admitted keep the number."""
    ids = connection.execute(sa.select(auth_keys.c.id).where(auth_keys.c.user_id == user_id)).scalars().all()
    connection.execute(sa.delete(auth_keys).where(auth_keys.c.user_id == user_id))
    return sorted(ids)


def all_auth_keys(connection: Connection) -> list[AuthKey]:
    """Every auth key, by id, spent ones too."""
    return rows.load(connection, auth_keys, AuthKey)


def auth_key_by_id(connection: Connection, key_id: int) -> AuthKey | None:
    """The auth key with this id."""
    return rows.one(connection, auth_keys, AuthKey, auth_keys.c.id == key_id)


def auth_keys_by_hash(connection: Connection, secret_hashes: Iterable[bytes]) -> dict[bytes, AuthKey]:
    """The auth keys whose secrets have these SHA-256, by it; unknown ones are left out."""
    found = rows.run(connection, _BY_HASHES, AuthKey, wanted=list(secret_hashes))
    return {key.secret_hash: key for key in found}


def insert_api_token(connection: Connection, draft: ApiToken) -> ApiToken:
    """Store a new API token."""
    return rows.add(connection, api_tokens, draft)


def revoke_api_token(connection: Connection, token_id: int, now: datetime) -> bool:
    """End an API token. False when it is unknown or was revoked before; the first time stays."""
    statement = sa.update(api_tokens).where(api_tokens.c.id == token_id, api_tokens.c.revoked.is_(None))
    return connection.execute(statement.values(revoked=now)).rowcount == 1


def revoke_api_tokens_of(connection: Connection, user_id: int, now: datetime) -> list[int]:
    """End all API tokens of a person; returns the ids of those that had not ended."""
    theirs = sa.and_(
        api_tokens.c.user_id == user_id,
        api_tokens.c.revoked.is_(None),
        sa.or_(api_tokens.c.expires.is_(None), api_tokens.c.expires > now),
    )
    found = sorted(connection.execute(sa.select(api_tokens.c.id).where(theirs)).scalars())
    if found:
        connection.execute(sa.update(api_tokens).where(api_tokens.c.id.in_(found)).values(revoked=now))
    return found


def all_api_tokens(connection: Connection) -> list[ApiToken]:
    """Every API token, by id, ended ones too."""
    return rows.load(connection, api_tokens, ApiToken)


def api_token_by_hash(connection: Connection, secret_hash: bytes) -> ApiToken | None:
    """The API token whose secret has this SHA-256, whether or not it is still good."""
    return rows.one(connection, api_tokens, ApiToken, api_tokens.c.secret_hash == secret_hash)


def delete_ended(connection: Connection, before: datetime) -> int:
    """Forget auth keys and API tokens that ended before a moment: expired, revoked or, if good for one node, used.

    The audit log keeps that they were made, and nodes keep the number of the key that admitted them. Returns how many.
    """
    ended = sa.or_(
        auth_keys.c.expires < before,
        auth_keys.c.revoked < before,
        sa.and_(auth_keys.c.reusable.is_(sa.false()), auth_keys.c.used < before),
    )
    over = sa.or_(api_tokens.c.expires < before, api_tokens.c.revoked < before)
    statements = (sa.delete(auth_keys).where(ended), sa.delete(api_tokens).where(over))
    return sum(connection.execute(statement).rowcount for statement in statements)
