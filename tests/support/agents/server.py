"""An MCP server by the ``mcp`` SDK or by FastMCP that takes our tokens, for ``python -m tests.support.agents.server``."""

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import httpx2
import jwt
import uvicorn
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.server import MCPServer
from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings
from mcp.server.mcpserver.exceptions import ToolError
from tests.support.agents.lines import serve

WRITE = "files:write"  # what the tool "write" takes
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS = "urn:ietf:params:oauth:token-type:access_token"

App = Callable[..., Awaitable[None]]


class Introspection:
    """Asks the issuer about each token (RFC 7662)."""

    def __init__(self, issuer: str, resource: str, client_id: str, secret: str) -> None:
        self._issuer, self._resource, self._login = issuer, resource, (client_id, secret)

    async def verify_token(self, token: str) -> AccessToken | None:
        """As the SDK wants it."""
        async with httpx2.AsyncClient() as client:
            said = await client.post(f"{self._issuer}/introspect", data={"token": token}, auth=self._login)
        claims = said.raise_for_status().json()
        return _as_access(token, claims) if claims["active"] and claims["aud"] == self._resource else None


class Keys:
    """Checks each token by itself, with the keys that the issuer publishes."""

    def __init__(self, issuer: str, resource: str) -> None:
        self._issuer, self._resource = issuer, resource

    async def verify_token(self, token: str) -> AccessToken | None:
        """As the SDK wants it."""
        try:
            claims = await asyncio.to_thread(self._read, token)
        except jwt.InvalidTokenError:
            return None
        return _as_access(token, claims)

    def _read(self, token: str) -> dict[str, Any]:
        # The context says whom to trust (SSL_CERT_FILE), and the client follows HTTPS_PROXY.
        place = f"{self._issuer}/.well-known/jwks.json"
        keys = jwt.PyJWKClient(place, ssl_context=ssl.create_default_context())
        if jwt.get_unverified_header(token)["typ"] != "at+jwt":
            raise jwt.InvalidTokenError
        key = keys.get_signing_key_from_jwt(token)
        found: dict[str, Any] = jwt.decode(
            token, key, algorithms=["RS256", "ES256", "EdDSA"], audience=self._resource, issuer=self._issuer
        )
        return found


def _as_access(token: str, claims: dict[str, Any]) -> AccessToken:
    return AccessToken(
        token=token,
        client_id=claims["client_id"],
        scopes=claims["scope"].split(),
        expires_at=claims["exp"],
        resource=claims["aud"],
        subject=claims["sub"],
        claims=claims,
    )


class StepUp:
    """Says which scopes a tool takes before it is called (RFC 6750 section 3.1), as a server with several of them does."""

    def __init__(self, app: App, verifier: Any, resource: str, seen: list[str]) -> None:
        self._app, self._verifier, self._resource, self._seen = app, verifier, resource, seen

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """Let it through, or ask for more."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        parts = []
        while True:
            message = await receive()
            parts.append(message.get("body", b""))
            if not message.get("more_body"):
                break
        body = b"".join(parts)
        headers = {name.decode().lower(): value.decode() for name, value in scope["headers"]}
        asked = json.loads(body)
        if version := headers.get("mcp-protocol-version"):
            self._seen.append(version)
        token = headers.get("authorization", "").removeprefix("Bearer ")
        if token and asked.get("method") == "tools/call" and asked["params"]["name"] == "write":
            found = await self._verifier.verify_token(token)
            if found is not None and WRITE not in found.scopes:
                await self._ask_for_more(send)
                return

        async def again() -> dict[str, Any]:
            if parts:
                parts.clear()
                return {"type": "http.request", "body": body, "more_body": False}
            found: dict[str, Any] = await receive()
            return found

        await self._app(scope, again, send)

    async def _ask_for_more(self, send: Any) -> None:
        challenge = f'Bearer error="insufficient_scope", scope="files:read {WRITE}"'
        headers = [(b"www-authenticate", challenge.encode()), (b"content-length", b"0")]
        await send({"type": "http.response.start", "status": 403, "headers": headers})
        await send({"type": "http.response.body", "body": b""})


class Served:
    """The server, once it has begun."""

    def __init__(self, group: asyncio.TaskGroup) -> None:
        self._group = group
        self._seen: list[str] = []
        self._next: list[str] = [""]
        self._server: uvicorn.Server | None = None

    async def begin(self, *, port: int, library: str, checks: str, **said: str) -> None:
        """Serve. ``said``: issuer, resource, client_id, secret."""
        if library == "fastmcp":
            app, verifier = _fastmcp(checks, said)
        else:
            app, verifier = _sdk(checks, said, self._next)
        whole = StepUp(app, verifier, said["resource"], self._seen)
        config = uvicorn.Config(whole, host="127.0.0.1", port=port, log_level="warning", lifespan="on")
        self._server = uvicorn.Server(config)
        running = self._group.create_task(self._server.serve())
        while not self._server.started:
            if running.done():
                raise RuntimeError("the server ended")
            await asyncio.sleep(0.02)

    async def seen(self) -> list[str]:
        """The versions of the protocol that it was asked with since the last time that it was asked this."""
        found = list(dict.fromkeys(self._seen))
        self._seen.clear()
        return found

    async def upstream(self, *, resource: str) -> None:
        """Which server the tool ``beyond`` asks."""
        self._next[0] = resource

    async def end(self) -> None:
        """Serve no more."""
        if self._server is not None:
            self._server.should_exit = True


def _sdk(checks: str, said: dict[str, str], upstream: list[str]) -> tuple[App, Any]:
    issuer, resource = said["issuer"], said["resource"]
    verifier: Any = (
        Introspection(issuer, resource, said["client_id"], said["secret"])
        if checks == "introspection"
        else Keys(issuer, resource)
    )
    settings = AuthSettings(
        issuer_url=issuer,
        resource_server_url=resource,
        required_scopes=["files:read"],
        validate_token_resource=True,
    )
    server = MCPServer("files", auth=settings, token_verifier=verifier)

    def held() -> AccessToken:
        found = get_access_token()
        assert found is not None
        return found

    async def whoami() -> str:
        return json.dumps(held().claims)

    async def write() -> str:
        return " ".join(held().scopes)

    async def beyond() -> str:
        token = await exchange(said, held().token, upstream[0])
        async with (
            httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}) as client,
            Client(streamable_http_client(upstream[0], http_client=client)) as next_one,
        ):
            return str((await next_one.call_tool("whoami", {})).content[0].text)

    for tool in (whoami, write, beyond):
        server.tool()(tool)
    return server.streamable_http_app(), verifier


async def exchange(said: dict[str, str], token: str, upstream: str) -> str:
    """A token for the next server in place of the one that came (RFC 8693)."""
    form = {
        "grant_type": EXCHANGE,
        "subject_token": token,
        "subject_token_type": ACCESS,
        "resource": upstream,
    }
    async with httpx2.AsyncClient() as client:
        answer = await client.post(
            f"{said['issuer']}/token", data=form, auth=(said["client_id"], said["secret"])
        )
    found = answer.json()
    if answer.is_error:
        raise ToolError(found["error"])
    return str(found["access_token"])


def _fastmcp(checks: str, said: dict[str, str]) -> tuple[App, Any]:
    # Here and not above: it takes seconds, and most tests do without.
    from fastmcp import FastMCP  # noqa: PLC0415
    from fastmcp.server.auth import RemoteAuthProvider  # noqa: PLC0415
    from fastmcp.server.auth.providers.introspection import IntrospectionTokenVerifier  # noqa: PLC0415
    from fastmcp.server.auth.providers.jwt import JWTVerifier  # noqa: PLC0415
    from fastmcp.server.dependencies import get_access_token  # noqa: PLC0415

    issuer, resource = said["issuer"], said["resource"]
    if checks == "introspection":
        verifier: Any = IntrospectionTokenVerifier(
            introspection_url=f"{issuer}/introspect",
            client_id=said["client_id"],
            client_secret=said["secret"],
            required_scopes=["files:read"],
            audience=resource,
        )
    else:
        verifier = JWTVerifier(
            jwks_uri=f"{issuer}/.well-known/jwks.json",
            issuer=issuer,
            audience=resource,
            algorithm="RS256",
            required_scopes=["files:read"],
        )
    auth = RemoteAuthProvider(verifier, [issuer], base_url=resource.removesuffix("/mcp"))
    server = FastMCP("files", auth=auth)

    async def whoami() -> str:
        found = get_access_token()
        assert found is not None
        return json.dumps(found.claims)

    async def write() -> str:
        found = get_access_token()
        assert found is not None
        return " ".join(found.scopes)

    for tool in (whoami, write):
        server.tool(tool)
    return server.http_app(path="/mcp"), verifier


async def _main() -> None:
    async with asyncio.TaskGroup() as group:
        served = Served(group)
        await serve({"begin": served.begin, "seen": served.seen, "upstream": served.upstream})
        await served.end()


if __name__ == "__main__":
    asyncio.run(_main())
