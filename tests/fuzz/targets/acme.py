"""Certificates by ACME: first messages of TLS from anybody, an authority's header, a key file and an address of the operator's."""

import tempfile
from pathlib import Path

import requests
from tests.fuzz.feeding import argument_of, feed, text_of

from doorward.clock import SystemClock
from doorward.config.settings import Acme
from doorward.errors import RemoteProtocolError
from doorward.protocol.clienthello import HEADER, LARGEST, parse_client_hello, record_length
from doorward.server.acme.conversation import Conversation
from doorward.server.acme.faults import LONGEST, AcmeError, wait_after
from doorward.server.acme.keyfiles import account_key, tsig_key
from doorward.server.acme.records import Updates

COVERS = (
    "protocol.clienthello:record_length",
    "protocol.clienthello:parse_client_hello",
    "protocol.clienthello:_Reader.number",
    "server.acme.conversation:Conversation._note_retry_after",
    "server.acme.keyfiles:account_key",
    "server.acme.keyfiles:tsig_key",
    "server.acme.records:Updates.__init__",
)
LIMIT = LARGEST
_NAME = b"\x00\x00\x00\x09\x00\x07\x00\x00\x04a.ex"
_ALPN = b"\x00\x10\x00\x0d\x00\x0b\x0aacme-tls/1"
_HELLO = b"\x03\x03" + bytes(32) + b"\x00" + b"\x00\x02\x13\x01" + b"\x01\x00" + b"\x00\x1e" + _NAME + _ALPN
SEEDS = (
    b"\x16\x03\x01\x00\x51\x01\x00\x00\x4d" + _HELLO,
    _NAME + _ALPN,
    b'key "doorward" {\n\talgorithm hmac-sha256;\n\tsecret "c2VjcmV0";\n};\n',
    b"# hmac-sha256:doorward:c2VjcmV0\n",
    b"[2001:db8::1]:5353",
    b"dns.example.com:53",
    b"86400",
)
WORDS = (
    b"\x16\x03\x01",
    b"\x00\x10",
    b"acme-tls/1",
    b'key "',
    b"algorithm ",
    b'secret "',
    b";",
    b"};",
    b"hmac-sha256:",
)
TALK = Conversation(Acme(), b"", SystemClock())


def fuzz(data: bytes) -> None:
    """A message is read or refused, as it is and inside good lengths; a header waits for at most a week."""
    feed(data, parse_client_hello, refusal=RemoteProtocolError)
    feed(data[:HEADER], record_length, refusal=RemoteProtocolError)
    body = data[: (1 << 14) - 100]
    extensions = len(body).to_bytes(2, "big") + body
    hello = _HELLO[:41] + extensions
    message = b"\x01" + len(hello).to_bytes(3, "big") + hello
    record = b"\x16\x03\x01" + len(message).to_bytes(2, "big") + message
    feed(record, parse_client_hello, refusal=RemoteProtocolError)
    answer = requests.Response()
    answer.status_code = 429
    answer.headers["Retry-After"] = text_of(data)
    TALK._note_retry_after(answer)
    assert wait_after(AcmeError("no", retry_after=TALK._retry_after), 1, 1.0) <= LONGEST * 1.1
    Updates(argument_of(data), Path("key"), 0)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "key"
        file.write_bytes(data)
        file.chmod(0o600)
        feed(file, tsig_key, account_key, refusal=AcmeError)
