"""Users: one row a person."""

from collections.abc import Iterable

import sqlalchemy as sa
from sqlalchemy import Connection

from doorward.model import User
from doorward.store import rows
from doorward.store.tables import users

_BY_IDS = sa.select(users).where(users.c.id.in_(sa.bindparam("wanted", expanding=True)))


def insert(connection: Connection, draft: User) -> User:
    """Store a new user. Raises Conflict with ``place`` "users.name" for a name that is taken."""
    return rows.add(connection, users, draft)


def update(connection: Connection, user: User) -> User:
    """Store every field. Raises NotFound for a user that is gone, Conflict for a name that is taken."""
    rows.change(connection, users, user)
    return user


def delete(connection: Connection, user_id: int) -> None:
    """Delete a user. Raises NotFound, and Conflict while a node or an auth key is theirs.

    Delete or hand over those first, tagged nodes included (to None): nothing goes by itself.
    """
    rows.remove(connection, users, user_id)


def load_all(connection: Connection) -> list[User]:
    """Every user, by id."""
    return rows.load(connection, users, User)


def by_id(connection: Connection, user_id: int) -> User | None:
    """The user with this id."""
    return rows.one(connection, users, User, users.c.id == user_id)


def by_ids(connection: Connection, user_ids: Iterable[int]) -> dict[int, User]:
    """Those of these users that are there, by id."""
    return {user.id: user for user in rows.run(connection, _BY_IDS, User, wanted=list(user_ids))}


def by_name(connection: Connection, name: str) -> User | None:
    """The user with exactly this login name; letter case matters."""
    return rows.one(connection, users, User, users.c.name == name)
