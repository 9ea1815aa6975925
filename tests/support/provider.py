"""A real OpenID provider, npm's ``oidc-provider``, and a browser that signs in there."""

import asyncio
import json
import re
import shutil
from html import unescape
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, urljoin, urlsplit

import httpx2
from joserfc.jwk import ECKey
from tests.support.npm import installed
from tests.support.programs import require
from tests.support.server import free_port

from doorward.engine.processes import tied_to_us

CLIENT_ID = "doorward"
CLIENT_SECRET = "a secret of tests"
_HERE = Path(__file__).parent / "oidc"
_MOST_STEPS = 12  # of a browser, from the first address to the last


class RealProvider:
    """The provider on a port of this machine. ``async with`` starts it and stops it.

    Args:
        accounts: the claims of everybody there, by their subject.
        redirect_uri: where browsers are sent back to.
        claims_in_userinfo_only: leave profile and groups out of the ID token, as the standard has it.
    """

    def __init__(
        self,
        accounts: dict[str, dict[str, Any]],
        *,
        redirect_uri: str,
        claims_in_userinfo_only: bool = True,
    ) -> None:
        self._port = free_port()
        self.issuer = f"http://127.0.0.1:{self._port}"
        self._redirect_uri = redirect_uri
        self._told = {
            "issuer": self.issuer,
            "port": self._port,
            "accounts": accounts,
            "claims_in_userinfo_only": claims_in_userinfo_only,
            "clients": [
                {
                    "client_id": CLIENT_ID,
                    "client_secret": CLIENT_SECRET,
                    "redirect_uris": [redirect_uri],
                    "id_token_signed_response_alg": "ES256",
                }
            ],
        }
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start it with a new key: whoever knows the one before does not know it."""
        folder = await asyncio.to_thread(installed, _HERE)
        # Node.js looks for packages beside the program.
        await asyncio.to_thread(shutil.copy, _HERE / "provider.mjs", folder)
        key = ECKey.generate_key("P-256", auto_kid=True).as_dict(private=True)
        told = self._told | {"jwks": {"keys": [key | {"use": "sig", "alg": "ES256"}]}}
        self._process = await asyncio.create_subprocess_exec(
            *tied_to_us([require("node"), str(folder / "provider.mjs")]),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(told).encode() + b"\n")
        async with asyncio.timeout(40):
            line = await self._process.stdout.readline()
        assert line == b"ready\n", line

    async def stop(self) -> None:
        """End it; who asks then finds nobody."""
        process, self._process = self._process, None
        if process is not None:
            assert process.stdin is not None
            process.stdin.close()
            try:
                async with asyncio.timeout(5):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()

    def browser(self) -> "Browser":
        """Somebody's browser, which has never been here."""
        return Browser(self._redirect_uri)


class Browser:
    """Follows redirects, keeps cookies, and fills in the provider's forms."""

    def __init__(self, ends_at: str) -> None:
        self._ends_at = ends_at
        self._client = httpx2.AsyncClient(timeout=20, trust_env=False)
        self.asked_to_sign_in = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def sign_in(self, url: str, account: str, *, agree: bool = True) -> dict[str, str]:
        """Go to ``url``, be ``account`` there, and return the query with which the browser is sent back."""
        answer = await self._client.get(url)
        for _ in range(_MOST_STEPS):
            if location := answer.headers.get("location"):
                target = urljoin(str(answer.url), location)
                if target.partition("?")[0] == self._ends_at:
                    return dict(parse_qsl(urlsplit(target).query))
                answer = await self._client.get(target)
                continue
            page = answer.text
            form = re.search(r'<form[^>]*action="([^"]+)"', page)
            prompt = re.search(r'name="prompt" value="(\w+)"', page)
            assert form is not None, (answer.status_code, page)
            assert prompt is not None, page
            if not agree and (abort := re.search(r'href="([^"]+/abort)"', page)):
                answer = await self._client.get(urljoin(str(answer.url), unescape(abort[1])))
                continue
            self.asked_to_sign_in += prompt[1] == "login"
            told = {"prompt": prompt[1], "login": account, "password": "any"}
            answer = await self._client.post(urljoin(str(answer.url), unescape(form[1])), data=told)
        raise AssertionError("the provider sends the browser on and on")
