"""What is good once is given once by real servers: by two at the same moment, and by one that is killed while it answers."""

import asyncio
import base64
import os
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self

import httpx2
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey
from sqlalchemy import Connection
from tests.interop.test_several import share_keys
from tests.support import nouns, once
from tests.support.office import PAGE, challenge
from tests.support.postgres import Cluster
from tests.support.server import Server
from tests.support.waiting import eventually, promptly

from doorward.clock import SystemClock
from doorward.issuer.pushed import URN
from doorward.model import App
from doorward.store import Database, apps, signin, users
from doorward.tailnet import secrets

pytestmark = [
    pytest.mark.interop,
    pytest.mark.timeout(180),
]  # servers that start again, on a machine with much else to do

DOOR = "https://door.tailnet.internal:8443"
VERIFIER = "v" * 43
COOKIE = "a cookie"
KEY = ECKey.generate_key("P-256")
SIGNER = "app-signer"
COUNT = 8  # of each kind


@pytest.fixture
def database(postgres: Cluster) -> Iterator[str]:
    made = postgres.create_database()
    yield made
    postgres.drop_database(made)


def server_at(location: str = "", region: int = 900) -> Server:
    environ = {"DOORWARD_TAILSCALED": "off", "DOORWARD_DOOR": DOOR, "DOORWARD_RELAY_REGION": str(region)}
    return Server(
        environ=environ | ({"DOORWARD_DATABASE_URL": location} if location else {}), level="warning"
    )


async def fill(location: str) -> None:
    """What is good once, somebody who has signed in with a browser, and an app that signs."""
    clock = SystemClock()
    async with await Database.open(location, clock=clock) as store:
        await store.run(once.store, COUNT, clock.now(), challenge(VERIFIER))
        await store.run(_fill)


def _fill(connection: Connection) -> None:
    now = SystemClock().now()
    (person,) = users.load_all(connection)
    signin.insert_session(
        connection, nouns.session(person.id, now, secret_hash=secrets.digest(COOKIE), origin=DOOR)
    )
    app = App(
        id=0,
        name="signer",
        client_id=SIGNER,
        secret_hash=os.urandom(32),
        keys=(KEY.as_dict(private=False) | {"kid": "1"},),
        service=True,
        algorithm="ES256",
        actor="cli",
        created=now,
    )
    apps.insert(connection, app)


class Asker:
    """Somebody who uses things up at a server."""

    def __init__(self, server: Server) -> None:
        login = base64.b64encode(f"{once.CLIENT_ID}:{once.SECRET}".encode()).decode()
        self._app = {"authorization": f"Basic {login}"}
        host = {"host": DOOR.removeprefix("https://")}
        self._client = httpx2.AsyncClient(base_url=server.url, headers=host, timeout=60)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def use(self, kind: str, number: int) -> bool | None:
        """Whether it was good; None without an answer."""
        try:
            said = await self._ask(kind, number)
        except httpx2.TransportError:
            return None
        assert said.status_code in {200, 303, 400, 401}, said.text
        return said.status_code in {200, 303}

    async def _ask(self, kind: str, number: int) -> httpx2.Response:
        text = once.name_of(kind, number)
        if kind == "pushed":
            url = httpx2.URL("/authorize", params={"client_id": once.CLIENT_ID, "request_uri": URN + text})
            return await self._client.get(url, headers=PAGE | {"cookie": f"__Host-doorward={COOKIE}"})
        if kind == "assertion":
            return await self._client.post("/token", data=_signed(number))
        forms = {
            "code": {
                "grant_type": "authorization_code",
                "code": text,
                "redirect_uri": once.BACK,
                "code_verifier": VERIFIER,
            },
            "refresh": {"grant_type": "refresh_token", "refresh_token": text},
            "device": {"grant_type": "urn:ietf:params:oauth:grant-type:device_code", "device_code": text},
        }
        return await self._client.post("/token", data=forms[kind], headers=self._app)

    async def answers(self) -> bool:
        """Whether anybody is there."""
        try:
            return (await self._client.get("/.well-known/jwks.json")).status_code == 200
        except httpx2.TransportError:
            return False


def _signed(number: int) -> dict[str, str]:
    now = int(SystemClock().now().timestamp())
    claims: dict[str, Any] = {"iss": SIGNER, "sub": SIGNER, "aud": DOOR, "iat": now, "exp": now + 240}
    return {
        "grant_type": "client_credentials",
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "client_assertion": jwt.encode(
            {"alg": "ES256", "kid": "1"}, claims | {"jti": once.name_of("assertion", number)}, KEY
        ),
    }


@asynccontextmanager
async def two_servers(location: str) -> AsyncIterator[tuple[Server, Server]]:
    async with server_at(location, 901) as first:
        second = server_at(location, 902)
        share_keys(first, second)
        async with second:
            yield first, second


async def test_two_servers_on_one_database_give_each_once(database: str) -> None:
    await fill(database)
    async with (
        two_servers(database) as servers,
        Asker(servers[0]) as here,
        Asker(servers[1]) as there,
    ):
        for kind in once.USES:
            for number in range(1, COUNT + 1):
                told = await asyncio.gather(*(each.use(kind, number) for each in (here, there) * 2))
                assert sorted(map(bool, told)) == [False] * 3 + [True], (kind, number, told)


@pytest.mark.parametrize("shared", [False, True], ids=["sqlite", "postgresql"])
async def test_killed_while_it_answers_it_gives_none_twice(
    shared: bool, request: pytest.FixtureRequest
) -> None:
    location = str(request.getfixturevalue("database")) if shared else ""
    server = server_at(location)
    await fill(location or str(server.folder / "doorward.db"))
    async with server, Asker(server) as asker:
        for numbers, answers in (((1, 2, 3), 1), ((4, 5, 6), 5), ((7, 8), 7)):
            everything = [(kind, number) for kind in once.USES for number in numbers]
            first = await _killed_after(server, asker, everything, answers)
            await eventually(asker.answers, within=30)
            for (kind, number), before in zip(everything, first, strict=True):
                told = [before, *[await asker.use(kind, number) for _ in range(2)]]
                assert None not in told[1:]
                assert told.count(True) <= 1, (kind, number, told)


async def _killed_after(
    server: Server, asker: Asker, everything: Sequence[tuple[str, int]], count: int
) -> Sequence[bool | None]:
    """Everything is asked for at once, and the worker is killed when so much is answered; what each was told."""
    worker, left = server.worker_pid(), count

    async def use(kind: str, number: int) -> bool | None:
        nonlocal left
        good = await asker.use(kind, number)
        left -= 1
        if not left:
            os.kill(worker, signal.SIGKILL)
        return good

    told = await asyncio.gather(*(use(*one) for one in everything))
    await promptly(lambda: _is_gone(worker), within=10)
    assert sum(map(bool, told)) >= count
    return told


async def _is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False
