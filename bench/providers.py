"""The identity providers that are measured: doorward's issuer, and ``cmd/tsidp``, each a real program with a real store."""

import asyncio
import base64
import hashlib
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self
from urllib.parse import urlencode

import httpx2
import msgspec
import sqlalchemy as sa
from sqlalchemy import Connection
from tests.support.clients import StockClient
from tests.support.machines import machines
from tests.support.programs import require, require_root
from tests.support.require import Missing
from tests.support.server import Server, free_port
from tests.support.signed_in import begin
from tests.support.waiting import until

from bench.asking import Answer, Party, Task
from bench.machine import CORES
from doorward.clock import SystemClock
from doorward.engine.processes import stop, tied_to_us
from doorward.engine.programs import ProgramError, cache_folder
from doorward.engine.setup import CLIENT_VERSION, build
from doorward.login.apps import Apps, Wanted
from doorward.login.doors import Place, place_of
from doorward.login.sessions import cookie_name
from doorward.model import AppGrant, RefreshToken, User
from doorward.store import Database, apps, rows, users
from doorward.store.tables import app_grants, refresh_tokens
from doorward.tailnet import secrets

BACK = "https://app.example.com/cb"
ALGORITHMS = ("ES256", "RS256")
TSIDP = "tailscale.com/cmd/tsidp"
_VERIFIER = "v" * 43
_CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(_VERIFIER.encode()).digest()).rstrip(b"=").decode()
_LONGEST = 64 << 20  # bytes of an answer: it has every wait
_CHUNK = 5000  # rows of one insert


class Asker:
    """The client, in a process of its own. ``async with`` starts and ends it.

    Args:
        prefix: a command that runs it elsewhere.
    """

    def __init__(self, *prefix: str) -> None:
        self._prefix = prefix
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *tied_to_us([*self._prefix, sys.executable, "-m", "bench.asking"]),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=_LONGEST,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        await stop(self._process, 2)

    async def ask(self, task: Task) -> Answer:
        """Do it. Raises RuntimeError when something was not answered as it should be; stderr says what."""
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(msgspec.json.encode(task) + b"\n")
        line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{task.kind} failed; stderr says why")
        return msgspec.json.decode(line, type=Answer)


class Issuer(NamedTuple):
    """Doorward, with one person, and an app for each algorithm."""

    server: Server
    location: str
    apps: dict[str, tuple[str, str]]  # by algorithm: client id and secret

    @property
    def door(self) -> Place:
        """Where apps and browsers ask."""
        return place_of(f"https://door.tailnet.internal:{self.server.door_port}")

    @asynccontextmanager
    async def store(self) -> AsyncIterator[Database]:
        """The same database, opened by us."""
        async with await Database.open(self.location, clock=SystemClock()) as database:
            yield database

    async def given(self, algorithm: str, count: int, scopes: Sequence[str]) -> list[str]:
        """The refresh tokens of so many new sessions with an app."""
        client_id, _ = self.apps[algorithm]
        found: list[str] = []
        async with self.store() as database:
            for start in range(0, count, _CHUNK):
                size = min(_CHUNK, count - start)
                found += await database.run(_give, client_id, size, tuple(scopes))
        return found

    async def access_token(self) -> str:
        """An access token of a person's."""
        (token,) = await self.given("ES256", 1, ("openid", "profile", "offline_access"))
        task = self.task("refresh", "ES256", [], seconds=0, settle=0)
        async with httpx2.AsyncClient(headers={"host": task.host, "authorization": task.credentials}) as app:
            form = {"grant_type": "refresh_token", "refresh_token": token}
            said = await app.post(f"http://127.0.0.1:{task.port}/token", data=form)
            return str(said.raise_for_status().json()["access_token"])

    async def browser(self) -> str:
        """The cookie of a browser in which the person has signed in."""
        async with self.store() as database:
            secret = await database.run(_sign_in, self.door.origin)
        return f"{cookie_name(self.door)}={secret}"

    def task(self, kind: str, algorithm: str, parties: list[Party], *, seconds: float, settle: float) -> Task:
        """What a client is to do here."""
        client_id, secret = self.apps[algorithm]
        asked = {
            "client_id": client_id,
            "redirect_uri": BACK,
            "response_type": "code",
            "scope": "openid profile",
            "state": "s",
            "nonce": "n",
            "code_challenge": _CHALLENGE,
            "code_challenge_method": "S256",
        }
        login = base64.b64encode(f"{client_id}:{secret}".encode()).decode()
        return Task(
            kind=kind,
            port=self.server.listens_at[1],
            host=self.door.origin.removeprefix("https://"),
            pids=[self.server.worker_pid()],
            parties=parties,
            seconds=seconds,
            settle=settle,
            core=CORES[-1],
            authorize=f"/authorize?{urlencode(asked)}",
            credentials=f"Basic {login}",
            back=BACK,
            verifier=_VERIFIER,
        )


@asynccontextmanager
async def issuer(database: str = "") -> AsyncIterator[Issuer]:
    """A running one, over SQLite or the PostgreSQL database at an address."""
    # As behind a proxy on this machine: plain HTTP, and its word for where browsers are.
    environ = {"DOORWARD_TAILSCALED": "off", "DOORWARD_TRUSTED_PROXIES": "127.0.0.1"}
    if database:
        environ["DOORWARD_DATABASE_URL"] = database
    server = Server(environ=environ, level="warning")
    location = database or str(server.folder / "doorward.db")
    async with await Database.open(location, clock=SystemClock()) as store:
        await store.run(users.insert, User(id=0, name="alice", created=SystemClock().now()))
        made: dict[str, tuple[str, str]] = {}
        for algorithm in ALGORITHMS:
            wanted = Wanted(algorithm.lower(), redirect_uris=(BACK,), service=True, algorithm=algorithm)
            app, secret = await Apps(store, SystemClock(), os.urandom).create("cli", wanted)
            made[algorithm] = (app.client_id, secret)
    async with server:
        yield Issuer(server, location, made)


def _give(connection: Connection, client_id: str, count: int, scopes: tuple[str, ...]) -> list[str]:
    app = apps.by_client_id(connection, client_id)
    assert app is not None
    (person,) = users.load_all(connection)
    now = SystemClock().now()
    drafts = [
        AppGrant(
            id=0,
            app_id=app.id,
            user_id=person.id,
            node_id=None,
            sid=f"sid-{number}",
            code_hash=os.urandom(32),
            redirect_uri=BACK,
            challenge=_CHALLENGE,
            nonce="n",
            scopes=scopes,
            resources=(),
            auth_time=now,
            acr="urn:doorward:acr:passkey",
            amr=("pop", "user"),
            created=now,
            code_expires=now,
            expires=now + timedelta(days=90),
            redeemed=now,
        )
        for number in range(count)
    ]
    before = connection.execute(sa.select(sa.func.coalesce(sa.func.max(app_grants.c.id), 0))).scalar_one()
    connection.execute(sa.insert(app_grants), [rows.fields(app_grants, draft) for draft in drafts])
    ids = connection.execute(sa.select(app_grants.c.id).where(app_grants.c.id > before)).scalars()
    made = [(number, secrets.make("dwrefresh", os.urandom(secrets.ENTROPY))) for number in ids]
    tokens = [
        RefreshToken(
            id=0, grant_id=number, secret_hash=secret.digest, created=now, expires=now + timedelta(days=30)
        )
        for number, secret in made
    ]
    connection.execute(sa.insert(refresh_tokens), [rows.fields(refresh_tokens, token) for token in tokens])
    return [secret.text for _, secret in made]


def _sign_in(connection: Connection, origin: str) -> str:
    (person,) = users.load_all(connection)
    return begin(connection, person.id, origin)


class Tsidp(NamedTuple):
    """A running tsidp, beside the stock client that it asks who somebody is."""

    pid: int
    daemon: int
    port: int
    address: str  # of the tailnet node whose browser signs in

    def asker(self) -> Asker:
        """A client in its network."""
        return Asker(str(require("nsenter")), "--net", "--target", str(self.pid))

    def task(self, parties: int, *, seconds: float, settle: float) -> Task:
        """Whole sign-ins. The client's CPU is part of it: it answers one of the three requests."""
        asked = {"client_id": "x", "redirect_uri": BACK, "response_type": "code", "scope": "openid"}
        return Task(
            kind="sign in",
            port=self.port,
            host=f"localhost:{self.port}",
            pids=[self.pid, self.daemon],
            parties=[Party() for _ in range(parties)],
            seconds=seconds,
            settle=settle,
            core=CORES[-1],
            authorize=f"/authorize/localhost?{urlencode(asked | {'state': 's', 'nonce': 'n'})}",
            address=f"{self.address}:1234",
            back=BACK,
        )


def require_tsidp(*, make: bool) -> Path:
    """The program; raises Missing without it. ``make``: build it where it is not there, which takes a minute the first time."""
    folder = cache_folder(os.environ) / f"tsidp-{CLIENT_VERSION}" / "bin"
    program = folder / TSIDP.rpartition("/")[2]
    if not program.exists() and make:
        with suppress(ProgramError):
            build(TSIDP, CLIENT_VERSION, folder)
    if not program.exists():
        raise Missing(f"tsidp {CLIENT_VERSION} is missing; make bench builds it where Go is")
    return program


@asynccontextmanager
async def tsidp(program: Path) -> AsyncIterator[Tsidp]:
    """A running one, on a tailnet of ours, with the stock client that it uses.

    It listens on its tailnet address, and finds the client at the usual place: so it lives in a network and a folder of its own.
    Without them it would take the machine's. As root.
    """
    require_root()
    async with Server(level="warning") as server, machines(server, "idp") as (client,):
        address = (await client.status())["Self"]["TailscaleIPs"][0]
        port = free_port()
        with tempfile.TemporaryDirectory(prefix="dw-tsidp-") as name:
            folder = Path(name)
            (folder / "tsidp").mkdir()
            log = folder / "log"
            async with _running(program, folder, client, address, port) as process:
                await until(lambda: "Also running tsidp" in log.read_text(errors="replace"), 20)
                yield Tsidp(process.pid, client.pid, port, address)


@asynccontextmanager
async def _running(
    program: Path, folder: Path, client: StockClient, address: str, port: int
) -> AsyncIterator[asyncio.subprocess.Process]:
    script = (
        'ip link set lo up && ip addr add "$1/32" dev lo && mkdir -p /run/tailscale '
        '&& mount -t tmpfs tmpfs /run/tailscale && ln -s "$2" /run/tailscale/tailscaled.sock '
        '&& exec "$3" -use-local-tailscaled -local-port "$4"'
    )
    environ = {
        "PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin",
        "HOME": str(folder),
        "XDG_CONFIG_HOME": str(folder),
        "TAILSCALE_USE_WIP_CODE": "1",
    }
    arguments = [address, str(client.socket), str(program), str(port)]
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *tied_to_us(
                [str(require("unshare")), "--mount", "--net", "sh", "-c", script, "tsidp", *arguments]
            ),
            stdout=log,
            stderr=log,
            env=environ,
        )
    try:
        yield process
    finally:
        await stop(process, 2)
