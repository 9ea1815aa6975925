import json
from collections.abc import MutableMapping
from typing import Any

import pytest
from tests.support.clock import FakeClock

from doorward.errors import BadInput
from doorward.identity.caller import KEY, Identity
from doorward.identity.needs import SLOT, Slot
from doorward.identity.refusals import ScopeError
from doorward.identity.tools import ToolScopes

TOOLS = {"write": ["files:read", "files:write"], "wipe": ["files:admin"]}


async def ask(body: Any, *held: str, method: str = "POST", chunk: int = 7, **settings: Any) -> Any:
    """What the server read, or the status that came in its place."""
    read: list[bytes] = []
    sent: list[Any] = []
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    parts = [raw[at : at + chunk] for at in range(0, len(raw), chunk)] or [b""]
    messages = [
        {"type": "http.request", "body": each, "more_body": number < len(parts)}
        for number, each in enumerate(parts, 1)
    ]

    async def server(scope: Any, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            read.append(message.get("body", b""))
            if message["type"] != "http.request" or not message.get("more_body"):
                break
        sent.append(await receive())

    async def receive() -> dict[str, Any]:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message.get("status"))

    who = Identity(subject="s1", scopes=frozenset(held), claims={"sub": "s1"})
    scope = {"type": "http", "method": method, "path": "/mcp", KEY: who, SLOT: Slot(FakeClock())}
    await ToolScopes(server, TOOLS, **settings)(scope, receive, send)
    if not read:
        return sent[0]
    assert sent == [{"type": "http.disconnect"}]  # what comes after the request is not held back
    assert b"".join(read) == raw
    return raw


def call(*names: str) -> list[dict[str, Any]]:
    return [{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name}} for name in names]


@pytest.mark.parametrize("chunk", [1, 7, 10_000])
async def test_a_call_is_read_and_passed_on_whole(chunk: int) -> None:
    body = call("write")[0]
    assert await ask(body, "files:read", "files:write", chunk=chunk) == json.dumps(body).encode()


@pytest.mark.parametrize(
    ("body", "held", "scopes"),
    [
        (call("write")[0], (), ("files:read", "files:write")),
        (call("write")[0], ("files:read",), ("files:read", "files:write")),
        (call("read", "write", "wipe"), ("files:write",), ("files:read", "files:write", "files:admin")),
    ],
)
async def test_all_that_it_takes_is_asked_for_at_once(
    body: Any, held: tuple[str, ...], scopes: tuple[str, ...]
) -> None:
    with pytest.raises(ScopeError) as caught:
        await ask(body, *held)
    assert caught.value.scopes == scopes


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff",
        b"[" * 5000,
        [],
        1,
        {"method": "tools/list"},
        {"method": ["tools/call"], "params": {"name": "write"}},
        {"method": "tools/call"},
        {"method": "tools/call", "params": []},
        {"method": "tools/call", "params": {"name": ["write"]}},
        call("read")[0],
    ],
)
async def test_what_calls_no_tool_of_these_is_the_server_s_own(body: Any) -> None:
    assert isinstance(await ask(body), bytes)


async def test_only_posts_call_tools() -> None:
    assert isinstance(await ask(call("write")[0], method="GET"), bytes)


async def test_a_request_has_a_size() -> None:
    assert await ask(b"x" * 100, largest=99) == 413
    assert isinstance(await ask(b"x" * 99, largest=99), bytes)


@pytest.mark.parametrize("scopes", ["files:write", ["offline_access"], ["a b"]])
def test_scopes_are_some(scopes: Any) -> None:
    async def server(scope: Any, receive: Any, send: Any) -> None: ...

    with pytest.raises(BadInput):
        ToolScopes(server, {"write": scopes})
