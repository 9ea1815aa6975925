"""The versions of the policy file; the newest is in force.

What is kept: the newest `KEPT_VERSIONS` versions, and of these no more than `KEPT_TEXT` characters together; the version
in force and the one before it always. The audit log keeps the rest of every version for good: who, when, and its SHA-256.
"""

import sqlalchemy as sa
from sqlalchemy import Connection

from doorward.model import PolicyEntry, PolicyVersion
from doorward.store import rows
from doorward.store.tables import policy_versions

KEPT_VERSIONS = 1000  # years of a policy that changes every day or two
KEPT_TEXT = (
    64 * 1024 * 1024
)  # characters: so much of the largest policies, and far more than a thousand usual ones

_LISTED = [policy_versions.c[name] for name in ("id", "actor", "created", "comment", "added", "removed")]
_SIZE = sa.func.length(policy_versions.c.text)


def insert(connection: Connection, draft: PolicyVersion) -> PolicyVersion:
    """Store a new version, which is in force from then on."""
    return rows.add(connection, policy_versions, draft)


def current(connection: Connection) -> PolicyVersion | None:
    """The newest version, or None before the first."""
    order = (policy_versions.c.id.desc(),)
    found = rows.load(connection, policy_versions, PolicyVersion, order=order, limit=1)
    return found[0] if found else None


def by_id(connection: Connection, version_id: int) -> PolicyVersion | None:
    """The version with this id."""
    return rows.one(connection, policy_versions, PolicyVersion, policy_versions.c.id == version_id)


def before(connection: Connection, version_id: int) -> PolicyVersion | None:
    """The version that was in force before this one, if it is still kept."""
    older, order = policy_versions.c.id < version_id, (policy_versions.c.id.desc(),)
    found = rows.load(connection, policy_versions, PolicyVersion, older, order=order, limit=1)
    return found[0] if found else None


def history(connection: Connection, *, before: int | None = None, limit: int = 100) -> list[PolicyEntry]:
    """At most ``limit`` versions without their texts, newest first, those older than the id ``before``."""
    statement = sa.select(*_LISTED, _SIZE.label("size")).order_by(policy_versions.c.id.desc()).limit(limit)
    if before is not None:
        statement = statement.where(policy_versions.c.id < before)
    return [PolicyEntry(**row._asdict()) for row in connection.execute(statement)]


def prune(connection: Connection, *, versions: int = KEPT_VERSIONS, text: int = KEPT_TEXT) -> int:
    """Forget the oldest versions beyond these bounds, never one of the newest two. Returns how many."""
    statement = sa.select(policy_versions.c.id, _SIZE).order_by(policy_versions.c.id.desc())
    total = 0
    for count, (version_id, size) in enumerate(connection.execute(statement).all(), 1):
        total += size
        if count > 2 and (count > versions or total > text):
            older = sa.delete(policy_versions).where(policy_versions.c.id <= version_id)
            return connection.execute(older).rowcount
    return 0
