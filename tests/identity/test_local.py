from collections.abc import MutableMapping
from typing import Any

import pytest

from doorward.identity.local import LocalOnly


async def ask(*headers: tuple[str, str], kind: str = "http", **settings: Any) -> list[Any]:
    """What was sent; "app" where the app was asked."""
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        sent.append("app")

    async def receive() -> dict[str, Any]:
        return {}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message.get("status", message.get("code")))

    given = [(name.encode(), value.encode()) for name, value in headers]
    await LocalOnly(app, **settings)({"type": kind, "headers": given}, receive, send)
    return sent


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1", "LOCALHOST", "[::1]:8000"])
@pytest.mark.parametrize("origin", ["", "http://localhost:6274", "http://127.0.0.1"])
async def test_programs_and_pages_of_this_computer_may(host: str, origin: str) -> None:
    headers = [("host", host), *([("origin", origin)] if origin else [])]
    assert await ask(*headers) == ["app"]


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("host", "evil.example")],
        [("host", "localhost.evil.example")],
        [("host", "localhost"), ("host", "evil.example")],
        [("host", "localhost"), ("origin", "https://evil.example")],
        [("host", "localhost"), ("origin", "null")],
        [("host", "localhost"), ("origin", "http://localhost"), ("origin", "https://evil.example")],
        [("host", "[x")],
    ],
)
async def test_others_may_not(headers: list[tuple[str, str]]) -> None:
    assert await ask(*headers) == [403, None]
    assert await ask(*headers, kind="websocket") == [1008]


async def test_what_is_named_may() -> None:
    origin = "https://inspector.example"
    assert await ask(("host", "box:1"), ("origin", origin), hosts=["box"], origins=[origin]) == ["app"]
    assert await ask(kind="lifespan") == ["app"]
