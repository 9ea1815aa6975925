"""A browser in which somebody has signed in, without the pages for it."""

import secrets
from datetime import timedelta
from pathlib import Path

from sqlalchemy import Connection
from tests.support import nouns

from doorward.clock import SystemClock
from doorward.store import Database, signin
from doorward.tailnet.secrets import base32, digest


def begin(
    connection: Connection,
    user: int,
    origin: str,
    *,
    proven_ago: timedelta = timedelta(0),
    method: str = "passkey:1",
) -> str:
    """Have a person signed in at a door, in a transaction of the store; what the browser's cookie holds."""
    secret, now = base32(secrets.token_bytes(20)), SystemClock().now()
    session = nouns.session(
        user,
        now,
        secret_hash=digest(secret),
        origin=origin,
        expires=now + timedelta(days=7),
        proven=now - proven_ago,
        address="127.0.0.1",
        method=method,
    )
    signin.insert_session(connection, session)
    return secret


async def sign_in(folder: Path, user: int, origin: str) -> str:
    """The same in the data directory of a server that may run."""
    async with await Database.open(folder / "doorward.db", clock=SystemClock()) as database:
        return await database.run(begin, user, origin)
