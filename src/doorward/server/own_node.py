"""doorward's own place on its tailnet: starts, watches and explains the daemon, and answers who a connection is.

The daemon is always a private one. The host's own, even where it has joined this tailnet, is somebody's ordinary node: it
has the packet filter of the policy instead of the door's, and the door's name does not lead to it.
"""

import asyncio
import os
from datetime import timedelta
from typing import TYPE_CHECKING

from doorward.api.types import Finding, Part
from doorward.clock import Clock
from doorward.config import Settings
from doorward.engine import ClientPaths, Engine, find_client
from doorward.errors import DoorwardError
from doorward.login.whois import identify
from doorward.tailnet.registry import Registry
from doorward.telemetry import log
from doorward.transport.listener import Address

if TYPE_CHECKING:
    # Its HTTP client takes a tenth of a second to load, which is better spent after we accept connections.
    from doorward.engine.tailscaled import PrivateDaemon

HOSTNAME = "doorward"
PATIENCE = 30.0  # seconds for one attempt to log in
RETRY = 10.0  # seconds until what failed is tried again
LOOK = 30.0  # seconds between looks at a daemon that is up: an administrator may have deleted its node
WITHOUT_CLIENT = "Run `doorward setup client`, then start doorward again."

_log = log("own-node")


class OwnNode:
    """The node, from start to end. ``run`` keeps it up; the rest answers at any time."""

    def __init__(self, settings: Settings, registry: Registry, clock: Clock) -> None:
        self._settings = settings
        self._registry = registry
        self._clock = clock
        self._engine: Engine | None = None
        self._part = Part(name="own node", state="off", text="starting")

    async def run(self) -> None:
        """Be on the tailnet until cancelled, whatever fails; without a client, or with the setting off, only say so."""
        if self._settings.tailscaled == "off":
            self._say("off", "switched off in the settings", 'Remove `tailscaled = "off"` from the settings.')
            return
        try:
            # It runs the programs, to ask for their versions.
            client = await asyncio.to_thread(find_client, os.environ, self._settings.tailscaled)
        except DoorwardError as error:
            self._say("failing", error.message, error.cure)
            return
        if client is None:
            self._say("off", "there is no tailscaled, so nobody is known by their connection", WITHOUT_CLIENT)
            return
        while True:
            try:
                await self._live(client)
            except* (DoorwardError, OSError) as failed:
                self._fail(failed.exceptions[0])
            await asyncio.sleep(RETRY)

    async def _live(self, client: ClientPaths) -> None:
        """One daemon's life, which ends only by failing or by being cancelled."""
        from doorward.engine.tailscaled import PrivateDaemon  # noqa: PLC0415 - see above

        environ = dict(os.environ)
        if not client.knows_pins:
            environ["SSL_CERT_FILE"] = str(self._settings.data_dir / "tls" / "authority.pem")
        daemon = PrivateDaemon(
            client, self._settings.data_dir, hostname=HOSTNAME, clock=self._clock, environ=environ
        )
        self._engine = daemon
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(daemon.run())
                group.create_task(self._stay(daemon))
        finally:
            self._engine = None
            await daemon.close()

    async def _stay(self, daemon: "PrivateDaemon") -> None:
        """Log in, and again whenever that is lost."""
        while True:
            try:
                status = await daemon.up(self._settings.url, self._auth_key, within=PATIENCE)
                self._say("running", ", ".join(status.addresses), "")
                _log.info("own node is up", addresses=status.addresses)
                while status.running:
                    await asyncio.sleep(LOOK)
                    status = await daemon.status(peers=False)
                self._say(
                    "failing", f"the daemon's state is {status.backend_state}", "It is logged in again now."
                )
                _log.warning("own node is no longer up", state=status.backend_state)
            except DoorwardError as error:
                self._fail(error)
                await asyncio.sleep(RETRY)

    def _fail(self, error: BaseException) -> None:
        reason, cure = str(error), ""
        if isinstance(error, DoorwardError):
            reason, cure = error.message, error.cure
        cure = cure or f"It is tried again every {RETRY:.0f} s; doorward's log has more."
        self._say("failing", reason, cure)
        _log.warning("own node not up", reason=reason, again_in=RETRY)

    async def _auth_key(self) -> str:
        _, secret = await self._registry.create_auth_key(
            "system", user=None, expires_in=timedelta(minutes=5), system=True
        )
        return secret

    async def identify(self, peer: Address | None, local: Address | None) -> str | None:
        """The stable id of the node at the other end of a connection to the identity listener; None closes it."""
        if self._engine is None:
            return None
        return await identify(self._engine, peer, local)

    def part(self) -> Part:
        """What it does now."""
        return self._part

    def findings(self) -> list[Finding]:
        """What the doctor says of it."""
        part = self._part
        if part.state == "running":
            return [Finding(level="ok", subject="own node", message=f"on the tailnet as {part.text}")]
        level = "warning" if part.state == "off" else "error"
        return [Finding(level=level, subject="own node", message=part.text, cure=part.cure)]  # type: ignore[arg-type]

    def _say(self, state: str, text: str, cure: str) -> None:
        self._part = Part(name="own node", state=state, text=text, cure=cure)  # type: ignore[arg-type]
