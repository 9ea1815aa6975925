"""Every version of the policy file; the newest is in force."""

from sqlalchemy import Connection

from doorward.model import PolicyVersion
from doorward.store import rows
from doorward.store.tables import policy_versions


def insert(connection: Connection, draft: PolicyVersion) -> PolicyVersion:
    """Store a new version, which is in force from then on."""
    return rows.add(connection, policy_versions, draft)


def current(connection: Connection) -> PolicyVersion | None:
    """The newest version, or None before the first."""
    found = history(connection, limit=1)
    return found[0] if found else None


def by_id(connection: Connection, version_id: int) -> PolicyVersion | None:
    """The version with this id."""
    return rows.one(connection, policy_versions, PolicyVersion, policy_versions.c.id == version_id)


def history(connection: Connection, *, before: int | None = None, limit: int = 100) -> list[PolicyVersion]:
    """At most ``limit`` versions, newest first, those older than the id ``before``."""
    conditions = () if before is None else (policy_versions.c.id < before,)
    order = (policy_versions.c.id.desc(),)
    return rows.load(connection, policy_versions, PolicyVersion, *conditions, order=order, limit=limit)
