"""By what people sign in and where they have: what an administrator sees of it, and takes away.

Nothing here makes a way in: that takes the person (``doorward.login``). What is taken away ends at once, and is on record
with who did it.
"""

from datetime import datetime

from doorward.clock import Clock
from doorward.errors import NotFound
from doorward.model import Passkey, Session, User
from doorward.store import Connection, Database, audit, signin
from doorward.store.signin import Held

__all__ = ["Held", "Means"]


class Means:
    """Passkeys, recovery codes and sessions of a tailnet's people.

    Args:
        database: the store.
        clock: the time of every event.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def held(self, user: User | None = None) -> dict[int, Held]:
        """How many of each everybody has, or one person, by their id; who has nothing is left out."""
        return await self._database.read(signin.held, self._clock.now(), None if user is None else user.id)

    async def passkeys(self, user: User) -> list[Passkey]:
        """A person's passkeys, oldest first."""
        return await self._database.read(signin.passkeys_of, user.id)

    async def delete_passkey(self, actor: str, user: User, passkey_id: int) -> int:
        """Take a passkey from a person, and end the sessions that it was last shown for; returns how many those were.

        Raises NotFound when they have none with this id.
        """
        return await self._database.run(_delete_passkey, actor, user, passkey_id, self._clock.now())

    async def sessions(self, user: User | None = None) -> list[Session]:
        """The open sessions of a person or of everybody, oldest first."""
        return await self._database.read(
            signin.open_sessions, self._clock.now(), None if user is None else user.id
        )

    async def sign_out(self, actor: str, user: User, session_id: int | None = None) -> int:
        """End a person's open sessions, or one of them; returns how many there were.

        Raises NotFound when they have no open one with this id.
        """
        return await self._database.run(_sign_out, actor, user, session_id, self._clock.now())

    async def withdraw_invitation(self, actor: str, user: User) -> None:
        """Make the link that a person was sent worth nothing. Raises NotFound when none is open."""
        await self._database.run(_withdraw, actor, user, self._clock.now())


def _delete_passkey(connection: Connection, actor: str, user: User, passkey_id: int, now: datetime) -> int:
    named = {each.id: each.name for each in signin.passkeys_of(connection, user.id)}
    if not signin.delete_passkey(connection, user.id, passkey_id):
        raise NotFound(
            f"{user.name} has no passkey {passkey_id}",
            cure=f"`doorward users passkeys {user.name}` lists those there are.",
        )
    # Whoever holds the passkey may sit before one of these.
    ended = signin.end_sessions(connection, now, user_id=user.id, method=f"passkey:{passkey_id}")
    details = {"passkey": passkey_id, "name": named[passkey_id], "sessions": ended}
    audit.append(connection, actor, "user.passkey.delete", f"user:{user.name}", details, now)
    return len(ended)


def _sign_out(connection: Connection, actor: str, user: User, session_id: int | None, now: datetime) -> int:
    ended = signin.end_sessions(connection, now, user_id=user.id, session_id=session_id)
    if session_id is not None and not ended:
        raise NotFound(
            f"{user.name} has no open session {session_id}",
            cure=f"`doorward users sessions {user.name}` lists those there are.",
        )
    if ended:
        audit.append(connection, actor, "user.signout", f"user:{user.name}", {"sessions": ended}, now)
    return len(ended)


def _withdraw(connection: Connection, actor: str, user: User, now: datetime) -> None:
    if signin.open_invitation(connection, user.id, now) is None:
        raise NotFound(f"no invitation of {user.name} is open", cure="There is nothing to withdraw.")
    signin.forget_invitations(connection, user.id)
    audit.append(connection, actor, "user.invite.withdraw", f"user:{user.name}", {}, now)
