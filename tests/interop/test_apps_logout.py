"""Access is taken away while somebody is signed in: the app hears of it at once, and after doorward was killed all the same."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qsl, urlencode

import httpx2
import pytest
from joserfc import jwt
from joserfc.jwk import KeySet
from tests.interop.test_apps import CHALLENGE, VERIFIER
from tests.support.house import House, MadeApp, open_house
from tests.support.programs import require_client
from tests.support.relay import make_leaf
from tests.support.server import Server, free_port
from tests.support.visiting import Visitor
from tests.support.waiting import until

pytestmark = [pytest.mark.interop, pytest.mark.timeout(240)]

NOBODY = {"src": ["nobody@example.com"], "dst": ["*"], "app": {"doorward.dev/cap/app": [{}]}}
NOT_TOLD = "an app was not told of a logout"


class Wiki:
    """A relying party that keeps sessions of its own, by ``sid``, and ends them when it is told to.

    Attributes:
        sessions: who is signed in there.
        tokens: what it was told.
    """

    def __init__(self) -> None:
        self.port = free_port()
        self.address = f"https://localhost:{self.port}"
        self.sessions: dict[str, str] = {}
        self.tokens: list[str] = []
        self.keys: KeySet | None = None
        self.issuer = self.client_id = ""

    @contextlib.asynccontextmanager
    async def listening(self, folder: Path) -> AsyncIterator[None]:
        leaf, file = make_leaf(), folder / "wiki.pem"
        file.write_bytes(leaf.pem + leaf.key_pem)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=context)
        try:
            yield
        finally:
            server.close()
            await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        size = int(head.partition("content-length:")[2].partition("\r\n")[0])
        form = dict(parse_qsl((await reader.readexactly(size)).decode()))
        status = "200 OK" if head.startswith("post /told ") and self._told(form) else "400 Bad Request"
        writer.write(f"HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode())
        with contextlib.suppress(ConnectionError):  # who has read the answer may be gone at once
            await writer.drain()
            writer.close()
            await writer.wait_closed()

    def _told(self, form: dict[str, str]) -> bool:
        """Back-Channel Logout 1.0 section 2.6."""
        assert self.keys is not None
        token = jwt.decode(form["logout_token"], self.keys)
        assert (token.header["typ"], token.header["alg"]) == ("logout+jwt", "RS256")
        assert (token.claims["iss"], token.claims["aud"]) == (self.issuer, self.client_id)
        assert token.claims["events"] == {"http://schemas.openid.net/event/backchannel-logout": {}}
        assert "nonce" not in token.claims
        self.tokens.append(form["logout_token"])
        return bool(self.sessions.pop(token.claims["sid"], token.claims["sub"]) == token.claims["sub"])


async def sign_in(
    house: House, wiki: Wiki, app: MadeApp, browser: Visitor, program: httpx2.AsyncClient
) -> str:
    """Without a click, by the laptop's connection; the refresh token."""
    back = f"{wiki.address}/cb"
    asked = {
        "client_id": app.client_id,
        "redirect_uri": back,
        "response_type": "code",
        "scope": "openid offline_access",
        "code_challenge": CHALLENGE,
        "code_challenge_method": "S256",
    }
    arrived = await browser.go(f"{house.issuer}/authorize?{urlencode(asked)}", ends_at=back)
    assert arrived.pressed == ()
    form = {"grant_type": "authorization_code", "code": arrived.answer["code"], "redirect_uri": back}
    said = (await program.post("/token", data=form | {"code_verifier": VERIFIER})).json()
    wiki.keys = KeySet.import_key_set((await program.get("/.well-known/jwks.json")).json())
    claims = jwt.decode(said["id_token"], wiki.keys).claims
    wiki.sessions[claims["sid"]] = claims["sub"]
    return str(said["refresh_token"])


async def test_a_policy_edit_signs_people_out_of_an_app_that_keeps_sessions(tmp_path: Path) -> None:
    require_client()
    authority = tmp_path / "authority.pem"
    authority.write_bytes(make_leaf().pem)
    environ = {"DOORWARD_APPS_NETWORKS": "127.0.0.1", "DOORWARD_APPS_AUTHORITY": str(authority)}
    wiki = Wiki()
    async with Server(environ=environ) as server, open_house(server) as house:
        options = ("--redirect", f"{wiki.address}/cb", "--logout-url", f"{wiki.address}/told")
        app = await house.app("wiki", *options)
        wiki.client_id, wiki.issuer = app.client_id, app.issuer
        await house.is_open()
        async with (
            wiki.listening(tmp_path),
            house.visitor() as browser,
            httpx2.AsyncClient(
                base_url=house.issuer,
                proxy=f"http://localhost:{house.laptop.http_port}",
                verify=ssl.create_default_context(cafile=str(house.authority)),
                auth=(app.client_id, app.secret),
                timeout=30,
                trust_env=False,
            ) as program,
        ):
            token = await sign_in(house, wiki, app, browser, program)
            refresh = {"grant_type": "refresh_token", "refresh_token": token}
            async with house.policy(NOBODY):
                refused = await program.post("/token", data=refresh)
                assert (refused.status_code, refused.json()["error"]) == (400, "invalid_grant")
                await until(lambda: not wiki.sessions, 30)
            # What was taken away stays so when it is given back.
            assert (await program.post("/token", data=refresh)).json()["error"] == "invalid_grant"
            await sign_in(house, wiki, app, browser, program)
            assert len(wiki.sessions) == 1
        # The app is away, and doorward is killed over it.
        async with house.policy(NOBODY):
            await until(lambda: NOT_TOLD in server.log.read_text(errors="replace"), 30)
            await server.kill()
            await server.start()
        async with wiki.listening(tmp_path):
            await until(lambda: not wiki.sessions, 90)
        assert len(wiki.tokens) == 2
        log = server.log.read_text(errors="replace") + (await server.run("audit", "list", "--json")).stdout
        assert not any(secret in log for secret in (*wiki.tokens, token, app.secret))
