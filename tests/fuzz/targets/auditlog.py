"""Exports and checkpoints of an audit log, which may come from anywhere; and what a webhook answers."""

import contextlib
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from tests.fuzz.feeding import argument_of, feed, in_loop, text_of

from doorward.api.audit_types import Event
from doorward.audit.destinations import WebhookDestination, key_of
from doorward.audit.syslog import parse_address
from doorward.cli.audit_files import verify_files
from doorward.errors import DoorwardError, Unavailable
from doorward.protocol import auditlog
from doorward.transport.fetch import Answer

COVERS = (
    "audit.destinations:WebhookDestination.deliver",
    "audit.destinations:key_of",
    "audit.syslog:parse_address",
    "cli.audit_files:_key",
    "protocol.auditlog:AuditPrivate.parse",
    "protocol.auditlog:read_checkpoint",
    "protocol.auditlog:read_event",
)
LIMIT = 256 << 10  # bytes of a file here
_AT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
_KEY = auditlog.AuditPrivate(bytes(range(32)))
_EVENT = (
    b'{"seq":%d,"at":"2026-01-02T03:04:05.678901Z","actor":"cli","action":"policy.set","target":"policy",'
    b'"details":{"a":[1,2.5,null],"b":{"c":"\xc3\xa9"}},"previous":"%s","digest":"%s"}\n'
)
SEEDS = (
    _EVENT % (1, b"0" * 64, b"1" * 64)
    + _EVENT % (2, b"1" * 64, b"2" * 64)
    + _EVENT % (2, b"1" * 64, b"2" * 64),
    _EVENT % (7, b"a" * 64, b"b" * 64)
    + _EVENT % (5, b"a" * 64, b"c" * 64)
    + _EVENT % (6, b"0" * 64, b"a" * 64),
    (_KEY.sign(2, b"d" * 32, _AT).line() + "\n" + _KEY.sign(9, b"e" * 32, _AT).line()).encode(),
    _KEY.serialize().encode(),
    str(_KEY.public()).encode(),
    b"tls://logs.example.com:6514",
    b"unix:/dev/log",
    b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    b"120",
)


class _Answering(WebhookDestination):
    """A webhook that answers with this status and asks for this much time."""

    status = 503
    wait = ""

    async def _post(self, events: Sequence[Event]) -> Answer:
        assert events
        return Answer(self.status, {"retry-after": self.wait}, b"")


def _events(count: int) -> list[Event]:
    return [
        Event(seq=seq, at=_AT, actor="a", action="b", target="c", details={}, previous="", digest="")
        for seq in range(1, count + 1)
    ]


async def _deliver(text: str) -> None:
    webhook = _Answering("https://a.test/", "whsec_", lambda: _AT)
    webhook.wait = text
    for status in (413, 429, 503, 204):
        webhook.status = status
        with contextlib.suppress(Unavailable):
            await webhook.deliver(_events(3))
    await webhook.close()


def fuzz(data: bytes) -> None:
    """Read it as everything that it could be; and walk over it as an export, with it as its checkpoints."""
    text = argument_of(data)
    with tempfile.TemporaryDirectory() as name:
        file, kept = Path(name) / "file", Path(name) / "kept"
        file.write_bytes(data)
        for one in (data, SEEDS[2]):
            kept.write_bytes(one)
            for key in (None, str(_KEY.public()), str(file)):
                for part in (True, False):
                    feed(
                        [file],
                        lambda files, key=key, part=part: verify_files(  # type: ignore[misc]
                            files, checkpoints=kept, keys=None if key is None else [key], part=part
                        ),
                        refusal=DoorwardError,
                    )
    feed(data, auditlog.read_event, auditlog.read_checkpoint)
    feed(text, auditlog.AuditPrivate.parse, auditlog.AuditPublic.parse, key_of, parse_address)
    in_loop(lambda: _deliver(text_of(data)))
