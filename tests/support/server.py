"""A real ``doorward serve`` in a folder of its own, and its own command line against it."""

import asyncio
import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.processes import gone
from tests.support.programs import require
from tests.support.relay import Leaf

from doorward.engine.processes import stop, tied_to_us

_given: set[int] = set()


def free_port() -> int:
    """A TCP port that nobody listens on now; each is given once.

    Below those that the kernel hands out by itself (from 32768 on): any connection may have taken one of these until it is used.
    """
    while True:
        port = secrets.choice(range(20000, 32768))
        if port in _given:
            continue
        _given.add(port)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class Server:
    """``doorward serve`` on free ports. ``async with`` starts it, stops it in its own way, and removes its folder.

    Args:
        extra: more arguments of ``serve``.
        environ: more variables (``DOORWARD_...``).
        namespace: a network namespace to live in, by name.
        host: the address to listen on, and of the control URL.
        shown: the control URL's address, where ``host`` is every address.
        level: what it logs.
        leaf: a certificate of the control address's own, which then is ``https://localhost``.
        descriptors: how many each of its processes may open; 0: as many as we.
        workers: how many processes serve.
    """

    def __init__(
        self,
        *,
        extra: Sequence[str] = (),
        environ: Mapping[str, str] | None = None,
        namespace: str | None = None,
        host: str = "127.0.0.1",
        shown: str = "",
        level: str = "debug",
        leaf: Leaf | None = None,
        descriptors: int = 0,
        workers: int = 1,
    ) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="dw-serve-", ignore_cleanup_errors=True)
        self.folder = Path(self._temporary.name)
        self.log = self.folder / "log"
        self._listen = f"{host}:{free_port()}"
        self.url = f"http://{self._listen}"
        self.workers = workers
        self._extra = ["--log-level", level, "--workers", str(workers), *extra]
        if shown:
            self.url = f"http://{shown}:{self._listen.rpartition(':')[2]}"
            self._extra += ["--url", self.url]
        self._prefix = ["ip", "netns", "exec", namespace] if namespace else []
        self._descriptors = descriptors
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("DOORWARD_", "TS_"))
        }
        ports = {"PORTS_DOOR": free_port(), "PORTS_RELAY": free_port(), "PORTS_STUN": free_port()}
        self._environ = (
            kept | {f"DOORWARD_{name}": str(port) for name, port in ports.items()} | dict(environ or {})
        )
        if leaf is not None:
            self.url = f"https://localhost:{self._listen.rpartition(':')[2]}"
            self._extra += ["--url", self.url]
            for name, content in (("cert", leaf.pem), ("key", leaf.key_pem)):
                file = self.folder / f"own.{name}"
                file.write_bytes(content)
                self._environ[f"DOORWARD_TLS_URL_{name.upper()}"] = str(file)
        self.door_port = ports["PORTS_DOOR"]
        self.relay_port = ports["PORTS_RELAY"]
        self.stun_port = ports["PORTS_STUN"]
        self.start_took = 0.0  # seconds: what else takes time on this machine can be held against it
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()
        if error is not None and self.log.exists():
            print(f"--- the end of doorward's log ---\n{self.log.read_text(errors='replace')[-6000:]}")  # noqa: T201 - pytest shows it with the failure
        self._temporary.cleanup()

    @property
    def listens_at(self) -> tuple[str, int]:
        """Where the public listener is."""
        host, _, port = self._listen.rpartition(":")
        return host, int(port)

    @property
    def pid(self) -> int:
        """The parent's process id."""
        assert self._process is not None
        return self._process.pid

    def worker_pid(self) -> int:
        """The first worker's process id, or the only one's."""
        return self.worker_pids()[0]

    def worker_pids(self) -> list[int]:
        """The workers' process ids: of the parent's children those that came first; the spare is always the newest."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text(encoding="ascii").split()
        return [int(child) for child in children if _is_worker(int(child))][: self.workers]

    def daemon_pid(self) -> int:
        """The process id of the private daemon; 0 when there is none."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text(encoding="ascii").split()
        return next((int(child) for child in children if b"--statedir=" in _command(int(child))), 0)

    async def start(self) -> float:
        """Start it and wait for its ``ready`` line; returns the seconds that took."""
        began = asyncio.get_running_loop().time()
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *tied_to_us(
                    [
                        *(self._prefix and ["/usr/sbin/ip", *self._prefix[1:]]),
                        *(
                            [str(require("prlimit")), f"--nofile={self._descriptors}"]
                            if self._descriptors
                            else []
                        ),
                        sys.executable,
                        "-m",
                        "doorward",
                        "serve",
                        "--data-dir",
                        str(self.folder),
                        "--listen",
                        self._listen,
                        *self._extra,
                    ]
                ),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env=self._environ,
            )
        assert self._process.stdout is not None
        async with asyncio.timeout(60):
            line = (await self._process.stdout.readline()).decode()
        assert line.startswith("ready "), f"doorward did not start:\n{self.log.read_text()[-4000:]}"
        assert line == f"ready {self.url}\n"
        self.start_took = asyncio.get_running_loop().time() - began
        return self.start_took

    async def stop(self) -> float:
        """SIGTERM; returns the seconds until it was gone."""
        began = asyncio.get_running_loop().time()
        if self._process is not None:
            await stop(self._process, 30)
        return asyncio.get_running_loop().time() - began

    async def kill(self) -> None:
        """``kill -9`` the parent; worker and private daemon go with it."""
        assert self._process is not None
        worker = self.worker_pid()
        self._process.send_signal(signal.SIGKILL)
        await self._process.wait()
        async with asyncio.timeout(30):
            while not gone(worker):  # noqa: ASYNC110 - the end of another's child cannot be waited for
                await asyncio.sleep(0.01)

    async def run(
        self, *arguments: str, check: bool = True, stdin: bytes = b""
    ) -> subprocess.CompletedProcess[str]:
        """Run ``doorward ARGUMENTS`` against this server."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "doorward",
            *arguments,
            "--data-dir",
            str(self.folder),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self._environ,
        )
        async with asyncio.timeout(60):
            out, err = await process.communicate(stdin)
        done = subprocess.CompletedProcess(
            list(arguments), process.returncode or 0, out.decode(), err.decode()
        )
        assert not check or done.returncode == 0, f"doorward {arguments}: {done.stdout}{done.stderr}"
        return done

    async def json(self, *arguments: str) -> Any:
        """The same with ``--json``, decoded."""
        return json.loads((await self.run(*arguments, "--json")).stdout)

    async def user(self, name: str = "alice", *extra: str) -> str:
        """Add a user; returns the name."""
        await self.run("users", "create", name, *extra)
        return name

    async def key(self, *arguments: str) -> str:
        """A new auth key."""
        return (await self.run("keys", "create", *arguments)).stdout.strip()

    async def set_policy(self, text: str) -> None:
        """Put a policy in force."""
        file = self.folder / "next.hujson"
        file.write_text(text, encoding="utf-8")
        await self.run("policy", "set", str(file))

    async def own_node(self, within: float = 60) -> str:
        """The IPv4 address of doorward's own node, once it is up."""
        async with asyncio.timeout(within):
            while True:
                for part in (await self.json("status"))["parts"]:
                    if part["name"] == "own node" and part["state"] == "running":
                        return str(part["text"].split(",")[0])
                await asyncio.sleep(0.1)


def _is_worker(pid: int) -> bool:
    """Whether it lives, and is a worker or to become one."""
    return b"doorward.server.child" in _command(pid)


def _command(pid: int) -> bytes:
    """Empty for a process that has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
