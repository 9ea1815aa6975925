"""Signing out in a browser: its session ends, and with it all that apps were given there; the apps are told.

A device of the tailnet says who somebody is with every connection, so an end would be none: the next app would sign them in again.
So whoever leaves is asked by the next app, until they say yes.
"""

from datetime import datetime
from typing import NamedTuple

from doorward.login.sessions import Visitor
from doorward.model import User
from doorward.store import Connection, apps, signin


class Leaver(NamedTuple):
    """Who leaves, and by what they are known."""

    user: User
    session: int | None  # in which they signed in
    node: int | None  # the device at the other end of the connection, where it is somebody's
    owner: int | None  # whose it is
    marker: str  # random: the number of the device's next session with apps


def leaver(visitor: Visitor, user: User, marker: str) -> Leaver:
    """Somebody, as they sign out where a request comes from."""
    signed_in = visitor.signed_in
    session = signed_in.session.id if signed_in is not None and signed_in.user.id == user.id else None
    if visitor.node is None or visitor.owner is None:
        return Leaver(user, session, None, None, marker)
    return Leaver(user, session, visitor.node.id, visitor.owner.id, marker)


def sign_out(connection: Connection, who: Leaver, now: datetime, sids: tuple[str, ...] = ()) -> list[int]:
    """End what there is, and what was given under these numbers; returns the grants that had not ended.

    The device is asked from then on whoever's it is: whoever signed in on another's device leaves it, too.
    """
    keys = [] if who.session is None else [apps.browser_key(who.session)]
    if who.node is not None and who.owner == who.user.id:
        keys.append(apps.device_key(who.node, who.user.id))
    ended = apps.sign_out(connection, now, who.user.id, keys, sids)
    if who.session is not None:
        signin.end_sessions(connection, now, session_id=who.session)
    if who.node is not None and who.owner is not None:
        apps.leave(connection, now, who.owner, apps.device_key(who.node, who.owner), who.marker)
    return ended
