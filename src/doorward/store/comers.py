"""Apps that come by themselves, and what lets programs register them. No netmap depends on any of it."""

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy import Connection

from doorward.model import App, AppInvitation
from doorward.store import rows
from doorward.store.apps import delete as delete_app
from doorward.store.tables import app_grants, app_invitations, apps


def registered_by(connection: Connection, actor: str) -> list[App]:
    """The apps that somebody's program has registered, by id."""
    return rows.load(connection, apps, App, apps.c.actor == actor)


def insert_invitation(connection: Connection, draft: AppInvitation) -> AppInvitation:
    """Store what lets programs register apps."""
    return rows.add(connection, app_invitations, draft)


def invitation(connection: Connection, secret_hash: bytes, now: datetime) -> AppInvitation | None:
    """The invitation with this SHA-256, while it is good."""
    return rows.one(
        connection, app_invitations, AppInvitation, app_invitations.c.secret_hash == secret_hash, _open(now)
    )


def any_invitation(connection: Connection, now: datetime) -> bool:
    """True while there is any that is good."""
    return connection.execute(sa.select(app_invitations.c.id).where(_open(now)).limit(1)).first() is not None


def use_invitation(connection: Connection, number: int, now: datetime) -> bool:
    """Take one use of it: true as often as it has uses, while it is good."""
    mine = sa.update(app_invitations).where(app_invitations.c.id == number, _open(now))
    return connection.execute(mine.values(uses=app_invitations.c.uses - 1)).rowcount == 1


def end_invitations(connection: Connection, now: datetime) -> int:
    """Make all that are good worth nothing; how many those were."""
    return connection.execute(sa.update(app_invitations).where(_open(now)).values(uses=0)).rowcount


def _open(now: datetime) -> sa.ColumnElement[bool]:
    return sa.and_(app_invitations.c.uses > 0, app_invitations.c.expires > now)


def delete_over(connection: Connection, now: datetime, before: datetime) -> int:
    """Forget invitations that are over, and what nobody has used since a moment; how many rows."""
    spent = connection.execute(sa.delete(app_invitations).where(app_invitations.c.expires < now)).rowcount
    return spent + delete_unused(connection, now, before)


def delete_unused(connection: Connection, now: datetime, before: datetime) -> int:
    """Forget apps that came by themselves before a moment, whom nobody has approved of and nobody has given anything; how many."""
    given = sa.select(app_grants.c.app_id)
    found = rows.load(connection, apps, App, apps.c.created < before, apps.c.id.not_in(given))
    gone = [app for app in found if app.brought is not None and not app.brought.approved]
    for app in gone:
        delete_app(connection, app.id, now)
    return len(gone)
