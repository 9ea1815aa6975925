"""How people sign in: passkeys, subjects of outside providers, recovery codes, invitations; and the browsers they did it in.

No netmap depends on any of it. Whatever is used up here is used once: the function that takes it says whether it was there.
"""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy import Connection

from doorward.model import Asking, Identity, Invitation, Passkey, Provider, Session
from doorward.store import apps, rows
from doorward.store.signin_tables import (
    askings,
    identities,
    invitations,
    passkeys,
    providers,
    recovery_codes,
    sessions,
)

_WANTED: sa.BindParameter[Any] = sa.bindparam("wanted", expanding=True)
_SESSIONS = sa.select(sessions).where(sessions.c.secret_hash.in_(_WANTED))

# Passkeys ----------------------------------------------------------------------------------------------------------


def insert_passkey(connection: Connection, draft: Passkey) -> Passkey:
    """Store a new passkey. Raises Conflict with ``place`` "passkeys.credential" for one that is known."""
    return rows.add(connection, passkeys, draft)


def passkeys_of(connection: Connection, user_id: int) -> list[Passkey]:
    """A person's passkeys, by id."""
    return rows.load(connection, passkeys, Passkey, passkeys.c.user_id == user_id)


def passkey_by_credential(connection: Connection, credential: bytes) -> Passkey | None:
    """The passkey that browsers know by this id."""
    return rows.one(connection, passkeys, Passkey, passkeys.c.credential == credential)


def passkey_used(connection: Connection, passkey: Passkey, count: int, now: datetime) -> None:
    """Note that a passkey has signed. Raises NotFound for one that is gone."""
    rows.change(connection, passkeys, msgspec.structs.replace(passkey, count=count, used=now))


def delete_passkey(connection: Connection, user_id: int, passkey_id: int) -> bool:
    """Forget a person's passkey; False when they have none with this id."""
    mine = sa.and_(passkeys.c.id == passkey_id, passkeys.c.user_id == user_id)
    return connection.execute(sa.delete(passkeys).where(mine)).rowcount == 1


# Recovery codes ----------------------------------------------------------------------------------------------------


def replace_recovery_codes(connection: Connection, user_id: int, hashes: Iterable[bytes]) -> None:
    """Give a person new recovery codes; the old ones are worth nothing."""
    connection.execute(sa.delete(recovery_codes).where(recovery_codes.c.user_id == user_id))
    connection.execute(
        sa.insert(recovery_codes),
        [{"user_id": user_id, "secret_hash": one, "used": None} for one in hashes],
    )


def take_recovery_code(connection: Connection, secret_hash: bytes, now: datetime) -> int | None:
    """Use a code up; whose it is, or None for one that is unknown or was used."""
    fresh = sa.and_(recovery_codes.c.secret_hash == secret_hash, recovery_codes.c.used.is_(None))
    if connection.execute(sa.update(recovery_codes).where(fresh).values(used=now)).rowcount != 1:
        return None
    found = sa.select(recovery_codes.c.user_id).where(recovery_codes.c.secret_hash == secret_hash)
    return int(connection.execute(found).scalar_one())


def recovery_code_owner(connection: Connection, secret_hash: bytes) -> int | None:
    """Whose a code is; None for one that is unknown or was used."""
    good = sa.and_(recovery_codes.c.secret_hash == secret_hash, recovery_codes.c.used.is_(None))
    return connection.execute(sa.select(recovery_codes.c.user_id).where(good)).scalar_one_or_none()


def recovery_codes_left(connection: Connection, user_id: int) -> int:
    """How many of a person's codes are still good."""
    good = sa.and_(recovery_codes.c.user_id == user_id, recovery_codes.c.used.is_(None))
    return int(
        connection.execute(sa.select(sa.func.count()).select_from(recovery_codes).where(good)).scalar_one()
    )


# Invitations -------------------------------------------------------------------------------------------------------


def insert_invitation(connection: Connection, draft: Invitation) -> Invitation:
    """Store a new invitation; older ones of the same person are worth nothing."""
    open_ones = sa.and_(
        invitations.c.user_id.is_not_distinct_from(draft.user_id), invitations.c.used.is_(None)
    )
    connection.execute(sa.delete(invitations).where(open_ones))
    return rows.add(connection, invitations, draft)


def open_invitation(connection: Connection, user_id: int | None, now: datetime) -> Invitation | None:
    """The invitation of a person, or of the first owner (None), that can be used now."""
    return rows.one(
        connection,
        invitations,
        Invitation,
        invitations.c.user_id.is_not_distinct_from(user_id),
        invitations.c.used.is_(None),
        invitations.c.expires > now,
    )


def invitation_by_hash(connection: Connection, secret_hash: bytes) -> Invitation | None:
    """The invitation whose code has this SHA-256, whether or not it is still good."""
    return rows.one(connection, invitations, Invitation, invitations.c.secret_hash == secret_hash)


def take_invitation(connection: Connection, secret_hash: bytes, now: datetime) -> Invitation | None:
    """Use an invitation up; None for one that is unknown, was used or is over."""
    good = sa.and_(
        invitations.c.secret_hash == secret_hash, invitations.c.used.is_(None), invitations.c.expires > now
    )
    if connection.execute(sa.update(invitations).where(good).values(used=now)).rowcount != 1:
        return None
    return invitation_by_hash(connection, secret_hash)


def forget_invitations(connection: Connection, user_id: int) -> int:
    """Make a person's open invitations worth nothing; returns how many there were."""
    open_ones = sa.and_(invitations.c.user_id == user_id, invitations.c.used.is_(None))
    return connection.execute(sa.delete(invitations).where(open_ones)).rowcount


# Sessions ----------------------------------------------------------------------------------------------------------


def insert_session(connection: Connection, draft: Session) -> Session:
    """Store a new session."""
    return rows.add(connection, sessions, draft)


def sessions_by_hash(connection: Connection, secret_hashes: Sequence[bytes]) -> dict[bytes, Session]:
    """The sessions whose cookies have these SHA-256, by it, whether or not they are still good."""
    found = rows.run(connection, _SESSIONS, Session, wanted=secret_hashes)
    return {session.secret_hash: session for session in found}


def open_sessions(connection: Connection, now: datetime, user_id: int | None = None) -> list[Session]:
    """The sessions that are open, of one person or of all, by id."""
    mine = [] if user_id is None else [sessions.c.user_id == user_id]
    return rows.load(
        connection, sessions, Session, sessions.c.ended.is_(None), sessions.c.expires > now, *mine
    )


def session_by_id(connection: Connection, session_id: int) -> Session | None:
    """The session with this id, whether or not it is still open."""
    return rows.one(connection, sessions, Session, sessions.c.id == session_id)


def open_among(connection: Connection, session_ids: Collection[int], now: datetime) -> frozenset[int]:
    """Those of these sessions that are open."""
    mine = sa.and_(sessions.c.id.in_(list(session_ids)), sessions.c.ended.is_(None), sessions.c.expires > now)
    return frozenset(connection.execute(sa.select(sessions.c.id).where(mine)).scalars())


def session_seen(connection: Connection, session_id: int, now: datetime) -> None:
    """Note that a session is in use."""
    connection.execute(sa.update(sessions).where(sessions.c.id == session_id).values(seen=now))


def renew_session(connection: Connection, session_id: int, fresh: Session) -> Session | None:
    """Give an open session a new cookie and a newer proof; None where it has ended meanwhile."""
    mine = sa.and_(sessions.c.id == session_id, sessions.c.ended.is_(None))
    values = {name: getattr(fresh, name) for name in ("secret_hash", "seen", "proven", "method")}
    if connection.execute(sa.update(sessions).where(mine).values(**values)).rowcount != 1:
        return None
    return session_by_id(connection, session_id)


def end_sessions(
    connection: Connection,
    /,
    now: datetime,
    *,
    user_id: int | None = None,
    session_id: int | None = None,
    method: str | None = None,
) -> list[int]:
    """End the open sessions of a person, those proven by a method, or one, and with them those with apps; returns their ids.

    What is told narrows it. Raises ValueError when nothing is.
    """
    if user_id is None and session_id is None and method is None:
        raise ValueError("whose sessions, or which")
    wanted = [sessions.c.ended.is_(None), sessions.c.expires > now]
    if user_id is not None:
        wanted.append(sessions.c.user_id == user_id)
    if method is not None:
        wanted.append(sessions.c.method == method)
    if session_id is not None:
        wanted.append(sessions.c.id == session_id)
    owners = sa.select(sessions.c.id, sessions.c.user_id).where(*wanted).order_by(sessions.c.id)
    found = {row.id: row.user_id for row in connection.execute(owners)}
    if found:
        connection.execute(sa.update(sessions).where(sessions.c.id.in_(found)).values(ended=now))
    for number, owner in found.items():
        apps.sign_out(connection, now, owner, [apps.browser_key(number)])
    return list(found)


# Askings -----------------------------------------------------------------------------------------------------------


def insert_asking(connection: Connection, draft: Asking) -> Asking:
    """Store a new asking, and forget those that are over."""
    connection.execute(sa.delete(askings).where(askings.c.expires <= draft.created))
    return rows.add(connection, askings, draft)


def asking_by_hash(connection: Connection, secret_hash: bytes, now: datetime) -> Asking | None:
    """The asking whose cookie has this SHA-256, while it can be answered."""
    return rows.one(
        connection, askings, Asking, askings.c.secret_hash == secret_hash, askings.c.expires > now
    )


def asking_by_id(connection: Connection, asking_id: int, now: datetime) -> Asking | None:
    """The asking with this id, while it can be answered."""
    return rows.one(connection, askings, Asking, askings.c.id == asking_id, askings.c.expires > now)


def send_to_provider(
    connection: Connection, asking_id: int, provider_id: int, state: str, nonce: str, verifier: str
) -> None:
    """Note where a browser was sent with which secrets; what it was sent with before counts no longer."""
    values = {"provider_id": provider_id, "state": state, "nonce": nonce, "verifier": verifier}
    connection.execute(sa.update(askings).where(askings.c.id == asking_id).values(**values))


def take_state(connection: Connection, asking_id: int, state: str) -> bool:
    """Use up what a browser was sent out with; false where it was, or another has taken its place."""
    mine = sa.and_(askings.c.id == asking_id, askings.c.state == state, askings.c.state != "")
    return connection.execute(sa.update(askings).where(mine).values(state="")).rowcount == 1


def take_asking(connection: Connection, asking_id: int, now: datetime) -> bool:
    """Use an asking up. Of several who answer it exactly one is told true."""
    mine = sa.and_(askings.c.id == asking_id, askings.c.expires > now)
    return connection.execute(sa.delete(askings).where(mine)).rowcount == 1


def forget_askings(connection: Connection, act: str, user_id: int) -> int:
    """Make what a person is asked for one act worth nothing; returns how many there were."""
    mine = sa.and_(askings.c.act == act, askings.c.user_id == user_id)
    return connection.execute(sa.delete(askings).where(mine)).rowcount


# Outside providers -------------------------------------------------------------------------------------------------


def insert_provider(connection: Connection, draft: Provider) -> Provider:
    """Store a new provider. Raises Conflict with ``place`` "providers.name" for a name that is taken."""
    return rows.add(connection, providers, draft)


def all_providers(connection: Connection) -> list[Provider]:
    """Every provider, by id."""
    return rows.load(connection, providers, Provider)


def provider_by_id(connection: Connection, provider_id: int) -> Provider | None:
    """The provider with this id."""
    return rows.one(connection, providers, Provider, providers.c.id == provider_id)


def provider_by_name(connection: Connection, name: str) -> Provider | None:
    """The provider with this name."""
    return rows.one(connection, providers, Provider, providers.c.name == name)


def update_provider(connection: Connection, provider: Provider) -> Provider:
    """Store every field. Raises NotFound for a provider that is gone."""
    rows.change(connection, providers, provider)
    return provider


def delete_provider(connection: Connection, provider_id: int) -> int:
    """Forget a provider and who its subjects are here; returns how many those were. Raises NotFound."""
    linked = connection.execute(sa.delete(identities).where(identities.c.provider_id == provider_id)).rowcount
    rows.remove(connection, providers, provider_id)
    return linked


def insert_identity(connection: Connection, draft: Identity) -> Identity:
    """Note who a subject is. Raises Conflict for a subject that is somebody already."""
    return rows.add(connection, identities, draft)


def identity(connection: Connection, provider_id: int, subject: str) -> Identity | None:
    """Who a provider's subject is here."""
    return rows.one(
        connection,
        identities,
        Identity,
        identities.c.provider_id == provider_id,
        identities.c.subject == subject,
    )


def identities_of(connection: Connection, user_id: int) -> list[Identity]:
    """The subjects that a person is, by id."""
    return rows.load(connection, identities, Identity, identities.c.user_id == user_id)


def is_linked(connection: Connection, user_id: int, provider: str) -> bool:
    """True while a provider of this name has a subject that is this person."""
    known = provider_by_name(connection, provider)
    return known is not None and any(
        one.provider_id == known.id for one in identities_of(connection, user_id)
    )


def identities_at(connection: Connection, provider_id: int) -> list[Identity]:
    """The subjects of a provider that are somebody here, by id."""
    return rows.load(connection, identities, Identity, identities.c.provider_id == provider_id)


def update_identity(connection: Connection, changed: Identity) -> Identity:
    """Store what a subject's provider says now. Raises NotFound for one that is nobody any more."""
    rows.change(connection, identities, changed)
    return changed


def delete_identity(connection: Connection, identity_id: int) -> None:
    """A subject is nobody any more. Raises NotFound."""
    rows.remove(connection, identities, identity_id)


# People ------------------------------------------------------------------------------------------------------------


def can_sign_in(connection: Connection, user_ids: Iterable[int]) -> bool:
    """True if any of these people has a passkey or is a provider's subject."""
    wanted = list(user_ids)
    found = (
        connection.execute(sa.select(table.c.id).where(table.c.user_id.in_(wanted)).limit(1)).first()
        for table in (passkeys, identities)
    )
    return any(one is not None for one in found)


class Held(NamedTuple):
    """What a person has of each."""

    passkeys: int = 0
    identities: int = 0  # subjects of outside providers
    recovery_codes: int = 0  # not used yet
    sessions: int = 0  # open ones
    invited: datetime | None = None  # when their open invitation ends


def held(connection: Connection, now: datetime, user_id: int | None = None) -> dict[int, Held]:
    """What everybody has, or one person, by their id; who has nothing is left out. A handful of statements for all."""
    found: dict[int, Held] = {}
    for name, table, value, conditions in (
        ("passkeys", passkeys, sa.func.count(), []),
        ("identities", identities, sa.func.count(), []),
        ("recovery_codes", recovery_codes, sa.func.count(), [recovery_codes.c.used.is_(None)]),
        ("sessions", sessions, sa.func.count(), [sessions.c.ended.is_(None), sessions.c.expires > now]),
        (
            "invited",
            invitations,
            sa.func.max(invitations.c.expires),
            [invitations.c.used.is_(None), invitations.c.expires > now],
        ),
    ):
        owner = table.c.user_id
        wanted = owner.is_not(None) if user_id is None else owner == user_id
        statement = sa.select(owner, value).where(wanted, *conditions).group_by(owner)
        for one, amount in connection.execute(statement):
            found[one] = found.get(one, Held())._replace(**{name: amount})
    return found


def delete_all_of(connection: Connection, user_id: int) -> dict[str, int]:
    """Delete all by which a person signs in and has signed in, before the person is; how many of each there were."""
    return {
        table.name: connection.execute(sa.delete(table).where(table.c.user_id == user_id)).rowcount
        for table in (passkeys, identities, sessions, invitations, recovery_codes, askings)
    }


def delete_over(connection: Connection, before: datetime) -> int:
    """Forget sessions and invitations that were over before a moment; returns how many."""
    statements = (
        sa.delete(sessions).where(sa.or_(sessions.c.expires < before, sessions.c.ended < before)),
        sa.delete(invitations).where(sa.or_(invitations.c.expires < before, invitations.c.used < before)),
    )
    return sum(connection.execute(statement).rowcount for statement in statements)
