"""doorward's own place on its tailnet: starts, watches and explains the daemon, and answers who a connection is."""

import asyncio
import os
from datetime import timedelta

from doorward.api.types import Finding, Part
from doorward.clock import Clock
from doorward.config import Settings
from doorward.engine.programs import find_client
from doorward.engine.tailscaled import PrivateDaemon
from doorward.errors import DoorwardError
from doorward.login.whois import identify
from doorward.tailnet.registry import Registry
from doorward.telemetry import log
from doorward.transport.listener import Address

HOSTNAME = "doorward"
RETRY = 10.0  # seconds until a failed login is tried again
WITHOUT_CLIENT = "Run `doorward setup client`, then start doorward again."

_log = log("own-node")


class OwnNode:
    """The node, from start to end. ``run`` keeps it up; the rest answers at any time."""

    def __init__(self, settings: Settings, registry: Registry, clock: Clock) -> None:
        self._settings = settings
        self._registry = registry
        self._clock = clock
        self._daemon: PrivateDaemon | None = None
        self._part = Part(name="own node", state="off", text="starting")

    async def run(self) -> None:
        """Be on the tailnet until cancelled. Without a client, or with the setting off, only the reason is kept."""
        if self._settings.tailscaled == "off":
            self._say("off", "switched off in the settings", 'Remove `tailscaled = "off"` from the settings.')
            return
        try:
            client = find_client(os.environ, self._settings.tailscaled)
        except DoorwardError as error:
            self._say("failing", error.message, error.cure)
            return
        if client is None:
            self._say("off", "there is no tailscaled, so nobody is known by their connection", WITHOUT_CLIENT)
            return
        environ = dict(os.environ)
        if not client.knows_pins:
            environ["SSL_CERT_FILE"] = str(self._settings.data_dir / "tls" / "authority.pem")
        daemon = PrivateDaemon(
            client, self._settings.data_dir, hostname=HOSTNAME, clock=self._clock, environ=environ
        )
        self._daemon = daemon
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(daemon.run())
                group.create_task(self._log_in(daemon))
        finally:
            self._daemon = None
            await daemon.close()

    async def _log_in(self, daemon: PrivateDaemon) -> None:
        while True:
            try:
                status = await daemon.up(self._settings.url, self._auth_key)
            except DoorwardError as error:
                self._say("failing", error.message, error.cure)
                _log.warning("own node not up", reason=error.message, again_in=RETRY)
                await asyncio.sleep(RETRY)
                continue
            self._say("running", ", ".join(status.addresses), "")
            _log.info("own node is up", addresses=status.addresses)
            return

    async def _auth_key(self) -> str:
        _, secret = await self._registry.create_auth_key(
            "system", user=None, expires_in=timedelta(minutes=5), system=True
        )
        return secret

    async def identify(self, peer: Address | None, local: Address | None) -> str | None:
        """The stable id of the node at the other end of a connection to the identity listener; None closes it."""
        if self._daemon is None or peer is None or local is None or peer[1] is None or local[1] is None:
            return None
        return await identify(self._daemon, (peer[0], peer[1]), (local[0], local[1]))

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
