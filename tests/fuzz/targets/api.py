"""The API, the pages and control over a real store: whole requests, whose every word is somebody's who may ask anything."""

import asyncio
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

from starlette.applications import Starlette
from tests.fuzz.feeding import text_of
from tests.support.browsing import House
from tests.support.nouns import machine_key, node_key
from tests.support.world import World, counting_entropy, open_world

from doorward import asgi
from doorward.api import app
from doorward.control.app import Control
from doorward.control.ask import Questions
from doorward.control.join import JoinPage
from doorward.errors import DoorwardError
from doorward.model import Node
from doorward.protocol.keys import MachinePrivate
from doorward.ssh import Attempts
from doorward.ssh.page import CheckPage

COVERS = (
    "api.app:_Gate._of_token",
    "api.policy:_expected",
    "asgi:entity_tag",
    "api.reach:parse_goal",
    "asgi:_Resource._answer",
    "asgi:decode_query",
    "control.app:Control.inside",
    "control.app:_body",
    "control.hold:Hold.action",
    "control.hold:_number",
    "control.ask:Questions.answer",
    "control.ask:Questions.c2n",
    "control.ask:Questions.ping",
    "control.join:JoinPage._found",
    "control.map:Map.__call__",
    "control.register:Register.__call__",
    "policy.compile:Policy.ssh_match",
    "policy.ssh:account_for",
    "tailnet.checks:Checks.ask",
    "tailnet.registry:Registry.create_user",
    "tailnet.registry:Registry._waiting_number",
    "tailnet.snapshot:Snapshot.find_node",
)
LIMIT = 64 << 10  # of a body here; each is stored
AFTER = 500  # inputs; then a fresh tailnet, or it would only grow

_KEY = f"nodekey:{node_key(1).raw.hex()}".encode()
SSH = """{"grants": [{"src": ["*"], "dst": ["*"], "ip": ["*"]}], "ssh": [
    {"action": "check", "src": ["ann"], "dst": ["autogroup:self"], "users": ["root"]},
    {"action": "accept", "src": ["ann"], "dst": ["autogroup:self"], "users": ["autogroup:nonroot"]}]}"""
SEEDS = (
    # First, while the policy is the one above.
    b"GET /machine/ssh/action/2/to/1\nssh_user=root&local_user=root",
    b"GET /machine/ssh/action/2/to/1\nssh_user=root&local_user=root&check=1",
    b"POST /api/v1/ssh/checks/1/approve\n",
    b"GET /machine/ssh/action/2/to/1\nssh_user=0&local_user=0",
    b"GET /machine/ssh/action/2/to/1\nssh_user=ann&local_user=ann",
    *(f"{each.method} {app.PREFIX}{each.path}\n".encode() for each in app.OPERATIONS),
    b'POST /api/v1/users\n\n{"name":"ann@example.com","role":"admin","email":"e","display_name":"d"}',
    b'PATCH /api/v1/users/ann\n\n{"role":"member"}',
    b'POST /api/v1/keys\n\n{"user":"ann","tags":["tag:a"],"reusable":true,"expires_in":60}',
    b"DELETE /api/v1/keys/99999999999999999999999",
    b"GET /api/v1/audit\nlimit=3&before=99999999999999999999&since=2026-01-02T03:04:05Z&actor=cli&action=user.",
    b'PATCH /api/v1/nodes/one\n\n{"name":"two","tags":[]}',
    b'POST /api/v1/nodes/100.64.0.1/routes\n\n{"approve":["10.0.0.0/8","::/0"],"reject":["fe80::%1/64"]}',
    b'POST /api/v1/nodes/1/ping\n\n{"source":"one"}',
    b'POST /api/v1/registrations/approve\n\n{"link":"http://x/join/abc","user":"ann"}',
    b'POST /api/v1/registrations/deny\n\n{"link":"7"}',
    b'PUT /api/v1/nodes/1/cuts/two\n\n{"expires_in":60,"comment":"why"}',
    b'PATCH /api/v1/joining\n\n{"approval":true,"key_lifetime":3600}',
    b'PUT /api/v1/policy\n\n{"text":"{\\"acls\\":[]}","filename":"f"}',
    b'PUT /api/v1/policy If-Match:"1"\n\n{"text":"{}"}',
    b"GET /api/v1/policy/history/1",
    b'POST /api/v1/policy/diff\n\n{"text":"{}"}',
    b"GET /api/v1/policy/reach\nsource=ann&destination=one:22&protocol=udp",
    b"GET /api/v1/policy/who-can\ndestination=one&account=root",
    b"GET /api/v1/policy/what-can\nsource=ann",
    b"GET /api/v1/policy/review\nsource=one",
    b'POST /api/v1/policy/rollback\n\n{"version":18446744073709551616}',
    b'PUT /api/v1/dns\n\n{"search":["a.b"],"nameservers":["1.1.1.1"],"records":[{"name":"a.b","address":"1.1.1.1"}]}',
    b'POST /api/v1/tokens\n\n{"description":"d","role":"auditor","expires_in":null}',
    b"GET /join/abcdefghijklmnopqrstuvwxyz234567\nrefresh=no",
    b'POST /machine/register\n\n{"Version":140,"NodeKey":"'
    + _KEY
    + b'","Hostinfo":{"Hostname":"one"},"Followup":"x/join/a"}',
    b'POST /machine/map\n\n{"Version":140,"NodeKey":"'
    + _KEY
    + b'","Stream":false,"Endpoints":["1.2.3.4:5"],"Hostinfo":{"OS":"linux"}}',
    b"POST /machine/answer/abc\n\nHTTP/1.1 200 OK\r\n\r\nbody",
    b"GET /machine/ssh/action/x",
    b"GET /api/v1/nodes Authorization:Bearer dwtoken-abcdefg-abcdefghijklmnopqrstuvwxyz234567",
    (
        b'POST /machine/register\n\n{"Version":140,"NodeKey":"'
        + _KEY
        + b'","Auth":{"AuthKey":"dwkey-abcdefg-abcdefghij"},'
        b'"OldNodeKey":"'
        + _KEY
        + b'","Expiry":"2020-01-01T00:00:00Z","Ephemeral":true,"Hostinfo":{"RequestTags":["tag:a"]}}'
    ),
    b"POST /machine/set-dns\n\n{}",
)
WORDS = tuple(
    word.encode() for each in app.OPERATIONS for word in each.path.split("/") if word and "{" not in word
)


class _Answered(Questions):
    """Questions whose answers have come already."""

    said = b""

    async def _ask(self, node: Node, **fields: object) -> bytes:
        return self.said


class _Tailnet:
    """One tailnet, on a loop of its own, made anew now and then."""

    def __init__(self) -> None:
        self.runner = asyncio.Runner()
        self.closing = AsyncExitStack()
        self.asked = 0
        self.runner.run(self._open())

    async def _open(self) -> None:
        folder = self.closing.enter_context(tempfile.TemporaryDirectory())
        self.world: World = await self.closing.enter_async_context(open_world(Path(folder)))
        registry = self.world.registry
        await registry.create_user("cli", "ann")
        await registry.set_policy("cli", SSH)
        self.node = await self.world.join(1, "one", "ann", RoutableIPs=["10.0.0.0/8"])
        await self.world.join(2, "two", "ann")
        attempts = Attempts(registry, self.world.clock, "https://door.test", poll=0.01)
        control = Control(
            registry, MachinePrivate(b"\x11" * 32).public(), counting_entropy(), attempts.answer
        )
        self.inside = control.inside
        house = House(self.world)
        check, join = (kind(house.askings, self.world.clock) for kind in (CheckPage, JoinPage))
        self.outside = Starlette(routes=[*control.routes, *check.routes(), *join.routes(), *house.routes])
        self.questions = _Answered(registry, counting_entropy())
        control.questions._open["abc"] = (machine_key(1), asyncio.get_running_loop().create_future())

    def close(self) -> None:
        self.runner.run(self.closing.aclose())
        self.runner.close()


_tailnets: list[_Tailnet] = []


def close() -> None:
    """Let go of the tailnet."""
    while _tailnets:
        _tailnets.pop().close()


def fuzz(data: bytes) -> None:
    """``METHOD PATH``, perhaps `` Authorization:TOKEN`` and `` If-Match:TAG``, a line with the query, and the body after an empty line. Whatever it is, it is no fault of ours."""
    if not _tailnets or _tailnets[0].asked >= AFTER:
        close()
        _tailnets.append(_Tailnet())
    tailnet = _tailnets[0]
    tailnet.asked += 1
    with patch.object(asgi, "unexpected", _loud):
        tailnet.runner.run(_ask(tailnet, data))


def _loud(error: Exception, _where: str) -> DoorwardError:
    """Instead of an answer of status 500: an error that nobody planned for is what we look for."""
    raise error


async def _ask(tailnet: _Tailnet, data: bytes) -> None:
    line, _, rest = data.partition(b"\n")
    line, _, tag = line.partition(b" If-Match:")
    line, from_outside, token = line.partition(b" Authorization:")
    query, _, body = rest.partition(b"\n")
    query = bytes(byte for byte in query if byte < 128)  # the listener lets no other through
    method, _, path = line.partition(b" ")
    target = (
        tailnet.inside
        if path.startswith(b"/machine")
        else tailnet.world.app
        if path.startswith(b"/api")
        else tailnet.outside
    )
    scope: dict[str, Any] = {
        "type": "http",
        "method": method.decode("latin-1")[:20] or "GET",
        "path": text_of(path),
        "raw_path": path,
        "query_string": query,
        "root_path": "",
        "headers": [
            (b"content-type", b"application/json"),
            *([(b"if-match", tag)] if tag else []),
            *([(b"authorization", token)] if from_outside else []),
        ],
        "client": ("192.0.2.1", 1),
        "state": {"listener": "public" if from_outside else "admin", "machine_key": machine_key(1)},
        "extensions": {},
    }

    statuses: list[int] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        statuses.append(message.get("status", 200))

    if b'"Stream"' not in body or b"true" not in body:  # a stream lasts as long as its client
        await target(scope, receive, send)
    assert 500 not in statuses
    tailnet.questions.said = data
    for ask in (
        tailnet.questions.c2n(tailnet.node, "GET", "/echo"),
        tailnet.questions.ping(tailnet.node, "100.64.0.1"),
    ):
        try:
            await ask
        except DoorwardError:
            continue
