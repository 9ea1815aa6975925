"""Apps, and what people gave them. No netmap depends on any of it.

What is used up is used once: ``redeem``, ``take_refresh_tokens`` and ``take_pushed`` decide and mark in one statement, so of several who ask
for the same exactly one is told true. What ends in ``_all`` does the same for many with the statements of one, and what is found by
several keys is for ``Database.find``.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy import Connection

from doorward.model import (
    AccessToken,
    App,
    AppGrant,
    AppSession,
    Consent,
    DeviceRequest,
    LogoutNotice,
    PushedRequest,
    RefreshToken,
    UsedId,
)
from doorward.store import logouts, rows
from doorward.store.tables import (
    access_tokens as access_tokens_table,
)
from doorward.store.tables import (
    app_grants,
    app_sessions,
    apps,
    consents,
    device_requests,
    pushed_requests,
    refresh_tokens,
    used_ids,
)

_WANTED: sa.BindParameter[Any] = sa.bindparam("wanted", expanding=True)
_APPS = sa.select(apps).where(apps.c.client_id.in_(_WANTED))
_GRANTS = sa.select(app_grants).where(app_grants.c.id.in_(_WANTED))
_GRANTS_BY_CODE = sa.select(app_grants).where(app_grants.c.code_hash.in_(_WANTED))
_GRANTS_BY_TOKEN = (
    sa.select(
        refresh_tokens.c.secret_hash,
        refresh_tokens.c.id.label("token_id"),
        refresh_tokens.c.jkt.label("token_jkt"),
        refresh_tokens.c.node.label("token_node"),
        app_grants,
    )
    .join(app_grants, app_grants.c.id == refresh_tokens.c.grant_id)
    .where(refresh_tokens.c.secret_hash.in_(_WANTED))
)
_INSERT_ACCESS = sa.insert(access_tokens_table)
_INSERT_GRANTS = sa.insert(app_grants)
_GRANT_IDS = sa.select(app_grants.c.id, app_grants.c.code_hash).where(app_grants.c.code_hash.in_(_WANTED))
_SESSIONS = sa.select(app_sessions).where(app_sessions.c.key.in_(_WANTED))
_REDEEM = (
    sa.update(app_grants)
    .where(
        app_grants.c.id.in_(_WANTED),
        app_grants.c.redeemed.is_(None),
        app_grants.c.ended.is_(None),
        app_grants.c.code_expires > sa.bindparam("now"),
    )
    .values(redeemed=sa.bindparam("now"))
    .returning(app_grants.c.id)
)
_TAKE = (
    sa.update(refresh_tokens)
    .where(
        refresh_tokens.c.id.in_(_WANTED),
        refresh_tokens.c.used.is_(None),
        refresh_tokens.c.expires > sa.bindparam("now"),
    )
    .values(used=sa.bindparam("now"))
    .returning(refresh_tokens.c.id)
)
_INSERT_TOKENS = sa.insert(refresh_tokens)
_CONSENTS = sa.select(consents).where(consents.c.user_id.in_(_WANTED)).order_by(consents.c.id)

# Apps --------------------------------------------------------------------------------------------------------------


def insert(connection: Connection, draft: App) -> App:
    """Store a new app. Raises Conflict with ``place`` "apps.name" for a name that is taken."""
    return rows.add(connection, apps, draft)


def update(connection: Connection, app: App) -> App:
    """Store every field. Raises NotFound for an app that is gone."""
    rows.change(connection, apps, app)
    return app


def load_all(connection: Connection) -> list[App]:
    """Every app, by id."""
    return rows.load(connection, apps, App)


def by_name(connection: Connection, name: str) -> App | None:
    """The app with this name."""
    return rows.one(connection, apps, App, apps.c.name == name)


def by_client_ids(connection: Connection, client_ids: Sequence[str]) -> dict[str, App]:
    """The apps that call themselves so, by that."""
    return {app.client_id: app for app in rows.run(connection, _APPS, App, wanted=client_ids)}


def by_client_id(connection: Connection, client_id: str) -> App | None:
    """The app that calls itself so."""
    return rows.one(connection, apps, App, apps.c.client_id == client_id)


def by_id(connection: Connection, app_id: int) -> App | None:
    """The app with this id."""
    return rows.one(connection, apps, App, apps.c.id == app_id)


def with_scopes(connection: Connection) -> list[App]:
    """The apps that have scopes of their own, by id."""
    return rows.load(connection, apps, App, apps.c.scopes != ())


def shared_resources(connection: Connection) -> tuple[str, ...]:
    """What apps that come by themselves may have tokens for: whatever an administrator has said so of."""
    found = rows.load(connection, apps, App, apps.c.shared == sa.true())
    return tuple(dict.fromkeys(each for app in found for each in app.resources))


def delete(connection: Connection, app_id: int, now: datetime) -> int:
    """Forget an app with all that it was given; returns how many live grants those were. Raises NotFound."""
    live = sa.and_(app_grants.c.app_id == app_id, app_grants.c.ended.is_(None))
    count = connection.execute(sa.select(sa.func.count()).select_from(app_grants).where(live)).scalar_one()
    _tell(connection, now, app_grants.c.app_id == app_id)
    _forget(connection, app_grants.c.app_id == app_id)
    for table in (consents, pushed_requests, device_requests):
        connection.execute(sa.delete(table).where(table.c.app_id == app_id))
    rows.remove(connection, apps, app_id)
    return int(count)


def _forget(connection: Connection, which: sa.ColumnElement[bool]) -> int:
    """Delete grants and their tokens."""
    theirs = sa.select(app_grants.c.id).where(which)
    for table in (refresh_tokens, access_tokens_table):
        connection.execute(sa.delete(table).where(table.c.grant_id.in_(theirs)))
    return connection.execute(sa.delete(app_grants).where(which)).rowcount


def _tell(connection: Connection, now: datetime, *which: sa.ColumnElement[bool]) -> None:
    """Have the apps told that have tokens of these grants, and have not been told yet."""
    columns = (apps.c.name, apps.c.client_id, apps.c.algorithm, apps.c.logout_url)
    statement = (
        sa.select(*columns, app_grants.c.user_id, app_grants.c.sid)
        .join(apps, apps.c.id == app_grants.c.app_id)
        .where(
            *which, app_grants.c.ended.is_(None), app_grants.c.redeemed.is_not(None), apps.c.logout_url != ""
        )
        .distinct()
    )
    drafts = (
        LogoutNotice(
            id=0,
            app=name,
            client_id=client_id,
            algorithm=algorithm,
            url=url,
            user_id=user_id,
            sid=sid,
            created=now,
            due=now,
        )
        for name, client_id, algorithm, url, user_id, sid in connection.execute(statement).all()
    )
    logouts.queue(connection, drafts)


# Sessions ----------------------------------------------------------------------------------------------------------


def session(connection: Connection, key: str) -> AppSession | None:
    """The session with this key."""
    return rows.one(connection, app_sessions, AppSession, app_sessions.c.key == key)


def sessions_by_key(connection: Connection, keys: Sequence[str]) -> dict[str, AppSession]:
    """The sessions with these keys, by it."""
    return {one.key: one for one in rows.run(connection, _SESSIONS, AppSession, wanted=keys)}


def put_session(connection: Connection, wanted: AppSession) -> AppSession:
    """Store a session: a new one (id 0) in place of any with its key, or all fields of one that is there."""
    if wanted.id:
        rows.change(connection, app_sessions, wanted)
        return wanted
    connection.execute(sa.delete(app_sessions).where(app_sessions.c.key == wanted.key))
    return rows.add(connection, app_sessions, wanted)


def device_key(node_id: int, user_id: int) -> str:
    """The key of the session of a person who is known by their device."""
    return f"node:{node_id}:{user_id}"


def browser_key(session_id: int) -> str:
    """The key of the session of a person who signed in in a browser."""
    return f"session:{session_id}"


def browser_of(key: str) -> int | None:
    """The session of a browser that a key is of."""
    kind, _, number = key.partition(":")
    return int(number) if kind == "session" else None


def sign_out(
    connection: Connection, now: datetime, user_id: int, keys: Sequence[str], sids: Sequence[str] = ()
) -> list[int]:
    """End sessions of a person, and all that was given in them; the apps are told. Returns the grants that had not ended."""
    mine = sa.and_(app_sessions.c.user_id == user_id, app_sessions.c.key.in_(keys))
    # What was given before grants knew their session's key is known by the number alone.
    known = list(connection.execute(sa.select(app_sessions.c.sid).where(mine)).scalars())
    connection.execute(sa.delete(app_sessions).where(mine))
    given = sa.or_(app_grants.c.key.in_(keys), app_grants.c.sid.in_([*sids, *known]))
    return _end(connection, now, app_grants.c.user_id == user_id, given)


def end_use(connection: Connection, now: datetime, newest: AppGrant) -> list[int]:
    """End what a person gave to one app in the session of this grant; the app is told. Returns what had not ended."""
    given = app_grants.c.key == newest.key if newest.key else app_grants.c.sid == newest.sid
    theirs = (app_grants.c.app_id == newest.app_id, app_grants.c.user_id == newest.user_id)
    return _end(connection, now, *theirs, given)


def leave(connection: Connection, now: datetime, user_id: int, key: str, sid: str) -> None:
    """Have nobody come in by this key without saying yes on a page, until somebody does. ``sid``: a new number."""
    draft = AppSession(
        id=0, key=key, sid=sid, user_id=user_id, created=now, seen=now, acted=now, signed_out=now
    )
    put_session(connection, draft)


# Grants ------------------------------------------------------------------------------------------------------------


def insert_grant(connection: Connection, draft: AppGrant) -> AppGrant:
    """Store a new grant, with its code."""
    return rows.add(connection, app_grants, draft)


def insert_grants(connection: Connection, drafts: Sequence[AppGrant]) -> list[AppGrant]:
    """Store new grants, with two statements for all of them. Their codes tell them apart."""
    if any(draft.id for draft in drafts):
        raise ValueError("a draft for app_grants has id 0: ids are given by the database")
    connection.execute(_INSERT_GRANTS, [rows.fields(app_grants, draft) for draft in drafts])
    given = connection.execute(_GRANT_IDS, {"wanted": [draft.code_hash for draft in drafts]})
    ids: dict[bytes, int] = {row.code_hash: row.id for row in given}
    return [msgspec.structs.replace(draft, id=ids[draft.code_hash]) for draft in drafts]


def owner_of_sid(connection: Connection, app_id: int, sid: str) -> int | None:
    """Who gave something to an app under this number."""
    which = sa.and_(app_grants.c.app_id == app_id, app_grants.c.sid == sid)
    return connection.execute(sa.select(app_grants.c.user_id).where(which).limit(1)).scalar()


def grant_by_id(connection: Connection, grant_id: int) -> AppGrant | None:
    """The grant with this id, whether or not it is still good."""
    return rows.one(connection, app_grants, AppGrant, app_grants.c.id == grant_id)


def grants_by_code(connection: Connection, code_hashes: Sequence[bytes]) -> dict[bytes, AppGrant]:
    """The grants whose codes have these SHA-256, by it, whether or not they are still good."""
    return {one.code_hash: one for one in rows.run(connection, _GRANTS_BY_CODE, AppGrant, wanted=code_hashes)}


def grants_by_id(connection: Connection, ids: Sequence[int]) -> dict[int, AppGrant]:
    """The grants with these ids, whether or not they are still good."""
    return {one.id: one for one in rows.run(connection, _GRANTS, AppGrant, wanted=ids)}


def grants_by_refresh_token(
    connection: Connection, secret_hashes: Sequence[bytes]
) -> dict[bytes, tuple[int, AppGrant, str, str]]:
    """By the SHA-256 of a refresh token its id, its grant and the key and node that it is bound to, whether or not they are still good."""
    names = [column.name for column in app_grants.columns]
    return {
        row[0]: (row[1], AppGrant(**dict(zip(names, row[4:], strict=True))), row[2], row[3])
        for row in connection.execute(_GRANTS_BY_TOKEN, {"wanted": secret_hashes})
    }


def grant_of_session(connection: Connection, app_id: int, sid: str) -> AppGrant | None:
    """The newest grant to an app that somebody gave in this session of theirs and that still stands."""
    newest = (
        sa.select(sa.func.max(app_grants.c.id))
        .where(app_grants.c.app_id == app_id, app_grants.c.sid == sid)
        .where(app_grants.c.ended.is_(None), app_grants.c.redeemed.is_not(None))
        .scalar_subquery()
    )
    return rows.one(connection, app_grants, AppGrant, app_grants.c.id == newest)


def live_grants(connection: Connection, now: datetime, user_id: int) -> list[AppGrant]:
    """The grants of a person that tokens may still be made of, by id."""
    return rows.load(connection, app_grants, AppGrant, *_live(now), app_grants.c.user_id == user_id)


def live_grants_after(connection: Connection, now: datetime, last: int, limit: int) -> list[AppGrant]:
    """The same of everybody, so many of those with a larger id, by id."""
    return rows.load(connection, app_grants, AppGrant, *_live(now), app_grants.c.id > last, limit=limit)


def _live(now: datetime) -> tuple[sa.ColumnElement[bool], ...]:
    return app_grants.c.ended.is_(None), app_grants.c.redeemed.is_not(None), app_grants.c.expires > now


def redeem(connection: Connection, grant_id: int, now: datetime) -> bool:
    """Use a grant's code up: true once, while it is good."""
    fresh = sa.and_(
        app_grants.c.id == grant_id,
        app_grants.c.redeemed.is_(None),
        app_grants.c.ended.is_(None),
        app_grants.c.code_expires > now,
    )
    return connection.execute(sa.update(app_grants).where(fresh).values(redeemed=now)).rowcount == 1


def redeem_all(connection: Connection, ids: Sequence[int], now: datetime) -> set[int]:
    """Use the codes of grants up; those whose codes were good until now."""
    return set(connection.execute(_REDEEM, {"wanted": ids, "now": now}).scalars())


def end_grants(
    connection: Connection,
    now: datetime,
    *,
    grant_id: int | None = None,
    user_id: int | None = None,
    app_id: int | None = None,
    tell: bool = True,
) -> list[int]:
    """End one grant, or all of a person, perhaps to one app alone; returns the ids of those that had not ended.

    The apps are told, but for ``tell`` being false. Raises ValueError with neither a grant nor a person.
    """
    if grant_id is None and user_id is None:
        raise ValueError("which grant, or whose")
    which: list[sa.ColumnElement[bool]] = []
    if grant_id is not None:
        which.append(app_grants.c.id == grant_id)
    if user_id is not None:
        which.append(app_grants.c.user_id == user_id)
    if app_id is not None:
        which.append(app_grants.c.app_id == app_id)
    return _end(connection, now, *which, tell=tell)


def _end(
    connection: Connection, now: datetime, *which: sa.ColumnElement[bool], tell: bool = True
) -> list[int]:
    live = sa.select(app_grants.c.id).where(*which, app_grants.c.ended.is_(None))
    found = list(connection.execute(live).scalars())
    if found:
        if tell:
            _tell(connection, now, *which)
        connection.execute(sa.update(app_grants).where(app_grants.c.id.in_(found)).values(ended=now))
    return found


def give_code(connection: Connection, grant_id: int, code_hash: bytes, code_expires: datetime) -> bool:
    """Give a grant that has not been redeemed another code: true if there is one."""
    fresh = sa.and_(
        app_grants.c.id == grant_id, app_grants.c.redeemed.is_(None), app_grants.c.ended.is_(None)
    )
    values = {"code_hash": code_hash, "code_expires": code_expires}
    return connection.execute(sa.update(app_grants).where(fresh).values(**values)).rowcount == 1


def insert_refresh_token(connection: Connection, draft: RefreshToken) -> RefreshToken:
    """Store a new refresh token."""
    return rows.add(connection, refresh_tokens, draft)


def insert_refresh_tokens(connection: Connection, drafts: Sequence[RefreshToken]) -> None:
    """Store new refresh tokens."""
    if drafts:
        connection.execute(_INSERT_TOKENS, [rows.fields(refresh_tokens, draft) for draft in drafts])


def refresh_token(connection: Connection, secret_hash: bytes) -> RefreshToken | None:
    """The refresh token with this SHA-256, whether or not it is still good."""
    return rows.one(connection, refresh_tokens, RefreshToken, refresh_tokens.c.secret_hash == secret_hash)


def take_refresh_tokens(connection: Connection, ids: Sequence[int], now: datetime) -> set[int]:
    """Use refresh tokens up; those that were good until now."""
    return set(connection.execute(_TAKE, {"wanted": ids, "now": now}).scalars())


def refresh_token_used(connection: Connection, token_id: int) -> bool:
    """True for a refresh token that was exchanged."""
    used = sa.and_(refresh_tokens.c.id == token_id, refresh_tokens.c.used.is_not(None))
    return connection.execute(sa.select(refresh_tokens.c.id).where(used)).first() is not None


def insert_access_tokens(connection: Connection, drafts: Sequence[AccessToken]) -> list[None]:
    """Store access tokens that say nothing by themselves."""
    connection.execute(_INSERT_ACCESS, [rows.fields(access_tokens_table, draft) for draft in drafts])
    return [None] * len(drafts)


def access_tokens(connection: Connection, secret_hashes: Sequence[bytes]) -> dict[bytes, AccessToken]:
    """By its SHA-256 each of these, whether or not it is still good."""
    found = rows.load(
        connection, access_tokens_table, AccessToken, access_tokens_table.c.secret_hash.in_(secret_hashes)
    )
    return {each.secret_hash: each for each in found}


# Requests that wait for a browser ----------------------------------------------------------------------------------


def insert_pushed(connection: Connection, draft: PushedRequest) -> PushedRequest:
    """Store a request that an app has pushed."""
    return rows.add(connection, pushed_requests, draft)


def take_pushed(
    connection: Connection, app_id: int, secret_hash: bytes, now: datetime
) -> PushedRequest | None:
    """Use an app's request up: it is told to one of all who ask for it, while it is good, and to nobody for another app."""
    found = rows.one(
        connection,
        pushed_requests,
        PushedRequest,
        pushed_requests.c.secret_hash == secret_hash,
        pushed_requests.c.app_id == app_id,
        pushed_requests.c.expires > now,
    )
    if found is None:
        return None
    gone = connection.execute(sa.delete(pushed_requests).where(pushed_requests.c.id == found.id)).rowcount
    return found if gone == 1 else None


def use_once(connection: Connection, digest: bytes, now: datetime, expires: datetime) -> None:
    """Note that this was shown, until ``expires``. Raises Conflict with ``place`` "used_ids.digest" where it had been."""
    over = sa.and_(used_ids.c.digest == digest, used_ids.c.expires < now)
    connection.execute(sa.delete(used_ids).where(over))
    rows.add(connection, used_ids, UsedId(id=0, digest=digest, expires=expires))


# Devices without a browser -----------------------------------------------------------------------------------------


def insert_device_request(connection: Connection, draft: DeviceRequest) -> DeviceRequest:
    """Store a device's request. Raises Conflict with ``place`` "device_requests.user_hash" for a code that is taken."""
    return rows.add(connection, device_requests, draft)


def device_request(connection: Connection, device_hash: bytes) -> DeviceRequest | None:
    """The request that a device asks after, whatever became of it."""
    return rows.one(connection, device_requests, DeviceRequest, device_requests.c.device_hash == device_hash)


def waiting_device_request(
    connection: Connection, now: datetime, *, user_hash: bytes = b"", request_id: int = 0
) -> DeviceRequest | None:
    """The request with this code or this id that nobody has answered yet, while it is good."""
    which = device_requests.c.user_hash == user_hash if user_hash else device_requests.c.id == request_id
    return rows.one(connection, device_requests, DeviceRequest, which, _waits(now))


def _waits(now: datetime) -> sa.ColumnElement[bool]:
    return sa.and_(
        device_requests.c.denied == sa.false(),
        device_requests.c.grant_id.is_(None),
        device_requests.c.expires > now,
    )


def answer_device_request(
    connection: Connection, request_id: int, now: datetime, grant_id: int | None
) -> bool:
    """Say yes with a grant, or no with None: true once, while it waits."""
    mine = sa.and_(device_requests.c.id == request_id, _waits(now))
    statement = sa.update(device_requests).where(mine).values(denied=grant_id is None, grant_id=grant_id)
    return connection.execute(statement).rowcount == 1


def device_polled(connection: Connection, request_id: int, now: datetime, interval: int) -> None:
    """Note that a device has asked, and how long it has to wait from now on."""
    statement = sa.update(device_requests).where(device_requests.c.id == request_id)
    connection.execute(statement.values(polled=now, interval=interval))


def delete_device_request(connection: Connection, request_id: int) -> None:
    """Forget a request whose device knows what became of it."""
    connection.execute(sa.delete(device_requests).where(device_requests.c.id == request_id))


# Consents ----------------------------------------------------------------------------------------------------------


def insert_consent(connection: Connection, draft: Consent) -> Consent:
    """Remember a yes, in place of what was said before about the same place on the same device."""
    same = sa.and_(
        consents.c.app_id == draft.app_id,
        consents.c.user_id == draft.user_id,
        consents.c.node_id.is_not_distinct_from(draft.node_id),
        consents.c.host == draft.host,
    )
    connection.execute(sa.delete(consents).where(same))
    return rows.add(connection, consents, draft)


def consents_of_all(connection: Connection, users: Sequence[int]) -> dict[int, list[Consent]]:
    """What these people have said yes to, whether or not it still counts, by person; nothing of who never has."""
    found: dict[int, list[Consent]] = {}
    for one in rows.run(connection, _CONSENTS, Consent, wanted=users):
        found.setdefault(one.user_id, []).append(one)
    return found


def consents_by(connection: Connection, user_id: int, now: datetime) -> list[Consent]:
    """All that a person has said yes to and that still counts, by id."""
    return rows.load(connection, consents, Consent, consents.c.user_id == user_id, consents.c.expires > now)


def delete_consents(
    connection: Connection, user_id: int, *, consent_id: int | None = None, app_id: int | None = None
) -> int:
    """Forget a yes of a person, or all of theirs to one app; how many. Raises ValueError without either."""
    if consent_id is None and app_id is None:
        raise ValueError("which yes, or to which app")
    which = [consents.c.user_id == user_id]
    if consent_id is not None:
        which.append(consents.c.id == consent_id)
    if app_id is not None:
        which.append(consents.c.app_id == app_id)
    return connection.execute(sa.delete(consents).where(*which)).rowcount


# People ------------------------------------------------------------------------------------------------------------


def delete_all_of(connection: Connection, user_id: int, now: datetime) -> dict[str, int]:
    """Delete all that a person gave to apps, before the person is; how many of each there were."""
    _tell(connection, now, app_grants.c.user_id == user_id)
    for owned in rows.load(connection, apps, App, apps.c.owner_id == user_id):
        delete(connection, owned.id, now)
    found = {"app_grants": _forget(connection, app_grants.c.user_id == user_id)}
    for table in (app_sessions, consents):
        found[table.name] = connection.execute(sa.delete(table).where(table.c.user_id == user_id)).rowcount
    return found


def delete_over(connection: Connection, now: datetime, before: datetime) -> int:
    """Forget what ended before a moment, and codes that nobody redeemed; returns how many rows."""
    over = sa.or_(
        app_grants.c.expires < before,
        app_grants.c.ended < before,
        sa.and_(app_grants.c.redeemed.is_(None), app_grants.c.code_expires < before),
    )
    spent = connection.execute(sa.delete(refresh_tokens).where(refresh_tokens.c.expires < now)).rowcount
    gone = _forget(connection, over)
    statements = (
        sa.delete(consents).where(consents.c.expires < now),
        sa.delete(pushed_requests).where(pushed_requests.c.expires < now),
        # Those that are over are told so for a while.
        sa.delete(device_requests).where(device_requests.c.expires < before),
        sa.delete(used_ids).where(used_ids.c.expires < now),
        sa.delete(access_tokens_table).where(access_tokens_table.c.expires < now),
        sa.delete(app_sessions).where(app_sessions.c.seen < before),
    )
    return spent + gone + sum(connection.execute(statement).rowcount for statement in statements)
