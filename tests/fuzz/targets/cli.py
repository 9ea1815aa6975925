"""What a person types or has in a file, and what a server that is not doorward's may answer the command line."""

import contextlib
import http.client
import io
import tempfile
from functools import partial
from pathlib import Path
from typing import Any, Self
from unittest.mock import patch

import msgspec
from tests.fuzz.feeding import argument_of, feed

from doorward.api import types
from doorward.cli import (
    connection,
    dns,
    known_hosts,
    nodes,
    offline,
    policy_edit,
    ssh_browser,
    ssh_config,
    times,
)
from doorward.errors import BadInput
from doorward.tailnet.offline import Case, Topology

COVERS = (
    "cli.connection:_read",
    "cli.connection:_RemoteServer.__init__",
    "cli.connection:Server.call",
    "cli.connection:read_text",
    "cli.connection:api_path",
    "cli.dns:_read",
    "cli.known_hosts:read_status",
    "cli.ssh_browser:Pages.admit",
    "cli.ssh_browser:plain_door",
    "cli.ssh_config:fragment_of",
    "cli.ssh_config:fragment",
    "cli.ssh_config:_read",
    "cli.offline:_decode",
    "cli.policy_edit:_json",
    "cli.policy_edit:remove_rule",
    "cli.nodes:_value",
    "cli.nodes:is_link",
    "cli.times:moment",
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
    b"2026-01-31T12:00+01:00",
    b"-5",
    b"grants[3]",
    b"ssh-ed25519 AAAA+/== me",
    b"[server.tail.net]:22",
    b"https://door.test/check/" + b"a2" * 16,
    (
        b'HTTP/1.0 200 OK\r\n\r\n{"Self":{"DNSName":"a.b.","TailscaleIPs":["100.64.0.1"],"sshHostKeys":["ssh-rsa AAAA"]},'
        b'"CurrentTailnet":{"MagicDNSSuffix":"b","MagicDNSEnabled":true},"Peer":{"x":{"DNSName":"c.b.","sshHostKeys":[]}}}'
    ),
    (
        b'[{"id":1,"stable_id":"n1","name":"a","fqdn":"a.b","user":"c","tags":[],"addresses":["100.64.0.1"],"online":true,'
        b'"last_seen":null,"routes":[],"expiry":null,"expired":false,"ephemeral":false,"created":"2026-01-02T03:04:05Z",'
        b'"hostname":"a","os":"linux","client_version":"1","cap_version":140,"endpoints":[],"came_from":"","relay":"",'
        b'"ssh":true,"ssh_host_keys":["ssh-ed25519 AAAA"],"system":false,'
        b'"suspended":false,"approved":true}]'
    ),
    b"# doorward: x\nInclude y\n# doorward: end\nHost z\n",
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


class _Daemon:
    """A connection to a daemon that has answered already."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def connect(self, _: Any) -> None:
        return

    settimeout = sendall = connect

    def recv(self, size: int) -> bytes:
        return self._data.read(size)


def _ask_for_host_keys(data: bytes) -> None:
    """What the daemon says, and what ssh asks about: lines of a known_hosts file, each of three words."""
    with patch("socket.socket", lambda _: _Daemon(data)):
        status = known_hosts.read_status("/s")
    for line in known_hosts.lines("a", status):
        assert line.split(" ")[0] == "a"
        assert line.count(" ") == 2
        assert line.isascii()
        assert line[:-1].isprintable()


def _known_hosts(text: str) -> None:
    known_hosts.plain_key(text)
    status = {"Self": {"DNSName": text, "TailscaleIPs": [text], "sshHostKeys": ["ssh-rsa AAAA"]}}
    for line in known_hosts.lines(text, status):
        assert len(line.split()) == 3
        assert line.count("\n") == 1
    ssh_config.fragment([text], Path("/s"), text, Path(text))


def _pages(text: str) -> None:
    """What is opened begins with the door, and goes on with nothing that somebody chose."""
    if ssh_browser.Pages("https://door.test").admit(text, 0):
        assert text.startswith("https://door.test/check/")
        assert text.rpartition("/")[2].isalnum()
    door = ssh_browser.plain_door(text)
    assert not set(door) & set(" \"'$%\\@?#")


def _call(kind: Any, answer: bytes) -> None:
    _Server(answer).call("GET", "/users", kind, body=None, query={"a": "b"}, if_match=1)


def fuzz(data: bytes) -> None:
    """Understood, or refused with words for the person who typed it."""
    text = argument_of(data)
    feed(
        text,
        times.parse_duration,
        times.moment,
        nodes._value,
        nodes.is_link,
        lambda given: connection._RemoteServer(given, "token"),
    )
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
    with contextlib.suppress(ValueError, RecursionError):  # which `show` says in words
        _ask_for_host_keys(data)
    feed(text, _known_hosts, _pages)
    with contextlib.suppress(ValueError, RecursionError):
        told = msgspec.json.decode(data, type=list[types.Node])
        made, known = ssh_config.fragment_of(told, Path("/k"))
        assert made.count("\n") == 1 + ssh_config.TRUST.count("\n")
        assert all(len(line.split()) == 3 for line in known.splitlines())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "dns.hujson"
        path.write_bytes(data)
        feed(path, dns._read, connection.read_text, policy_edit._json, ssh_config._read, ssh_config.removal)
    with patch.object(policy_edit, "_send"):
        feed(text, policy_edit.remove_rule)
