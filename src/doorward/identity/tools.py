"""For MCP servers: what each tool takes, asked for before the server begins to answer.

Inside a tool it is too late: most servers have sent the head of their answer by then, and a program that lacks a scope would see a tool
that failed, not a challenge that tells it what to ask for. So the request is read first, in every revision of the protocol alike
(the header ``Mcp-Name`` of the newest one is the caller's word, and older ones have none).
"""

from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from typing import Any

import msgspec

from doorward.errors import BadInput
from doorward.identity.caller import App, Receive, Scope, Send
from doorward.identity.needs import check_scopes, demand

LARGEST = 4 << 20  # bytes of a request
_CALL = "tools/call"


class ToolScopes:
    """Asks for scopes tool by tool. Stands between IdentityMiddleware and an MCP server's app.

    Args:
        app: the server's ASGI app.
        scopes: by a tool's name, all that a token must allow; a tool that is not named takes none but what the middleware asks for.
        largest: bytes of a request; larger ones are refused (413).
    """

    def __init__(self, app: App, scopes: Mapping[str, Sequence[str]], *, largest: int = LARGEST) -> None:
        for each in scopes.values():
            if isinstance(each, str):
                raise BadInput("a tool's scopes are a list", cure='Write ["files:write"].')
            check_scopes(each)
        self._app = app
        self._scopes = {name: tuple(each) for name, each in scopes.items()}
        self._largest = largest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve as ASGI."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        messages: list[MutableMapping[str, Any]] = []
        size = 0
        while not messages or (messages[-1]["type"] == "http.request" and messages[-1].get("more_body")):
            messages.append(await receive())
            size += len(messages[-1].get("body", b""))
            if size > self._largest:
                await send(
                    {"type": "http.response.start", "status": 413, "headers": [(b"content-length", b"0")]}
                )
                await send({"type": "http.response.body", "body": b""})
                return
        body = b"".join(each.get("body", b"") for each in messages)
        wanted = [one for name in _tools(body) for one in self._scopes.get(name, ())]
        if wanted:
            demand(scope, *dict.fromkeys(wanted))
        waiting = iter(messages)

        async def again() -> MutableMapping[str, Any]:
            return next(waiting, None) or await receive()

        await self._app(scope, again, send)


def _tools(body: bytes) -> Iterator[str]:
    """The tools that a request calls; what is no such request calls none, and the server says what it thinks of it."""
    try:
        said = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return
    for each in said if isinstance(said, list) else [said]:  # until 2025-03-26 there were several in one
        if isinstance(each, dict) and each.get("method") == _CALL and isinstance(each.get("params"), dict):
            name = each["params"].get("name")
            if isinstance(name, str):
                yield name
