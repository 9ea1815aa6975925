"""Apps through a real door: zero click over a stock client's own connection, and none anywhere else."""

import base64
import hashlib
import json
import re
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx2
import pytest
from authlib.integrations.starlette_client import OAuth, OAuthError  # type: ignore[import-untyped]
from starlette.requests import Request
from tests.interop.test_door import ask_door
from tests.support.clients import StockClient
from tests.support.fetching import Answer
from tests.support.machines import machines
from tests.support.server import Server

from doorward.clock import SystemClock
from doorward.login.idtoken import Expected, check_id_token, read_keys

pytestmark = pytest.mark.interop

BACK = "https://app.example.com/cb"
VERIFIER = "v" * 43
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
PAGE = ("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document")


async def make_app(server: Server, name: str, *options: str) -> dict[str, Any]:
    made = await server.run("apps", "create", name, "--redirect", BACK, *options, "--json")
    found: dict[str, Any] = json.loads(made.stdout)
    return found


async def visit(server: Server, client: StockClient, app: dict[str, Any]) -> str:
    """Where a browser on the client's machine is sent when the app has it sign in."""
    asked = {
        "client_id": app["app"]["client_id"],
        "redirect_uri": BACK,
        "response_type": "code",
        "scope": "openid profile offline_access",
        "state": "s",
        "nonce": "n",
        "code_challenge": CHALLENGE,
        "code_challenge_method": "S256",
    }
    return await go(server, client, f"/authorize?{urlencode(asked)}")


async def go(server: Server, client: StockClient, path: str) -> str:
    """Where a browser on the client's machine is sent from here."""
    headers = [part for header in PAGE for part in ("--header", header)]
    page = await ask_door(server, client, path, "--include", *headers)
    assert page.status == 303, page.text
    (location,) = re.findall(r"(?mi)^location: (.*?)\r?$", page.text)
    return str(location)


async def ask_token(server: Server, client: StockClient, app: dict[str, Any], **form: str) -> Answer:
    login = f"{app['app']['client_id']}:{app['secret']}"
    fields = [part for name, value in form.items() for part in ("--data-urlencode", f"{name}={value}")]
    return await ask_door(server, client, "/token", "--user", login, *fields)


async def test_zero_click_from_the_connection_to_the_app_and_its_end(server: Server) -> None:
    async with machines(server, "laptop") as (laptop,):
        app = await make_app(server, "wiki")
        told = (await ask_door(server, laptop, "/.well-known/openid-configuration")).json()
        assert told["issuer"] == app["app"]["issuer"] == f"https://door.tailnet.internal:{server.door_port}"
        target = urlsplit(await visit(server, laptop, app))
        assert f"{target.scheme}://{target.netloc}{target.path}" == BACK
        answer = {name: values[0] for name, values in parse_qs(target.query).items()}
        assert (answer["state"], answer["iss"]) == ("s", told["issuer"])
        code = {"grant_type": "authorization_code", "code": answer["code"], "redirect_uri": BACK}
        stolen = await ask_token(server, laptop, app, **code, code_verifier="w" * 43)
        assert stolen.json()["error"] == "invalid_grant"
        said = (await ask_token(server, laptop, app, **code, code_verifier=VERIFIER)).json()
        keys = read_keys("doorward", (await ask_door(server, laptop, "/.well-known/jwks.json")).text.encode())
        expected = Expected(
            provider="doorward",
            issuer=told["issuer"],
            client_id=app["app"]["client_id"],
            nonce="n",
            access_token=said["access_token"],
        )
        claims = check_id_token(said["id_token"], keys, expected, SystemClock().now())
        bearer = ("--header", f"Authorization: Bearer {said['access_token']}")
        person = (await ask_door(server, laptop, "/userinfo", *bearer)).json()
        assert (person["sub"], person["name"]) == (claims["sub"], "alice")
        # Taken away while signed in: by the policy, at once.
        await server.set_policy(
            '{"grants": [{"src": ["*"], "dst": ["*"], "ip": ["*"]}, '
            '{"src": ["nobody@example.com"], "dst": ["*"], "app": {"doorward.dev/cap/app": [{}]}}]}'
        )
        assert (await ask_door(server, laptop, "/userinfo", *bearer)).status == 401
        refused = await ask_token(
            server, laptop, app, grant_type="refresh_token", refresh_token=said["refresh_token"]
        )
        assert refused.json()["error"] == "invalid_grant"
        assert "error=access_denied" in await visit(server, laptop, app)
        log = (await server.run("audit", "list", "--json")).stdout
        assert '"app.signin"' in log
        for secret in (app["secret"], said["refresh_token"], answer["code"]):
            assert secret not in log
            assert secret not in server.log.read_text(errors="replace")


class ThroughTheTailnet(httpx2.AsyncBaseTransport):
    """An app's requests, by curl through a stock client's connection."""

    def __init__(self, server: Server, client: StockClient) -> None:
        self._server = server
        self._client = client

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send it to the door."""
        body = (await request.aread()).decode()
        kept = {name: value for name, value in request.headers.items() if name not in LEFT_OUT}
        options = [part for name, value in kept.items() for part in ("--header", f"{name}: {value}")]
        options += ["--request", request.method, "--include", *(("--data-raw", body) if body else ())]
        answer = await ask_door(self._server, self._client, request.url.raw_path.decode(), *options)
        head, _, text = answer.text.replace("\r\n", "\n").partition("\n\n")
        headers = [line.split(": ", 1) for line in head.splitlines()[1:]]
        shown = [(name, value) for name, value in headers if name.lower() not in LEFT_OUT]
        return httpx2.Response(answer.status, headers=shown, content=text.encode(), request=request)


LEFT_OUT = {"host", "content-length", "accept-encoding", "connection", "transfer-encoding"}


def _request(session: dict[str, Any], query: str = "") -> Request:
    scope = {"type": "http", "method": "GET", "path": "/cb", "headers": [], "session": session}
    return Request(
        {**scope, "query_string": query.encode(), "server": ("app.example.com", 443), "scheme": "https"}
    )


@pytest.mark.client("authlib", "pypi:dev")
@pytest.mark.proves("silent", "refresh", "replay")
async def test_authlib_signs_people_in_as_its_guide_has_it(server: Server) -> None:
    async with machines(server, "laptop") as (laptop,):
        app = await make_app(server, "wiki", "--algorithm", "ES256")
        wiki = OAuth().register(
            "doorward",
            client_id=app["app"]["client_id"],
            client_secret=app["secret"],
            server_metadata_url=f"{app['app']['issuer']}/.well-known/openid-configuration",
            client_kwargs={
                "scope": "openid profile offline_access",
                "code_challenge_method": "S256",
                "transport": ThroughTheTailnet(server, laptop),
            },
        )
        session: dict[str, Any] = {}
        sent = await wiki.authorize_redirect(_request(session), BACK)
        target = urlsplit(sent.headers["location"])
        assert target.path == "/authorize"
        back = urlsplit(await go(server, laptop, f"{target.path}?{target.query}"))
        token = await wiki.authorize_access_token(_request(session, back.query))
        assert token["userinfo"]["acr"] == "urn:doorward:acr:network"
        person = await wiki.userinfo(token=token)
        assert (person["sub"], person["name"]) == (token["userinfo"]["sub"], "alice")
        again = await wiki.fetch_access_token(
            grant_type="refresh_token", refresh_token=token["refresh_token"]
        )
        assert again["refresh_token"] != token["refresh_token"]
        with pytest.raises(OAuthError, match="invalid_grant"):
            await wiki.fetch_access_token(grant_type="refresh_token", refresh_token=token["refresh_token"])
