"""An MCP client by the ``mcp`` SDK or by FastMCP, for ``python -m tests.support.agents.client``.

A call that needs a person ends with ``{"go": ADDRESS}``; whoever asked sends a browser there, and says ``back`` with where it came to.
"""

import asyncio
import webbrowser
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx2
import mcp.client.session as sdk_session
from mcp import Client
from mcp.client.auth import OAuthClientProvider
from mcp.client.auth.extensions.client_credentials import (
    ClientCredentialsOAuthProvider,
    PrivateKeyJWTOAuthProvider,
    SignedJWTParameters,
)
from mcp.client.auth.extensions.identity_assertion import IdentityAssertionOAuthProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import (
    AuthorizationCodeResult,
    OAuthClientInformationFull,
    OAuthClientMetadata,
    OAuthToken,
)
from tests.support.agents.lines import serve


class ToolError(Exception):
    """The tool itself said no."""


class Memory:
    """What the SDK keeps."""

    def __init__(self, client: OAuthClientInformationFull | None = None) -> None:
        self.tokens: OAuthToken | None = None
        self.client = client

    async def get_tokens(self) -> OAuthToken | None:
        """As the SDK wants it."""
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        """As the SDK wants it."""
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        """As the SDK wants it."""
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        """As the SDK wants it."""
        self.client = client_info


class Agent:
    """One connection to one server at a time."""

    def __init__(self, group: asyncio.TaskGroup) -> None:
        self._group = group
        self._forget()

    def _forget(self) -> None:
        self._events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._calls: asyncio.Queue[str] = asyncio.Queue()
        self._running: asyncio.Task[None] | None = None
        self._memory = Memory()
        self._provider: Any = None
        self._back: asyncio.Future[str] | None = None
        self._url, self._mode, self._library = "", "auto", "mcp"
        self._token = ""
        self._requests: list[str] = []

    # What is asked of it ---------------------------------------------------------------------------------------------

    async def open(self, *, url: str, mode: str = "auto", library: str = "mcp", **how: Any) -> None:
        """Say which server, and how this client shows who it is; nothing is asked yet. What was before is forgotten."""
        await self.leave()
        self._forget()
        self._url, self._mode, self._library = url, mode, library
        self._token = how.pop("token", "")
        if self._mode.startswith("2025"):
            sdk_session.LATEST_HANDSHAKE_VERSION = self._mode  # the newest that this client then offers
            self._mode = "legacy"
        if self._token:
            return
        kind = how.pop("kind", "person")
        self._provider = getattr(self, f"_as_{kind}")(**how)

    async def leave(self) -> None:
        """Put away what is open."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running])

    async def call(self, *, tool: str) -> dict[str, Any]:
        """Call a tool: ``{"text": ...}``, or ``{"go": ...}`` where a person is needed."""
        if self._running is None:
            self._running = self._group.create_task(self._run())
        self._calls.put_nowait(tool)
        return await self._next()

    async def back(self, *, url: str = "") -> dict[str, Any]:
        """The browser came to this address; without one, it has told the client itself."""
        if url:
            assert self._back is not None
            self._back.set_result(url)
        return await self._next()

    async def tokens(self) -> dict[str, Any]:
        """What the client has."""
        found = self._memory.tokens
        assert found is not None
        client = self._memory.client
        return {**found.model_dump(), "client_id": None if client is None else client.client_id}

    async def requests(self) -> list[str]:
        """What was asked, and of whom: method, address without its query, and the status."""
        return self._requests

    async def expire(self) -> None:
        """Have the client believe that its access token is over."""
        self._provider.context.token_expiry_time = 1.0  # long ago

    # How it shows who it is ------------------------------------------------------------------------------------------

    def _as_person(
        self,
        *,
        redirect: str,
        client_id: str = "",
        secret: str = "",
        document: str = "",
        scope: str = "",
        grants: list[str] | None = None,
    ) -> Any:
        method = "client_secret_basic" if secret else "none"
        if self._library == "fastmcp":
            from fastmcp.client.auth import OAuth  # noqa: PLC0415 - it takes seconds, and most tests do without

            setattr(webbrowser, "open", self._open_browser)  # noqa: B010 - it is another kind of function
            back = urlsplit(redirect)
            return OAuth(
                client_id=client_id or None,
                client_secret=secret or None,
                client_metadata_url=document or None,
                callback_host=back.hostname or "",
                callback_port=back.port,
                scopes=scope or None,
            )
        known = {"client_id": client_id, "client_secret": secret or None} if client_id else {}
        if known:
            self._memory.client = OAuthClientInformationFull(
                **known, redirect_uris=[redirect], token_endpoint_auth_method=method
            )
        return OAuthClientProvider(
            self._url,
            OAuthClientMetadata(
                client_name="agent",
                redirect_uris=[redirect],
                scope=scope or None,
                token_endpoint_auth_method=method,
                **({"grant_types": grants} if grants else {}),
            ),
            self._memory,
            redirect_handler=self._go,
            callback_handler=self._came_back,
            client_metadata_url=document or None,
        )

    def _as_service(self, *, client_id: str, secret: str, issuer: str, method: str) -> Any:
        return ClientCredentialsOAuthProvider(
            self._url, self._memory, client_id, secret, token_endpoint_auth_method=method, issuer=issuer
        )

    def _as_key(self, *, client_id: str, pem: str, issuer: str) -> Any:
        signed = SignedJWTParameters(
            issuer=client_id,
            subject=client_id,
            signing_key=pem,
            signing_algorithm="ES256",
        )
        return PrivateKeyJWTOAuthProvider(
            self._url, self._memory, client_id, signed.create_assertion_provider(), issuer=issuer
        )

    def _as_employee(self, *, client_id: str, secret: str, issuer: str, assertion: str, scope: str) -> Any:
        async def ready(_audience: str, _resource: str) -> str:
            return assertion

        return IdentityAssertionOAuthProvider(
            self._url, self._memory, client_id, secret, issuer, ready, scope=scope
        )

    # Inside ---------------------------------------------------------------------------------------------------------

    async def _next(self) -> dict[str, Any]:
        found = await self._events.get()
        if "raised" in found:
            raise found["raised"]
        return found

    async def _run(self) -> None:
        try:
            async with AsyncExitStack() as stack:
                client = await self._client(stack)
                while True:
                    tool = await self._calls.get()
                    found = await client.call_tool(tool, {})
                    if found.is_error:
                        self._events.put_nowait({"raised": ToolError(found.content[0].text)})
                        continue
                    self._events.put_nowait({"text": found.content[0].text})
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, who has called is told
            self._running, self._calls = None, asyncio.Queue()
            self._events.put_nowait({"raised": _innermost(error)})

    async def _client(self, stack: AsyncExitStack) -> Any:
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        if self._library == "fastmcp":
            from fastmcp import Client as FastClient  # noqa: PLC0415 - as above

            return await stack.enter_async_context(FastClient(self._url, auth=self._provider))
        hooks = {"response": [self._note]}
        http = await stack.enter_async_context(
            httpx2.AsyncClient(auth=self._provider, headers=headers, timeout=60, event_hooks=hooks)
        )
        return await stack.enter_async_context(
            Client(streamable_http_client(self._url, http_client=http), mode=self._mode)
        )

    async def _note(self, response: httpx2.Response) -> None:
        request = response.request
        self._requests.append(f"{request.method} {request.url.copy_with(query=None)} {response.status_code}")

    async def _go(self, url: str) -> None:
        self._back = asyncio.get_running_loop().create_future()
        self._events.put_nowait({"go": url})

    def _open_browser(self, url: str, *_more: Any) -> bool:
        self._events.put_nowait({"go": url})
        return True

    async def _came_back(self) -> AuthorizationCodeResult:
        assert self._back is not None
        told = dict(parse_qsl(urlsplit(await self._back).query))
        if "code" not in told:
            raise PermissionError(told.get("error", "nothing"))
        return AuthorizationCodeResult(code=told["code"], state=told.get("state"), iss=told.get("iss"))


def _innermost(error: Exception) -> Exception:
    """What there was to it: task groups wrap it."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


async def _main() -> None:
    async with asyncio.TaskGroup() as group:
        agent = Agent(group)
        names = ("open", "call", "back", "tokens", "requests", "expire")
        await serve({name: getattr(agent, name) for name in names})
        await agent.leave()


if __name__ == "__main__":
    asyncio.run(_main())
