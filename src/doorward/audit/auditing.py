"""The service: the notary and the deliveries of one process, and what is to be said of them."""

import asyncio
import base64
import os
import socket
import ssl
from datetime import datetime, timedelta

from doorward.api.types import Finding, Part
from doorward.audit.delivery import Delivery
from doorward.audit.destinations import (
    SECRET_PREFIX,
    SECRET_SIZE,
    Destination,
    FileDestination,
    WebhookDestination,
)
from doorward.audit.notary import CHECKPOINTS_FILE, KEY_FILE, Notary
from doorward.audit.syslog import SyslogDestination
from doorward.clock import Clock
from doorward.config import Settings
from doorward.errors import BadInput, DoorwardError, Unavailable
from doorward.protocol.auditlog import AuditPrivate, AuditPublic, Verdict
from doorward.store import Connection, audit, checkpoints, secrets
from doorward.tailnet.registry import Registry

WEBHOOK_SECRET_FILE = "audit-webhook.secret"  # noqa: S105 - a file's name; in the data directory, mode 0600
STOP_SECONDS = 2.0  # for the last checkpoint: whoever stops doorward does not wait for a slow disk


class Auditing:
    """What signs the log and takes it elsewhere. Close it with ``aclose`` when nothing more is written.

    Args:
        settings: complete.
        registry: the tailnet.
        clock: the time of checkpoints and notes.

    Raises:
        DoorwardError: where a key cannot be read or made, or a destination cannot be one.
    """

    def __init__(self, settings: Settings, registry: Registry, clock: Clock) -> None:
        self._registry = registry
        database = registry.writer.database
        folder = settings.data_dir
        key = secrets.load_or_create(folder / KEY_FILE, lambda: AuditPrivate(os.urandom(32)).serialize())
        self._notary = Notary(
            database,
            AuditPrivate.parse(key),
            folder,
            clock,
            events=settings.audit.checkpoint_events,
            interval=timedelta(minutes=settings.audit.checkpoint_minutes),
        )
        self._deliveries = [
            Delivery(database, destination, clock, self._process)
            for destination in destinations(settings, clock)
        ]

    def _process(self) -> int:
        process = self._registry.writer.process
        return 0 if process is None else process.id

    @property
    def public_key(self) -> AuditPublic:
        """What our checkpoints are checked with."""
        return self._notary.public

    async def run(self) -> None:
        """Sign and deliver until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._notary.run())
            for delivery in self._deliveries:
                group.create_task(delivery.run())

    async def aclose(self) -> None:
        """Sign what is new, give up the destinations; in two seconds, or not."""
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self._notary.look(now=True)
                if self._deliveries and self._process():
                    await self._registry.writer.database.run(checkpoints.let_go, self._process())
        except (TimeoutError, DoorwardError):
            pass  # the next start signs it, and a destination is free by itself soon
        for delivery in self._deliveries:
            await delivery.destination.close()

    async def verify(self) -> Verdict:
        """Look at the whole log, with every checkpoint that there is. Raises Unavailable."""
        return await self._notary.verify()

    async def parts(self) -> list[Part]:
        """The log and its destinations at a glance, as all processes know them; nothing while the store is away."""
        try:
            head, signed, sinks = await self._registry.writer.database.read(_state)
        except Unavailable:
            return []
        if self._notary.trouble:
            cure = "`doorward audit verify` says what was changed."
            parts = [Part(name="audit", state="failing", text=self._notary.trouble, cure=cure)]
        else:
            text = f"{head} events" + (f", signed up to {signed[0]} at {_at(signed[1])}" if signed else "")
            parts = [Part(name="audit", state="running", text=text)]
        for destination in (delivery.destination for delivery in self._deliveries):
            name = f"audit {destination.kind}"
            sink = sinks.get(destination.name)
            behind = head - (sink.seq if sink else 0)
            text = f"{destination.shown}: {f'{behind} events behind' if behind else 'has every event'}"
            if sink is not None and sink.since is not None:
                text = f"{destination.shown}: {behind} events behind, since {_at(sink.since)}: {sink.trouble}"
                cure = "It is tried again every minute, and then gets what it lacks."
                parts.append(Part(name=name, state="failing", text=text, cure=cure))
            else:
                parts.append(Part(name=name, state="running", text=text))
        return parts

    async def findings(self) -> list[Finding]:
        """What is wrong with the log or its destinations. Raises Unavailable while the store is away."""
        verdict = await self.verify()
        if verdict.problems:
            found = [
                Finding(
                    level="error",
                    subject="audit",
                    message=verdict.problems[0].text,
                    cure="Somebody changed the database, or it was restored from a backup: `doorward audit verify` shows all "
                    f"of it. After a restore move {CHECKPOINTS_FILE} in the data directory aside.",
                )
            ]
        else:
            message = "the chain of audit events is unbroken"
            found = [Finding(level="ok", subject="audit", message=message)]
        found += [
            Finding(level="warning", subject=part.name, message=part.text, cure=part.cure)
            for part in await self.parts()
            if part.state == "failing" and part.name != "audit"
        ]
        return found


def destinations(settings: Settings, clock: Clock) -> list[Destination]:
    """Those that the settings name. Raises DoorwardError for one that cannot be."""
    wanted = settings.audit
    found: list[Destination] = []
    if wanted.file is not None:
        found.append(FileDestination(wanted.file))
    context = _trust(settings)
    if wanted.syslog:
        found.append(SyslogDestination(wanted.syslog, socket.gethostname(), ssl_context=context))
    if wanted.webhook:
        secret = secrets.load_or_create(
            settings.data_dir / WEBHOOK_SECRET_FILE,
            lambda: SECRET_PREFIX + base64.b64encode(os.urandom(SECRET_SIZE)).decode(),
        )
        found.append(WebhookDestination(wanted.webhook, secret, clock.now, ssl_context=context))
    return found


def _trust(settings: Settings) -> ssl.SSLContext | None:
    if settings.audit.authority is None:
        return None
    try:
        return ssl.create_default_context(cafile=str(settings.audit.authority))
    except OSError as error:  # of which SSLError is one
        raise BadInput(
            f"the authorities cannot be read: {error.strerror or error}",
            cure="Name a PEM file of certificates in audit.authority.",
            place=str(settings.audit.authority),
        ) from None


def _state(
    connection: Connection,
) -> tuple[int, tuple[int, datetime] | None, dict[str, checkpoints.Sink]]:
    head, _ = audit.head(connection)
    signed = checkpoints.latest(connection)
    sinks = {sink.name: sink for sink in checkpoints.sinks(connection)}
    return head, None if signed is None else (signed.seq, signed.at), sinks


def _at(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
