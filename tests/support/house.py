"""What a client of the issuer meets: a real server, a device of the tailnet, apps, and programs that ask the door through the device."""

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import httpx2
from tests.support.clients import StockClient
from tests.support.machines import machines
from tests.support.server import Server
from tests.support.visiting import Visitor
from tests.support.waiting import eventually, until

from doorward.engine.processes import stop, tied_to_us

_ROOT = Path(__file__).parents[2]
_ANSWERS_WITHIN = 60  # seconds, of a program on a busy machine
_EVERYBODY = '{"tagOwners": {"tag:robot": []}, "grants": [{"src": ["*"], "dst": ["*"], "ip": ["*"]}]}'


class MadeApp(NamedTuple):
    """An app as ``doorward apps create`` has made it."""

    name: str
    client_id: str
    secret: str
    issuer: str


@dataclass
class House:
    """A server whose door can be asked through ``laptop``, a stock client of its only person, alice.

    Attributes:
        issuer: the door's address.
        authority: a file with the certificate of the door's authority.
        environ: with these variables a program asks the door through the laptop, and trusts that authority alone.
    """

    server: Server
    laptop: StockClient
    issuer: str
    authority: Path
    environ: dict[str, str]

    async def app(self, name: str, *options: str) -> MadeApp:
        """Make an app, with options of ``doorward apps create``."""
        made = await self.server.json("apps", "create", name, *options)
        return MadeApp(name, made["app"]["client_id"], made.get("secret", ""), made["app"]["issuer"])

    async def is_open(self) -> None:
        """Wait until the door answers through the laptop."""

        async def answers() -> bool:
            with contextlib.suppress(httpx2.HTTPError):
                async with self.visitor() as browser:
                    told = await browser.fetch("GET", f"{self.issuer}/.well-known/openid-configuration")
                    return told.status_code == 200
            return False

        await self.server.own_node(40)
        await eventually(answers, 40)

    def visitor(self, apps: Mapping[str, int] | None = None, *, on: StockClient | None = None) -> Visitor:
        """A new browser on the laptop or on another device (``tests.support.visiting``)."""
        return Visitor(self.authority, f"http://localhost:{(on or self.laptop).http_port}", apps)

    def outsider(self, apps: Mapping[str, int] | None = None) -> Visitor:
        """A browser outside the tailnet: it comes to the public listener, by a proxy that ends TLS."""
        host, port = self.issuer.removeprefix("https://").partition(":")[0], self.server.listens_at[1]
        return Visitor(self.authority, "", {**(apps or {}), host: port})

    async def age_keys(self, days: float) -> None:
        """Make the issuer's keys older in the database, and have a new worker read them."""
        server, back = self.server, int(days * 86400 * 1_000_000)
        changed = "UPDATE signing_keys SET created = created - ?, starts = starts - ?"
        with (
            contextlib.closing(sqlite3.connect(server.folder / "doorward.db", timeout=30)) as database,
            database,
        ):
            database.execute(changed, (back, back))
        before = server.worker_pid()
        os.kill(before, signal.SIGKILL)
        await until(lambda: server.worker_pid() != before, 40)
        await self.is_open()

    async def published_keys(self) -> set[str]:
        """The names of the keys that verifiers are told of."""
        async with self.visitor() as browser:
            told = await browser.fetch("GET", f"{self.issuer}/.well-known/jwks.json")
        return {key["kid"] for key in told.json()["keys"]}

    @contextlib.asynccontextmanager
    async def policy(self, *grants: Mapping[str, Any]) -> AsyncIterator[None]:
        """More grants in the policy for a while; then the first policy is in force again."""
        policy = json.loads(_EVERYBODY)
        policy["grants"] += grants
        await self.server.set_policy(json.dumps(policy))
        try:
            yield
        finally:
            await self.server.set_policy(_EVERYBODY)

    @contextlib.asynccontextmanager
    async def program(
        self, command: Sequence[str | Path], *, environ: Mapping[str, str] | None = None
    ) -> "AsyncIterator[Program]":
        """A program of the test's that has a client in it, for as long as the block lasts."""
        with tempfile.TemporaryFile() as said:
            process = await asyncio.create_subprocess_exec(
                *tied_to_us(command),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=said,
                env=self.environ | dict(environ or {}),
                limit=1 << 22,
            )
            try:
                yield Program(process, said)
            finally:
                assert process.stdin is not None
                process.stdin.close()
                await stop(process, 5)


class ProgramError(AssertionError):
    """What a client did not like.

    Attributes:
        kind: the error's name in the client's language.
        told: more of it, where there is more: ``error`` of the issuer's answer.
    """

    def __init__(self, kind: str, message: str, told: Mapping[str, Any]) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind
        self.message = message
        self.told = dict(told)


class Program:
    """Speaks lines of JSON: ``{"do": NAME, ...}`` gets ``{"done": ...}``, or ``{"error": KIND, "message": ..., "told": {...}}``."""

    def __init__(self, process: asyncio.subprocess.Process, said: BinaryIO) -> None:
        self._process = process
        self._said = said

    async def do(self, what: str, **more: Any) -> Any:
        """Have it do something; returns what it found. Raises ProgramError for what its client did not like."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": what, **more}).encode() + b"\n")
        async with asyncio.timeout(_ANSWERS_WITHIN):
            line = await self._process.stdout.readline()
        assert line, f"the program ended:\n{self._words()}"
        answer = json.loads(line)
        if "error" in answer:
            raise ProgramError(answer["error"], answer.get("message", ""), answer.get("told") or {})
        return answer.get("done")

    def _words(self) -> str:
        """The last that it said of itself."""
        self._said.seek(0)
        return self._said.read()[-4000:].decode(errors="replace")


@contextlib.asynccontextmanager
async def open_house(server: Server) -> AsyncIterator[House]:
    """The house around a server that has just started."""
    await server.set_policy(_EVERYBODY)
    async with machines(server, "laptop") as (laptop,):
        await server.own_node()
        authority = server.folder / "authority.pem"
        authority.write_text((await server.run("ca")).stdout, encoding="ascii")
        issuer = f"https://door.tailnet.internal:{server.door_port}"
        yield House(server, laptop, issuer, authority, _environ(laptop, authority))


def _environ(device: StockClient, authority: Path) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("DOORWARD_", "TS_", "SSL_CERT_")) and not name.lower().endswith("_proxy")
    }
    proxy = f"http://localhost:{device.http_port}"
    trusted = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")
    return (
        kept
        | dict.fromkeys(trusted, str(authority))
        | {"HTTPS_PROXY": proxy, "https_proxy": proxy, "NODE_USE_ENV_PROXY": "1"}
        | dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost")
        # In another environment than ours doorward is not installed.
        | {"PYTHONPATH": f"{_ROOT / 'src'}{os.pathsep}{_ROOT}"}
    )
