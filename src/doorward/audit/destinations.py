"""Where events of the audit log are taken: a file of JSON lines, and a webhook. The third, syslog, has a module of its own.

Each delivers a batch whole or raises Unavailable; then the same batch comes again. What is sent is what ``doorward audit
export`` prints, so that ``doorward audit verify`` can be run on it.
"""

import asyncio
import base64
import hashlib
import hmac
import ssl
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import msgspec

from doorward.api.audit_types import Event
from doorward.audit.appending import append
from doorward.errors import BadInput, DoorwardError, Unavailable
from doorward.protocol.auditlog import Sealed, read_event
from doorward.transport.fetch import Answer, Fetcher

SECRET_PREFIX = "whsec_"  # noqa: S105 - how such a secret begins, not one
SECRET_SIZE = 32  # bytes; what the scheme recommends at least is 24
WEBHOOK_SECONDS = 15.0  # for one request; less than a process keeps a destination for itself
_ANSWER_LIMIT = 64 << 10  # bytes that a webhook's answer may have; it is not looked at
_LONGEST_WAIT = 600  # seconds that a webhook may ask us to wait
_TOO_LARGE, _TOO_MANY, _UNAVAILABLE = 413, 429, 503


class Destination(Protocol):
    """A place that gets every event."""

    kind: str
    most: int  # events of one batch
    shown: str  # where it is, for people; never a secret
    name: str  # what its cursor is called in the store: another place has another

    async def deliver(self, events: Sequence[Event]) -> None:
        """Deliver all of them, in their order. Raises Unavailable."""

    async def close(self) -> None:
        """Give up what is held."""


class Deferred(Unavailable):
    """The destination asks for time: ``seconds`` of it."""

    def __init__(self, message: str, seconds: int) -> None:
        super().__init__(message)
        self.seconds = seconds


def name_of(kind: str, where: str) -> str:
    """A cursor's name. A place is only known by its hash: an address may hold what others must not learn."""
    return f"{kind}:{hashlib.sha256(where.encode()).hexdigest()[:16]}"


def line_of(event: Event) -> str:
    """An event as one line of JSON."""
    return msgspec.json.encode(event).decode()


class FileDestination:
    """JSON lines at the end of a file. An event is there once, even after a crash: what is there is not written again."""

    kind = "file"
    most = 1000

    def __init__(self, path: Path) -> None:
        self._path = path
        self.shown = str(path)
        self.name = name_of(self.kind, str(path))

    async def deliver(self, events: Sequence[Event]) -> None:
        """See Destination. On return it is on the disk."""

        def missing(last_line: bytes) -> list[str]:
            last = _event_in(last_line)
            if last is None or last.digest.hex() not in {event.digest for event in events}:
                return [line_of(event) for event in events]
            return [line_of(event) for event in events if event.seq > last.seq]

        await asyncio.to_thread(append, self._path, missing)

    async def close(self) -> None:
        """Nothing is held."""


def _event_in(line: bytes) -> Sealed | None:
    try:
        return read_event(line)
    except BadInput:
        return None


class WebhookDestination:
    """POST of ``{"events": [...]}``, signed as Standard Webhooks has it (``webhook-id``, ``-timestamp``, ``-signature``).

    The id names the batch: a receiver that remembers it, or the events' numbers, knows what came twice.

    Args:
        url: where to; https, or http on this machine.
        secret: ``whsec_`` and base64: the key of the signature.
        now: the time of the signature, which receivers compare with theirs.
        ssl_context: whom to trust; the system's authorities by default.
    """

    kind = "webhook"
    most = 200

    def __init__(
        self,
        url: str,
        secret: str,
        now: Callable[[], datetime],
        *,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._url = url
        self._key = key_of(secret)
        self._now = now
        parts = urlsplit(url)
        self.shown = f"{parts.scheme}://{parts.netloc}"  # the rest may be a secret
        self.name = name_of(self.kind, url)
        # Whoever writes the settings may ask for any address; where it leads from there is another matter.
        self._fetcher = Fetcher(
            allow_private=True, seconds=WEBHOOK_SECONDS, redirects=0, ssl_context=ssl_context
        )

    async def deliver(self, events: Sequence[Event]) -> None:
        """See Destination. Any status from 200 to 299 says that it has them; one of 413 is asked to take half of them."""
        answer = await self._post(events)
        if answer.status == _TOO_LARGE and len(events) > 1:
            middle = len(events) // 2
            await self.deliver(events[:middle])
            await self.deliver(events[middle:])
        elif not 200 <= answer.status <= 299:
            message = f"{self.shown} answered with status {answer.status}"
            wait = answer.headers.get("retry-after", "")
            if answer.status in {_TOO_MANY, _UNAVAILABLE} and wait.isascii() and wait.isdigit():
                raise Deferred(message, min(int(wait[:9]), _LONGEST_WAIT))
            raise Unavailable(message, cure="Any status from 200 to 299 says that it has them.")

    async def _post(self, events: Sequence[Event]) -> Answer:
        body = msgspec.json.encode({"events": events})
        batch = f"audit_{events[0].seq}_{events[-1].seq}_{events[-1].digest[:16]}"
        headers = {
            "content-type": "application/json",
            "user-agent": "doorward",
            **signature(self._key, batch, int(self._now().timestamp()), body),
        }
        try:
            return await self._fetcher.request(
                "POST", self._url, limit=_ANSWER_LIMIT, headers=headers, body=body
            )
        except Unavailable:
            raise
        except DoorwardError as error:
            raise Unavailable(error.message, cure=error.cure) from None

    async def close(self) -> None:
        """See Destination."""
        await self._fetcher.close()


def key_of(secret: str) -> bytes:
    """The key of a webhook's secret. Raises BadInput, never repeating it."""
    try:
        return base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except ValueError:
        raise BadInput(f"a webhook's secret is {SECRET_PREFIX} and base64 behind it") from None


def signature(key: bytes, batch: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The three headers of Standard Webhooks 1.0: HMAC-SHA256 of ``id.timestamp.body``."""
    digest = hmac.digest(key, f"{batch}.{timestamp}.".encode() + body, "sha256")
    return {
        "webhook-id": batch,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }
