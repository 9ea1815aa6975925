"""One-time links: how a person gets their first passkey, and how the first owner of all comes in.

::

    invite ──▶ open ──▶ take: spent ──▶ whoever holds the browser is that person
                │ └───▶ over after its lifetime
                └─────▶ worth nothing: a newer one, another role, suspended, deleted

The code in the link is 160 random bits, of which only the hash is kept. Looking uses nothing up, because programs that
read mail follow links; only a POST takes one. A link is good for one person and what they may do when it is made: with
another role it would give what its maker could not (``tailnet.units`` forgets it then). The first owner's is good only
while nobody can administer: it must not lie around as a second way in.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import NamedTuple

import msgspec

from doorward.clock import Clock
from doorward.errors import BadInput, Conflict, NotFound
from doorward.model import Invitation, Role, User
from doorward.store import Connection, Database, audit, signin, users
from doorward.tailnet import secrets

LIFETIME = timedelta(days=3)  # over a weekend
FIRST_LIFETIME = timedelta(hours=1)  # whoever starts doorward reads what it says
SHORTEST, LONGEST = timedelta(minutes=1), timedelta(days=30)

PATH = "/invite/"
ADMINISTRATORS = frozenset({Role.OWNER, Role.ADMIN})

_CODE_LENGTH = 32  # characters that 160 bits take


class Way(NamedTuple):
    """One of the addresses at which people come in."""

    address: str  # "https://door.example.com", with the path that all there begins with
    where: str  # from where it can be reached, in words that follow a link
    is_here: bool = False  # it is reached on doorward's own machine alone


def link(address: str, code: str) -> str:
    """The link with this code at a door, such as ``https://door.example.com``. It is a secret."""
    return f"{address.rstrip('/')}{PATH}{code}"


class Invitations:
    """The one-time links of a tailnet.

    Args:
        database: the store.
        clock: the time of every event.
        entropy: random bytes.
    """

    def __init__(self, database: Database, clock: Clock, entropy: Callable[[int], bytes]) -> None:
        self._database = database
        self._clock = clock
        self._entropy = entropy

    async def invite(
        self, actor: str, user: User | None, *, lifetime: timedelta = LIFETIME
    ) -> tuple[Invitation, str]:
        """Make a link for a person, or for the first owner (None), and return it with its code, which is shown this once.

        An open one for the same person is worth nothing from now on.

        Raises:
            BadInput: for a lifetime under a minute or over 30 days.
            NotFound: when the person was deleted.
            Conflict: when they are suspended or their role is another than ``user`` says; for the first owner when
                somebody can administer already.
        """
        if not SHORTEST <= lifetime <= LONGEST:
            raise BadInput(
                "an invitation lives between a minute and 30 days", cure="Give --expires as 1h or 3d."
            )
        draft, code = self._draft(actor, lifetime)
        return await self._database.run(_invite, actor, user, draft), code

    async def invite_first(
        self, actor: str, *, lifetime: timedelta = FIRST_LIFETIME, unless_since: datetime | None = None
    ) -> tuple[Invitation, str] | None:
        """Make the link by which the first administrator comes in; None while somebody can administer already.

        Where there is one owner, who has no way to sign in, it is theirs. With ``unless_since`` an open one that the same
        actor has made from then on is enough, and None is returned, too.
        """
        draft, code = self._draft(actor, lifetime)
        made = await self._database.run(_invite_first, actor, draft, unless_since)
        return None if made is None else (made, code)

    async def somebody_administers(self) -> bool:
        """True if an owner or administrator, not suspended, has a way to sign in."""
        return await self._database.read(can_administer)

    def _draft(self, actor: str, lifetime: timedelta) -> tuple[Invitation, str]:
        now = self._clock.now()
        secret = secrets.make_code(self._entropy(secrets.ENTROPY))
        draft = Invitation(
            id=0, user_id=None, secret_hash=secret.digest, actor=actor, created=now, expires=now + lifetime
        )
        return draft, secret.text

    async def look(self, code: str) -> Invitation | None:
        """The invitation with this code while it is good; None otherwise. Nothing is used up."""
        if not _is_code(code):
            return None
        return await self._database.read(_look, secrets.digest(code), self._clock.now())

    async def take(self, code: str) -> Invitation:
        """Use an invitation up: of several who try, one gets it. For a POST only. Raises NotFound when it is not good."""
        if not _is_code(code):
            raise not_good()
        return await self._database.run(_take, secrets.digest(code), self._clock.now())


def _is_code(text: str) -> bool:
    """False for what no link of ours has in it: it need not be looked for."""
    return len(text) == _CODE_LENGTH and text.isascii()


def can_administer(connection: Connection) -> bool:
    """True if an owner or administrator, not suspended, has a way to sign in."""
    able = [
        user.id for user in users.load_all(connection) if user.role in ADMINISTRATORS and not user.suspended
    ]
    return signin.can_sign_in(connection, able)


def _invite(connection: Connection, actor: str, user: User | None, draft: Invitation) -> Invitation:
    if user is None:
        if can_administer(connection):
            raise Conflict(
                "there is somebody who can sign in and administer",
                cure="Invite by name: `doorward users invite NAME --role owner`.",
            )
        return _insert(connection, actor, "owner", Role.OWNER, draft)
    now = users.by_id(connection, user.id)
    if now is None:
        raise NotFound("this user was deleted", cure="`doorward users list` shows the users there are.")
    if now.suspended:
        raise Conflict(
            f"{now.name} is suspended", cure=f"Let them in again first: `doorward users restore {now.name}`."
        )
    if now.role is not user.role:
        # Whether the asker may act for them was judged by the role before.
        raise Conflict(f"{now.name} has become {now.role} meanwhile", cure="Look again, then invite again.")
    theirs = msgspec.structs.replace(draft, user_id=now.id)
    return _insert(connection, actor, f"user:{now.name}", now.role, theirs)


def _invite_first(
    connection: Connection, actor: str, draft: Invitation, unless_since: datetime | None
) -> Invitation | None:
    if can_administer(connection):
        return None
    owners = [one for one in users.load_all(connection) if one.role is Role.OWNER and not one.suspended]
    owner = owners[0] if len(owners) == 1 else None
    known = signin.open_invitation(connection, None if owner is None else owner.id, draft.created)
    if (
        known is not None
        and unless_since is not None
        and known.actor == actor
        and known.created >= unless_since
    ):
        return None
    return _invite(connection, actor, owner, draft)


def _insert(connection: Connection, actor: str, target: str, role: Role, draft: Invitation) -> Invitation:
    made = signin.insert_invitation(connection, draft)
    details = {"invitation": made.id, "role": role.value, "expires": made.expires.isoformat()}
    audit.append(connection, actor, "user.invite", target, details, made.created)
    return made


def _is_for(connection: Connection, invitation: Invitation) -> str | None:
    """Whom it lets in, for the audit log; None when it is to let nobody in any more."""
    if invitation.user_id is None:
        return None if can_administer(connection) else "owner"
    user = users.by_id(connection, invitation.user_id)
    return None if user is None or user.suspended else f"user:{user.name}"


def _look(connection: Connection, secret_hash: bytes, now: datetime) -> Invitation | None:
    found = signin.invitation_by_hash(connection, secret_hash)
    if found is None or found.used is not None or found.expires <= now:
        return None
    return found if _is_for(connection, found) else None


def _take(connection: Connection, secret_hash: bytes, now: datetime) -> Invitation:
    taken = signin.take_invitation(connection, secret_hash, now)
    target = None if taken is None else _is_for(connection, taken)
    if taken is None or target is None:
        raise not_good()
    audit.append(
        connection, f"invitation:{taken.id}", "user.invite.use", target, {"made_by": taken.actor}, now
    )
    return taken


def not_good() -> NotFound:
    """What is said of a link that lets nobody in, whatever the reason."""
    return NotFound(
        "this invitation is not good any more",
        cure="A link works once and for a limited time: ask an administrator for another.",
    )
