"""What an HTTP request says to the pages and the API, before any of it is looked up."""

from functools import partial
from typing import Any

import msgspec
from starlette.requests import Request
from tests.fuzz.feeding import feed, in_loop, text_of
from tests.support.policy import make_node, make_user

from doorward import asgi
from doorward.api import app, nodes, reach
from doorward.errors import DoorwardError
from doorward.login import pages
from doorward.policy import DEFAULT_POLICY, parse_policy
from doorward.tailnet.settings import Settings
from doorward.tailnet.snapshot import Snapshot

COVERS = (
    "api.nodes:_prefixes",
    "api.reach:parse_goal",
    "api.reach:_port",
    "api.reach:_beyond",
    "api.reach:parse_sources",
    "asgi:decode_json",
    "asgi:decode_query",
    "asgi:read_body",
    "asgi:refuse_cross_origin",
    "login.pages:wants_html",
)
LIMIT = 1 << 20  # the largest body
BODIES = sorted(
    {each.body for each in app.OPERATIONS if each.body is not None}, key=lambda kind: kind.__name__
)
QUERIES = sorted(
    {each.query for each in app.OPERATIONS if each.query is not None}, key=lambda kind: kind.__name__
)
SEEDS = (
    b'{"name":"ann","email":"a@b","display_name":"A","role":"admin"}',
    b'{"user":"ann","tags":["tag:a"],"reusable":true,"ephemeral":false,"expires_in":3600}',
    b'{"approve":["10.0.0.0/8"],"reject":[]}',
    b'{"link":"abc","user":null}',
    b'{"text":"{}","filename":"x"}',
    b'{"version":3}',
    b'{"magic_dns":true,"search":["a.b"],"split":{"a":["1.1.1.1"]},"records":[{"name":"a","address":"1.1.1.1"}]}',
    b"limit=5&since=2026-01-02T03:04:05Z&before=3&action=node.",
    b"source=ann&destination=node-1:22&protocol=6",
    b"[fd7a:115c:a1e0::2]:22",
    b"node-1:65535",
    b"autogroup:member",
    b"10.1.2.3",
    b"https://door.example.com:8443",
    b"text/html,application/json;q=0.9,*/*;q=0.8",
    b"::ffff:192.0.2.1",
    b"4294967296",
)
SNAPSHOT = Snapshot.build(
    Settings(domain="tailnet.internal", url="http://127.0.0.1:8080"),
    [make_user(1, "alice")],
    [make_node(1, user=1), make_node(2, user=1, advertised=("10.0.0.0/8",), approved=("10.0.0.0/8",))],
    parse_policy(DEFAULT_POLICY),
    DEFAULT_POLICY,
)


def _request(data: bytes, **headers: bytes) -> Request:
    """A request with this body; header values as the HTTP parser lets them through."""

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": data, "more_body": False}

    raw = [
        (name.replace("_", "-").encode(), value.replace(b"\n", b"").replace(b"\r", b""))
        for name, value in headers.items()
    ]
    return Request(
        {"type": "http", "method": "POST", "headers": raw, "query_string": data[:2000], "path": "/"}, receive
    )


def fuzz(data: bytes) -> None:
    """Bodies, queries, headers and the words in them: read, or refused with a reason."""
    text = text_of(data)
    for kind in BODIES:
        feed(data, partial(_body, kind))
    head = data[:2000]
    request = _request(data, accept=head, origin=head, host=head, content_length=head)
    for kind in (*QUERIES, None):
        feed(request.query_params.multi_items(), partial(asgi.decode_query, kind=kind))
    pages.wants_html(request)
    feed(request.headers, lambda given: asgi.refuse_cross_origin("POST", given))
    in_loop(lambda: _whole(request))
    feed(text, lambda given: nodes._prefixes(given.split("\n"), "$.approve"))
    for protocol in ("tcp", text):
        feed(text, partial(_goal, protocol))
    feed(text, _sources)


def _body(kind: Any, data: bytes) -> None:
    """What was understood is written as something that is understood the same."""
    value = asgi.decode_json(data, kind, "application/json; charset=utf-8")
    assert msgspec.json.decode(msgspec.json.encode(value), type=kind) == value


def _goal(protocol: str, text: str) -> None:
    goal = reach.parse_goal(SNAPSHOT, text, protocol)
    assert goal.port is None or 0 < goal.port < 65536
    assert goal.gates


def _sources(text: str) -> None:
    assert all(not node.system for node in reach.parse_sources(SNAPSHOT, text))


async def _whole(request: Request) -> None:
    try:
        assert len(await asgi.read_body(request, 1 << 16)) <= 1 << 16
    except DoorwardError:
        return
