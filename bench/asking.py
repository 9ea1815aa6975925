"""A client that asks an identity provider as fast as it answers, in a process of its own: ``python -m bench.asking``.

What to do comes on stdin, a line of JSON for each ``Task``, and what came of it goes to stdout (``Answer``). Each of the ``parties``
has one connection that is kept open, and does the next thing when the last one is answered; so as many things are under way as
there are parties. The CPU of the server is read here, at the beginning and the end of what is counted.
"""

import asyncio
import os
import resource
import sys
import time
from collections.abc import Callable, Generator
from typing import Any, cast
from urllib.parse import quote, urlencode

import msgspec
import uvloop

from bench.machine import Process

FORM = "content-type: application/x-www-form-urlencoded\r\n"
PAGE = "sec-fetch-site: cross-site\r\nsec-fetch-mode: navigate\r\nsec-fetch-dest: document\r\n"


class Party(msgspec.Struct):
    """What one connection has. What it does not need is empty."""

    token: str = ""  # the refresh token, or the access token that is asked about
    cookie: str = ""  # of its person's browser
    network: str = (
        ""  # where its browsers are, by the word of a proxy: "10.7"; each sign-in is from another address
    )
    count: int = 0


class Task(msgspec.Struct, kw_only=True):
    """What to do."""

    kind: str  # a key of KINDS
    port: int
    host: str
    pids: list[int]  # the processes whose CPU counts
    parties: list[Party]
    seconds: float
    settle: float
    core: int | None = None
    authorize: str = ""  # path and query
    address: str = ""  # where every browser is, by the word of a proxy
    credentials: str = ""  # the Authorization header of the app
    back: str = ""
    verifier: str = ""


class Answer(msgspec.Struct):
    """What came of it."""

    count: int  # things done
    cpu: float  # seconds of the server, for these
    own: float  # seconds of ours
    passed: float
    waits: list[float]  # seconds of each
    tokens: list[str]  # what each party has at the end


class Reply(msgspec.Struct):
    """One response."""

    status: int
    head: bytes
    body: bytes


Steps = Generator[bytes, Reply, None]


class _Party(asyncio.Protocol):
    """One connection, which goes from thing to thing until it is told to stop."""

    def __init__(self, crowd: "Crowd", party: Party) -> None:
        self._crowd = crowd
        self.party = party
        self._buffer = b""
        self._transport: asyncio.Transport | None = None
        self._steps: Steps | None = None
        self._began = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one by its interface alone

    def begin(self) -> None:
        """The next thing."""
        assert self._transport is not None
        if self._crowd.over:
            self._crowd.left()
            return
        self._steps = self._crowd.steps(self.party)
        self._began = time.perf_counter()
        self._transport.write(next(self._steps))

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, blank, rest = self._buffer.partition(b"\r\n\r\n")
        if not blank:
            return
        size = _length(head)
        if len(rest) < size:
            return
        self._buffer = rest[size:]
        assert self._steps is not None
        assert self._transport is not None
        try:
            request = self._steps.send(Reply(int(head[9:12]), head, rest[:size]))
        except StopIteration:
            self._crowd.done(time.perf_counter() - self._began)
            self.begin()
        except ValueError as error:
            self._crowd.failed(error)
        else:
            self._transport.write(request)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._crowd.over:
            self._crowd.failed(exc or ConnectionError("the server closed a connection"))


def _length(head: bytes) -> int:
    at = head.lower().find(b"\r\ncontent-length:")
    if at < 0:
        raise ValueError(f"an answer of no known length: {head[:200]!r}")
    return int(head[at + 17 :].partition(b"\r\n")[0])


class Crowd:
    """Everybody who asks."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._steps = KINDS[task.kind]
        self._process = [Process(pid) for pid in task.pids]
        self._end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._there = 0
        self.over = False
        self.waits: list[float] = []

    def steps(self, party: Party) -> Steps:
        """What a party does next."""
        return self._steps(self._task, party)

    def done(self, seconds: float) -> None:
        """One thing was done."""
        self.waits.append(seconds)

    def left(self) -> None:
        """One party is at its end."""
        self._there -= 1
        if not self._there and not self._end.done():
            self._end.set_result(None)

    def failed(self, error: Exception) -> None:
        """Something is not as it should be: then no figure is worth anything."""
        if not self._end.done():
            self._end.set_exception(error)

    async def run(self) -> Answer:
        """All of it. Raises ValueError for an answer that is not the right one."""
        task = self._task
        loop = asyncio.get_running_loop()
        parties = [
            (await loop.create_connection(lambda one=one: _Party(self, one), "127.0.0.1", task.port))[1]  # type: ignore[misc]
            for one in task.parties
        ]
        self._there = len(parties)
        for one in parties:
            one.begin()
        await self._wait(task.settle)
        self.waits.clear()
        cpu, own, began = self._cpu(), time.process_time(), time.perf_counter()
        await self._wait(task.seconds)
        while not self.waits:  # on a busy machine a short time may be none
            await self._wait(task.seconds)
        cpu, own, passed = self._cpu() - cpu, time.process_time() - own, time.perf_counter() - began
        waits = list(self.waits)
        self.over = True
        async with asyncio.timeout(30):
            await self._end
        return Answer(len(waits), cpu, own, passed, waits, [one.party.token for one in parties])

    async def _wait(self, seconds: float) -> None:
        await asyncio.wait([self._end], timeout=seconds)
        if self._end.done():
            self._end.result()

    def _cpu(self) -> float:
        return sum(process.cpu() for process in self._process)


# What is asked ------------------------------------------------------------------------------------------------------


def _post(task: Task, path: str, credentials: str, **form: str) -> bytes:
    body = urlencode(form)
    shown = f"authorization: {credentials}\r\n" if credentials else ""
    head = f"POST {path} HTTP/1.1\r\nhost: {task.host}\r\n{shown}{FORM}content-length: {len(body)}\r\n\r\n"
    return f"{head}{body}".encode()


def _json(reply: Reply) -> dict[str, Any]:
    if reply.status != 200:
        raise ValueError(f"{reply.status}: {reply.body[:300]!r}")
    return msgspec.json.decode(reply.body, type=dict[str, Any])


def refresh(task: Task, party: Party) -> Steps:
    """Exchange a refresh token for the next one, and an access token."""
    form = {"grant_type": "refresh_token", "refresh_token": party.token}
    said = _json((yield _post(task, "/token", task.credentials, **form)))
    if not said["access_token"]:
        raise ValueError("no access token")
    party.token = said["refresh_token"]


def own(task: Task, _party: Party) -> Steps:
    """A token of the app's own."""
    said = _json((yield _post(task, "/token", task.credentials, grant_type="client_credentials")))
    if not said["access_token"]:
        raise ValueError("no access token")


def introspect(task: Task, party: Party) -> Steps:
    """Whether a token is good now."""
    said = _json((yield _post(task, "/introspect", task.credentials, token=party.token)))
    if said["active"] is not True:
        raise ValueError("a good token is called none")


def sign_in(task: Task, party: Party) -> Steps:
    """From the app's page and back, with who it was: authorize, token, userinfo."""
    code = yield from _code(task, party)
    form = {"grant_type": "authorization_code", "code": code, "redirect_uri": task.back}
    if task.verifier:
        form["code_verifier"] = task.verifier
    said = _json((yield _post(task, "/token", task.credentials, **form)))
    if said["id_token"].count(".") != 2:
        raise ValueError("no ID token")
    head = (
        f"GET /userinfo HTTP/1.1\r\nhost: {task.host}\r\nauthorization: Bearer {said['access_token']}\r\n\r\n"
    )
    person = _json((yield head.encode()))
    if not person["sub"]:
        raise ValueError("nobody")


def _code(task: Task, party: Party) -> Generator[bytes, Reply, str]:
    cookie = f"cookie: {party.cookie}\r\n" if party.cookie else ""
    party.count += 1
    number = f".{party.count >> 8 & 255}.{party.count & 255}"
    address = f"{party.network}{number}" if party.network else task.address
    head = f"GET {task.authorize} HTTP/1.1\r\nhost: {task.host}\r\n{PAGE}{cookie}x-forwarded-for: {address}\r\n\r\n"
    reply = yield head.encode()
    found = reply.head.partition(b"code=")[2].split(b"&")[0].split(b"\r")[0]
    if reply.status not in {302, 303} or not found:
        raise ValueError(f"no code: {reply.status}, {reply.head[:300]!r}, {reply.body[:300]!r}")
    return quote(found.decode())


KINDS: dict[str, Callable[[Task, Party], Steps]] = {
    "refresh": refresh,
    "own": own,
    "introspect": introspect,
    "sign in": sign_in,
}


async def _serve() -> None:
    while line := sys.stdin.buffer.readline():  # nothing else is going on meanwhile
        task = msgspec.json.decode(line, type=Task)
        if task.core is not None:
            os.sched_setaffinity(0, {task.core})
        sys.stdout.buffer.write(msgspec.json.encode(await Crowd(task).run()) + b"\n")
        sys.stdout.buffer.flush()


def main() -> None:
    """Do what stdin says, until its end."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    uvloop.run(_serve())


if __name__ == "__main__":
    main()
