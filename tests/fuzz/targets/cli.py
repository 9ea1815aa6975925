"""What a person types or has in a file, and what a server that is not doorward's may answer the command line."""

import http.client
import io
import tempfile
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from tests.fuzz.feeding import argument_of, feed

from doorward.api import types
from doorward.cli import connection, dns, nodes, offline, policy_edit, times
from doorward.errors import BadInput
from doorward.tailnet.offline import Case, Topology

COVERS = (
    "cli.connection:_read",
    "cli.connection:_RemoteServer.__init__",
    "cli.connection:Server.call",
    "cli.connection:read_text",
    "cli.connection:api_path",
    "cli.dns:_read",
    "cli.offline:_decode",
    "cli.policy_edit:_json",
    "cli.policy_edit:remove_rule",
    "cli.nodes:_value",
    "cli.times:parse_duration",
)
LIMIT = 1 << 20  # of an answer here; the command line reads up to its ANSWER_LIMIT
SEEDS = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n[]",
    (
        b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/problem+json\r\nConnection: close\r\n\r\n"
        b'{"type":"bad-input","title":"no","status":400,"cure":"x","diagnostics":[{"line":1,"column":2,"message":"m"}]}'
    ),
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: application/json\r\n\r\n2\r\n[]\r\n0\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b'[{"id":1,"name":"a","display_name":"","email":"","role":"member","created":"2026-01-02T03:04:05Z","suspended":false,"nodes":0}]',
    b'{"magic_dns":true,"search":["a.b",],"records":[{"name":"a","address":"b"}]} // c',
    b"https://door.example.com:8443/base/",
    b"1h30m",
    b"-5",
    b"grants[3]",
)


class _Answering:
    """A socket on which the answer has come already."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def sendall(self, data: Any) -> None:
        return

    def makefile(self, *_: Any, **__: Any) -> io.BufferedReader:
        return io.BufferedReader(io.BytesIO(self._data))

    def close(self) -> None:
        return


class _Server(connection.Server):
    def __init__(self, data: bytes) -> None:
        self._data = data

    def connect(self) -> http.client.HTTPConnection:
        made = http.client.HTTPConnection("door.test")
        made.sock = _Answering(self._data)
        return made

    def headers(self) -> dict[str, str]:
        return {}

    def explain(self, error: OSError) -> BadInput:
        return BadInput(str(error))


def _call(kind: Any, answer: bytes) -> None:
    _Server(answer).call("GET", "/users", kind, body=None, query={"a": "b"}, if_match=1)


def fuzz(data: bytes) -> None:
    """Understood, or refused with words for the person who typed it."""
    text = argument_of(data)
    feed(text, times.parse_duration, nodes._value, lambda given: connection._RemoteServer(given, "token"))
    feed(text, lambda given: connection._RemoteServer("https://door.test", given))
    connection.api_path(text.encode("utf-8", "replace"), 3)
    for status, media_type in (
        (200, "application/json"),
        (400, "application/problem+json"),
        (502, "text/html"),
    ):
        for kind in (list[types.User], types.Status, type(None)):
            feed(data, partial(connection._read, status, media_type, answer=kind))
    for kind in (list[types.User], type(None)):
        feed(data, partial(_call, kind))
    for form in (Topology, Case):
        feed(data, partial(offline._decode, kind=form, place="line 1"))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "dns.hujson"
        path.write_bytes(data)
        feed(path, dns._read, connection.read_text, policy_edit._json)
    with patch.object(policy_edit, "_send"):
        feed(text, policy_edit.remove_rule)
