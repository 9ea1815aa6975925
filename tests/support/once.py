"""What is good once: codes, refresh tokens, device codes, pushed requests, assertions. Stored, used, and used by a program that dies of it.

Run as ``python -m tests.support.once LOCATION`` a process for each kind and each moment uses one up, and is killed: ``written`` is
after the first statement that changes anything, ``committing`` when all is done but the commit, ``committed`` before anybody is told.
It prints how each of them ended.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, event

from doorward.clock import SystemClock
from doorward.errors import Conflict
from doorward.issuer.dpop import UNBOUND
from doorward.issuer.grants import device_code
from doorward.issuer.grants.authorization_code import Redemption, redeem_all
from doorward.issuer.grants.refresh_token import Outcome, Rotation, rotate_all
from doorward.model import App, AppGrant, DeviceRequest, PushedRequest, RefreshToken, User
from doorward.store import Database, apps, users
from doorward.tailnet import secrets

BACK = "https://app.example.com/cb"
CLIENT_ID, SECRET = "app-once", "a secret"
MOMENTS = ("written", "committing", "committed")


def name_of(kind: str, number: int) -> str:
    """The text of a code, token or name of this kind."""
    return f"{kind}-{number}"


def store(connection: Connection, count: int, now: datetime, challenge: str = "") -> None:
    """An app, a person, and so many of each kind that are good now, with numbers from 1 on."""
    person = users.insert(connection, User(id=0, name="alice", created=now))
    app = App(
        id=0,
        name="once",
        client_id=CLIENT_ID,
        secret_hash=secrets.digest(SECRET),
        redirect_uris=(BACK,),
        device=True,
        service=True,
        algorithm="ES256",
        actor="cli",
        created=now,
    )
    app = apps.insert(connection, app)
    later = now + timedelta(hours=1)
    for number in range(1, count + 1):
        for kind in ("code", "refresh", "device"):
            draft = AppGrant(
                id=0,
                app_id=app.id,
                user_id=person.id,
                node_id=None,
                sid=f"sid-{number}",
                code_hash=secrets.digest(name_of(kind if kind == "code" else f"no {kind}", number)),
                redirect_uri=BACK,
                challenge=challenge,
                nonce="",
                scopes=("openid", "offline_access"),
                resources=(),
                auth_time=now,
                acr="urn:doorward:acr:passkey",
                amr=("pop", "user"),
                created=now,
                code_expires=later,
                expires=later,
                redeemed=now if kind == "refresh" else None,
            )
            made = apps.insert_grant(connection, draft)
            digest = secrets.digest(name_of(kind, number))
            if kind == "refresh":
                token = RefreshToken(id=0, grant_id=made.id, secret_hash=digest, created=now, expires=later)
                apps.insert_refresh_tokens(connection, [token])
            elif kind == "device":
                device = DeviceRequest(
                    id=0,
                    app_id=app.id,
                    device_hash=digest,
                    user_hash=secrets.digest(name_of("user", number)),
                    scopes=made.scopes,
                    resources=(),
                    levels=(),
                    address="192.0.2.1",
                    node_id=None,
                    created=now,
                    expires=later,
                    grant_id=made.id,
                )
                apps.insert_device_request(connection, device)
        pushed = PushedRequest(
            id=0,
            app_id=app.id,
            secret_hash=secrets.digest(name_of("pushed", number)),
            pairs=(
                ("client_id", CLIENT_ID),
                ("redirect_uri", BACK),
                ("response_type", "code"),
                ("scope", "openid"),
            ),
            expires=later,
        )
        apps.insert_pushed(connection, pushed)


def _fresh() -> secrets.Secret:
    return secrets.make("dwrefresh", os.urandom(secrets.ENTROPY))


async def _app(database: Database) -> App:
    found = await database.find(apps.by_client_ids, CLIENT_ID)
    assert found is not None
    return found


async def _code(database: Database, number: int, now: datetime) -> bool:
    grant = await database.find(apps.grants_by_code, secrets.digest(name_of("code", number)))
    assert grant is not None
    asked = Redemption(await _app(database), grant.id, _fresh(), now)
    return await database.share(redeem_all, asked)


async def _refresh(database: Database, number: int, now: datetime) -> bool:
    found = await database.read(apps.refresh_token, secrets.digest(name_of("refresh", number)))
    assert found is not None
    asked = Rotation(await _app(database), found.id, found.grant_id, _fresh(), "alice", now)
    return await database.share(rotate_all, asked) is Outcome.GOOD


async def _device(database: Database, number: int, now: datetime) -> bool:
    digest = secrets.digest(name_of("device", number))
    found = await database.read(apps.device_request, digest)
    if found is None:
        return False
    assert found.grant_id is not None
    app = await _app(database)
    return await database.run(device_code._take, app, digest, found.grant_id, _fresh(), UNBOUND, now)


async def _pushed(database: Database, number: int, now: datetime) -> bool:
    app, digest = await _app(database), secrets.digest(name_of("pushed", number))
    return await database.run(apps.take_pushed, app.id, digest, now) is not None


async def _assertion(database: Database, number: int, now: datetime) -> bool:
    digest = secrets.digest(name_of("assertion", number))
    try:
        await database.run(apps.use_once, digest, now, now + timedelta(minutes=5))
    except Conflict:
        return False
    return True


# Each uses what has this number up, and says whether it was good until then.
USES: dict[str, Callable[[Database, int, datetime], Awaitable[bool]]] = {
    "code": _code,
    "refresh": _refresh,
    "device": _device,
    "pushed": _pushed,
    "assertion": _assertion,
}


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _watch(moment: str) -> None:
    def written(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if statement.lstrip().upper().startswith(("INSERT", "UPDATE", "DELETE")):
            _die()

    if moment == "written":
        event.listen(Engine, "after_cursor_execute", written)
    elif moment == "committing":
        event.listen(Engine, "commit", lambda connection: _die() if connection.engine in writers else None)


writers: set[Engine] = set()  # a reader's transaction ends with a commit, too


async def _use(location: str, kind: str, moment: str) -> None:
    clock = SystemClock()
    async with await Database.open(location, clock=clock) as database:
        writers.add(database._engines.writer)
        _watch(moment)
        if await USES[kind](database, number_of(moment), clock.now()):
            _die()


def number_of(moment: str) -> int:
    """Which one is used by the process that is killed at this moment."""
    return MOMENTS.index(moment) + 1


def _main(location: str) -> None:
    for kind in USES:
        for moment in MOMENTS:
            child = os.fork()  # nothing is open yet, and there is one thread
            if not child:
                asyncio.run(_use(location, kind, moment))
                os._exit(0)
            _, status = os.waitpid(child, 0)
            sys.stdout.write(f"{kind} {moment} {os.waitstatus_to_exitcode(status)}\n")


if __name__ == "__main__":
    _main(*sys.argv[1:])
