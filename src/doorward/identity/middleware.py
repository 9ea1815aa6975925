"""ASGI middleware: who is calling, in the scope of any app.

::

    request ─▶ headers that claim an identity are taken away
            ─▶ Authorization: Bearer   ─▶ the token is good: that is who; it is not: 401 or 403, whatever the connection says
            ─▶ none, and a tailnet     ─▶ the connection says who
            ─▶ neither                 ─▶ 401, or nobody with ``required=False``
"""

from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

import msgspec

from doorward.errors import DoorwardError, Unauthenticated
from doorward.identity.caller import KEY, Identity
from doorward.identity.connection import Tailnet
from doorward.identity.verifier import Verifier
from doorward.protocol.proxyheaders import is_identity_header

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class IdentityMiddleware:
    """Puts an ``Identity`` into the scope (read it with ``caller``).

    Args:
        app: any ASGI app. What is not a request (``lifespan``) passes untouched.
        tailnet: believe connections of this daemon's.
        verifier: believe tokens (RFC 6750, in the Authorization header alone). Without one, that header is the app's own.
        scopes: what every token must allow.
        required: refuse strangers; False lets them in as None.
        resource_metadata: the address of this resource's metadata (RFC 9728), to be named in refusals.
    """

    def __init__(
        self,
        app: App,
        *,
        tailnet: Tailnet | None = None,
        verifier: Verifier | None = None,
        scopes: Sequence[str] = (),
        required: bool = True,
        resource_metadata: str = "",
    ) -> None:
        self._app = app
        self._tailnet = tailnet
        self._verifier = verifier
        self._scopes = tuple(scopes)
        self._required = required
        self._metadata = resource_metadata

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve as ASGI."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        headers = [pair for pair in scope["headers"] if not is_identity_header(pair[0])]
        try:
            who = await self._who(scope, headers)
            if who is None and self._required:
                raise Unauthenticated("it is not known who is asking", cure=self._cure())
        except DoorwardError as error:
            await self._refuse(scope["type"], error, send)
            return
        await self._app({**scope, "headers": headers, KEY: who}, receive, send)

    async def _who(self, scope: Scope, headers: list[tuple[bytes, bytes]]) -> Identity | None:
        said = [value for name, value in headers if name.lower() == b"authorization"]
        if self._verifier is not None and said:
            scheme, _, token = said[0].decode("latin-1").partition(" ")
            if scheme.lower() == "bearer" or len(said) > 1:
                # Two of them: another reader might take the other one.
                return await self._verifier.verify("" if len(said) > 1 else token.strip(), self._scopes)
        if self._tailnet is not None:
            return await self._tailnet.identify(scope.get("client"), scope.get("server"))
        return None

    def _cure(self) -> str:
        ways = [
            *(["Come over the tailnet."] if self._tailnet else []),
            *(["Send an access token."] if self._verifier else []),
        ]
        return " Or: ".join(ways)

    async def _refuse(self, kind: str, error: DoorwardError, send: Send) -> None:
        if kind == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": error.message[:100]})
            return
        body = msgspec.json.encode(error.public())
        headers = [
            (b"content-type", b"application/problem+json"),
            (b"content-length", str(len(body)).encode()),
            (b"cache-control", b"no-store"),
        ]
        if self._verifier is not None and error.status in {401, 403}:
            headers.append((b"www-authenticate", self._challenge(error).encode("latin-1", "replace")))
        await send({"type": "http.response.start", "status": error.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _challenge(self, error: DoorwardError) -> str:
        """RFC 6750 section 3; RFC 9728 section 5.1. Without a token there is no error code (6750 section 3.1)."""
        code = getattr(error, "code", "")
        parts = [f'error="{code}"'] if code else []
        if self._scopes:
            parts.append(f'scope="{" ".join(self._scopes)}"')
        if self._metadata:
            parts.append(f'resource_metadata="{self._metadata}"')
        return " ".join(("Bearer", ", ".join(parts))).rstrip()
