"""doorward's own place on its tailnet: logs its daemon in, explains it, and answers who a connection is.

The daemon is always a private one, which the parent runs (``own_daemon``). The host's own, even where it has joined this
tailnet, is somebody's ordinary node: it has the packet filter of the policy instead of the door's, and the door's name does
not lead to it.

Every worker asks the daemon whose a connection is. One of them, whichever has the lock, logs it in and watches that; when
that one dies the kernel gives up the lock, and another takes over.
"""

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from doorward.api.types import Finding, Part
from doorward.config import Settings
from doorward.engine import Engine
from doorward.errors import DoorwardError
from doorward.login.whois import identify
from doorward.server.own_reports import HOSTNAME, Report, Reports
from doorward.tailnet.registry import Registry
from doorward.telemetry import log
from doorward.transport.listener import Address

if TYPE_CHECKING:
    from doorward.engine.tailscaled import JoinedDaemon

PATIENCE = 30.0  # seconds for one attempt to log in
RETRY = 10.0  # seconds until what failed is tried again
LOOK = 30.0  # seconds between looks at a daemon that is up: an administrator may have deleted its node
TURN = 0.5  # seconds between two attempts to get the lock, or looks whether the daemon runs

_log = log("own-node")


class OwnNode:
    """The node, as one worker sees it. ``run`` looks after it when it is our turn; the rest answers at any time."""

    def __init__(self, settings: Settings, registry: Registry) -> None:
        self._settings = settings
        self._registry = registry
        self._engine: Engine | None = None
        self._daemon_reports = Reports(settings.data_dir, "daemon")
        self._login_reports = Reports(settings.data_dir, "login")

    async def run(self) -> None:
        """Be on the tailnet until cancelled, whatever fails; with the setting off, do nothing."""
        if self._settings.tailscaled == "off":
            return
        from doorward.engine.tailscaled import JoinedDaemon  # noqa: PLC0415 - loaded after we accept connections

        daemon = JoinedDaemon(self._settings.data_dir, hostname=HOSTNAME, environ=os.environ)
        self._engine = daemon
        try:
            async with _turn(daemon):
                await self._stay(daemon)
        finally:
            self._engine = None
            await daemon.close()

    async def _stay(self, daemon: "JoinedDaemon") -> None:
        """Log in, and again whenever that is lost."""
        while True:
            try:
                while not self._may_ask():  # noqa: ASYNC110 - the parent tells us by a file
                    await asyncio.sleep(TURN / 5)
                status = await daemon.up(self._settings.url, self._auth_key, within=PATIENCE)
                if status.self_node is not None:
                    await self._registry.claim_own_node(status.self_node.stable_id)
                self._say(Report(state="running", text=", ".join(status.addresses)))
                _log.info("own node is up", addresses=status.addresses)
                while status.running:
                    await asyncio.sleep(LOOK)
                    status = await daemon.status(peers=False)
                text = f"the daemon's state is {status.backend_state}"
                self._say(Report(state="failing", text=text, cure="It is logged in again now."))
                _log.warning("own node is no longer up", state=status.backend_state)
            except (DoorwardError, OSError) as error:
                report = Report.failure(error, RETRY)
                self._say(report)
                _log.warning("own node not up", reason=report.text, again_in=RETRY)
                await asyncio.sleep(RETRY)

    def _may_ask(self) -> bool:
        """Whether what listens at the daemon's socket is ours."""
        said = self._daemon_reports.read()
        return said is not None and said.state == "running"

    async def _auth_key(self) -> str:
        _, secret = await self._registry.create_auth_key(
            "system", user=None, expires_in=timedelta(minutes=5), system=True
        )
        return secret

    async def identify(self, peer: Address | None, local: Address | None) -> str | None:
        """The stable id of the node at the other end of a connection to the identity listener; None closes it."""
        if self._engine is None or not self._may_ask():
            return None
        return await identify(self._engine, peer, local)

    def part(self) -> Part:
        """What it does now: the same from every worker."""
        if self._settings.tailscaled == "off":
            text, cure = "switched off in the settings", 'Remove `tailscaled = "off"` from the settings.'
            return Part(name="own node", state="off", text=text, cure=cure)
        said = self._daemon_reports.read()
        if said is not None and said.state == "running":
            said = self._login_reports.read()
        if said is None:
            return Part(name="own node", state="off", text="starting")
        return Part(name="own node", state=said.state, text=said.text, cure=said.cure)

    def findings(self) -> list[Finding]:
        """What the doctor says of it."""
        part = self.part()
        if part.state == "running":
            return [Finding(level="ok", subject="own node", message=f"on the tailnet as {part.text}")]
        level = "warning" if part.state == "off" else "error"
        return [Finding(level=level, subject="own node", message=part.text, cure=part.cure)]  # type: ignore[arg-type]

    def _say(self, report: Report) -> None:
        try:
            self._login_reports.write(report)
        except OSError as error:
            _log.warning("what the own node does cannot be written down", reason=str(error))


@asynccontextmanager
async def _turn(daemon: "JoinedDaemon") -> AsyncIterator[None]:
    """Wait until no other worker looks after the daemon. The kernel ends our turn with us, however we end."""
    with (daemon.folder / "login.lock").open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(TURN)
        yield
