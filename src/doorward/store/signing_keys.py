"""The keys that tokens are signed with. Their secret halves are sealed before they come here."""

from collections.abc import Iterable

import sqlalchemy as sa
from sqlalchemy import Connection

from doorward.model import SigningKey
from doorward.store import rows
from doorward.store.tables import signing_keys


def load_all(connection: Connection) -> list[SigningKey]:
    """Every key, by id."""
    return rows.load(connection, signing_keys, SigningKey)


def insert(connection: Connection, draft: SigningKey) -> bool:
    """Store a new key; False where another process has made one of that generation already."""
    taken = sa.and_(
        signing_keys.c.algorithm == draft.algorithm, signing_keys.c.generation >= draft.generation
    )
    if connection.execute(sa.select(signing_keys.c.id).where(taken).limit(1)).first():
        return False
    rows.add(connection, signing_keys, draft)
    return True


def delete(connection: Connection, ids: Iterable[int]) -> None:
    """Forget keys that nothing is signed with any more."""
    connection.execute(sa.delete(signing_keys).where(signing_keys.c.id.in_(list(ids))))
