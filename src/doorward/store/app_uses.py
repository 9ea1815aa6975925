"""In which apps people are signed in, as far as we know: what they gave and may still be used, one for each session and app.

Where a program keeps a session of its own, that is known to it alone.
"""

from datetime import datetime
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection

from doorward.store import apps
from doorward.store.columns import Moment
from doorward.store.tables import app_grants


class Use(NamedTuple):
    """Somebody's use of an app, by one device or in one browser."""

    id: int  # of the newest thing that they gave
    app_id: int
    user_id: int
    node_id: int | None  # the device; None where only a browser spoke for them
    first: datetime  # when they first signed in there
    last: datetime  # and when they did so last


# Of before grants knew their session's key there is the number alone.
_WHERE = sa.case((app_grants.c.key != "", app_grants.c.key), else_=app_grants.c.sid)


def load(
    connection: Connection, now: datetime, *, app_id: int | None = None, user_id: int | None = None
) -> list[Use]:
    """All there are, of one app and of one person where they are named; who signed in last comes last."""
    which = [app_grants.c.ended.is_(None), app_grants.c.redeemed.is_not(None), app_grants.c.expires > now]
    if app_id is not None:
        which.append(app_grants.c.app_id == app_id)
    if user_id is not None:
        which.append(app_grants.c.user_id == user_id)
    newest = sa.func.max(app_grants.c.id)
    statement = (
        sa.select(
            newest,
            app_grants.c.app_id,
            app_grants.c.user_id,
            sa.func.max(app_grants.c.node_id),
            sa.func.min(app_grants.c.created, type_=Moment()),
            sa.func.max(app_grants.c.created, type_=Moment()),
        )
        .where(*which)
        .group_by(app_grants.c.app_id, app_grants.c.user_id, _WHERE)
        .order_by(newest)
    )
    return [Use(*row) for row in connection.execute(statement)]


def end(connection: Connection, now: datetime, number: int) -> list[int]:
    """End one, by its id; the app is told. Returns what had not ended; nothing for one that is not there any more."""
    newest = apps.grant_by_id(connection, number)
    return [] if newest is None else apps.end_use(connection, now, newest)
