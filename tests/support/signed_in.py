"""A browser in which somebody has signed in, without the pages for it."""

from datetime import timedelta
from pathlib import Path

from doorward.clock import SystemClock
from doorward.model import Session
from doorward.store import Database, signin
from doorward.tailnet import secrets


async def sign_in(folder: Path, user: int, origin: str) -> str:
    """Have a person signed in at a door, in the data directory of a server that may run; what the browser's cookie holds."""
    now, secret = SystemClock().now(), f"cookie-{user}"
    session = Session(
        id=0,
        user_id=user,
        secret_hash=secrets.digest(secret),
        origin=origin,
        created=now,
        seen=now,
        expires=now + timedelta(days=1),
        proven=now,
        method="passkey:1",
        address="127.0.0.1",
        agent="a browser",
    )
    async with await Database.open(folder / "doorward.db", clock=SystemClock()) as database:
        await database.run(signin.insert_session, session)
    return secret
