"""A relying party that looks at everything that the OpenID Foundation's conformance suite looks at, and a little more strictly.

It shares nothing with the code that it judges: signatures are checked by ``cryptography``, forms and addresses are read from what a
browser would have. What the suite only warns about fails here too.
"""

import base64
import hashlib
import html
import json
import math
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx2
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers
from cryptography.hazmat.primitives.hashes import SHA256
from tests.support.browsing import DOOR, Browser
from tests.support.office import PAGE, VERIFIER, Office, Party

QUERY, FORM_POST = "query", "form_post"
STATE, NONCE = "the state", "the nonce"
GOOD, BAD = frozenset(("code", "state", "iss")), frozenset(("error", "error_description", "state", "iss"))
# What an ID token may say without having been asked for it (Core section 2, Back-Channel Logout section 2.1).
OF_ID_TOKEN = frozenset(
    ("iss", "sub", "aud", "exp", "iat", "auth_time", "acr", "amr", "sid", "at_hash", "nonce")
)
NO_PAGE = frozenset(
    ("login_required", "interaction_required", "consent_required", "account_selection_required")
)
_DESCRIPTION = re.compile(r"[\x20-\x21\x23-\x5b\x5d-\x7e]+")  # RFC 6749 section 4.1.2.1


class NoAnswerError(Exception):
    """The browser was shown a page in place of being sent back."""


def entropy(text: str) -> float:
    """Bits, as the suite measures them: by how often each sign is there."""
    counts = Counter(text)
    per_sign = -sum(n / len(text) * math.log2(n / len(text)) for n in counts.values())
    return per_sign * len(text)


def is_unguessable(text: str) -> None:
    """Of a code or token: long enough by itself, and of signs that differ."""
    assert len(text) * 6 >= 128, text
    assert entropy(text) >= 96, text


@dataclass
class Run:
    """One module's run.

    Args:
        office: where the server is.
        mode: how answers come to the app: ``QUERY`` or ``FORM_POST``.
    """

    office: Office
    mode: str

    async def authorize(self, party: Party, browser: Browser | None = None, **changes: str | None) -> Browser:
        """Send a browser, and show what it shows."""
        browser = browser or self.office.browser()
        await party.send(browser, PAGE, **self._asked(changes))
        return browser

    def _asked(self, changes: dict[str, str | None]) -> dict[str, str | None]:
        given: dict[str, str | None] = {} if self.mode == QUERY else {"response_mode": self.mode}
        return given | changes

    async def authorize_by_post(self, party: Party) -> Browser:
        """The same as a form that another site's page sends."""
        browser = self.office.browser()
        headers = {
            **PAGE,
            "content-type": "application/x-www-form-urlencoded",
            "origin": "https://grafana.example.com",
        }
        query = party.url(**self._asked({})).partition("?")[2]
        browser.page = await browser.client.post("/authorize", content=query, headers=headers)
        return browser

    def heard(
        self, party: Party, page: httpx2.Response, *, state: str | None = STATE, error: bool = False
    ) -> dict[str, str]:
        """What the app is told, by way of this page; NoAnswerError for a page that stays. All base checks of an answer."""
        assert page.headers["cache-control"] == "no-store"
        assert "referrer-policy" in page.headers
        uri = party.app.redirect_uris[0]
        pairs = _posted(page, uri) if self.mode == FORM_POST else _redirected(page, uri)
        names = [name for name, _ in pairs]
        assert len(names) == len(set(names)), "a parameter is there twice"
        told = dict(pairs)
        expected = set(BAD if error else GOOD) - (set() if state else {"state"})
        assert told.keys() == expected, told
        assert told.get("state") == state
        assert told["iss"] == DOOR
        if error:
            assert re.fullmatch(r"[a-z_]+", told["error"])
            assert _DESCRIPTION.fullmatch(told["error_description"])
        else:
            is_unguessable(told["code"])
        party.answer = told
        return told

    async def signed_in(
        self, party: Party, browser: Browser | None = None, **changes: str | None
    ) -> dict[str, Any]:
        """All of it without a page; what the ID token says."""
        browser = await self.authorize(party, browser, **changes)
        return await self.finish(party, browser, **changes)

    async def finish(self, party: Party, browser: Browser, **changes: str | None) -> dict[str, Any]:
        """From the answer that a browser has to tokens, each looked at; what the ID token says."""
        self.heard(party, browser.page, state=changes.get("state", STATE))
        verifier = VERIFIER if changes.get("code_challenge", VERIFIER) else ""
        said = await party.redeem(code_verifier=verifier)
        self.tokens(party, said)
        return await self.id_token(party, nonce=changes.get("nonce", NONCE))

    def tokens(self, party: Party, said: httpx2.Response) -> dict[str, Any]:
        """A token response."""
        assert said.status_code == 200, said.text
        assert said.headers["content-type"] == "application/json"
        assert "no-store" in said.headers["cache-control"]
        found: dict[str, Any] = said.json()
        assert found["token_type"].lower() == "bearer"
        assert isinstance(found["expires_in"], int)
        assert 0 < found["expires_in"] <= 3600
        is_unguessable(found["access_token"])
        if "refresh_token" in found:
            is_unguessable(found["refresh_token"])
        wanted = {"access_token", "token_type", "expires_in", "scope", "id_token", "refresh_token"}
        assert found.keys() <= wanted
        assert "id_token" in found
        party.tokens = found
        return found

    async def keys(self) -> dict[str, dict[str, Any]]:
        """The published keys, by kid."""
        async with self.office.browser().client as client:
            document = (await client.get("/.well-known/openid-configuration")).json()
            found = (await client.get(document["jwks_uri"])).json()["keys"]
        return {one["kid"]: one for one in found}

    async def id_token(self, party: Party, *, nonce: str | None = NONCE) -> dict[str, Any]:
        """What an ID token says, once its signature and each claim are right. RS256, the default, alone."""
        text = party.tokens["id_token"]
        first, second, third = text.split(".")
        header, claims = json.loads(from_base64(first)), json.loads(from_base64(second))
        assert header.keys() == {"alg", "kid", "typ"}
        assert (header["alg"], header["typ"]) == ("RS256", "JWT")
        key = (await self.keys())[header["kid"]]
        assert (key["kty"], key["alg"], key["use"]) == ("RSA", "RS256", "sig")
        numbers = RSAPublicNumbers(_number(key["e"]), _number(key["n"]))
        numbers.public_key().verify(from_base64(third), f"{first}.{second}".encode(), PKCS1v15(), SHA256())
        now = self.office.world.clock.now().timestamp()
        assert claims["iss"] == DOOR
        assert claims["aud"] in (party.app.client_id, [party.app.client_id])
        assert "azp" not in claims
        assert now < claims["exp"] <= now + 86400
        assert now - 60 <= claims["iat"] <= now
        assert claims.get("nonce") == nonce
        assert re.fullmatch(r"[\x21-\x7e]{1,255}", claims["sub"])
        half = hashlib.sha256(party.tokens["access_token"].encode()).digest()[:16]
        assert claims["at_hash"] == base64.urlsafe_b64encode(half).rstrip(b"=").decode()
        assert isinstance(claims["auth_time"], int)
        assert claims["auth_time"] <= now
        assert claims["acr"].startswith("urn:doorward:acr:")
        assert claims.keys() <= OF_ID_TOKEN, "claims that nobody asked for"
        return dict(claims)

    async def userinfo(self, party: Party, subject: str) -> dict[str, Any]:
        """What userinfo says of the one whose ID token this is."""
        return self.told(await party.userinfo(), subject)

    def told(self, said: httpx2.Response, subject: str) -> dict[str, Any]:
        """A userinfo response."""
        assert said.status_code == 200, said.text
        assert said.headers["content-type"] == "application/json"
        assert said.headers["cache-control"] == "no-store"
        found: dict[str, Any] = said.json()
        assert found["sub"] == subject
        return found

    def refused(self, said: httpx2.Response, code: str, status: int = 400) -> None:
        """An error of the token endpoint (RFC 6749 section 5.2)."""
        assert said.status_code == status, said.text
        assert said.headers["content-type"] == "application/json"
        assert said.headers["cache-control"] == "no-store"
        found = said.json()
        assert found["error"] == code
        assert _DESCRIPTION.fullmatch(found["error_description"])
        assert found.keys() == {"error", "error_description"}

    def stays(self, page: httpx2.Response, status: int = 400) -> None:
        """A page of ours that leads nowhere: no redirect of any kind."""
        assert page.status_code == status, page.text
        assert page.headers["content-type"].startswith("text/html")
        assert "location" not in page.headers
        assert "refresh" not in page.headers
        assert not re.search(r"<form[^>]*action=\"https?://", page.text)


def _redirected(page: httpx2.Response, uri: str) -> list[tuple[str, str]]:
    if page.status_code in {302, 303}:
        target = page.headers["location"]
    elif page.headers.get("refresh", "").startswith("0; url="):  # after a form of ours
        target = page.headers["refresh"].removeprefix("0; url=")
    else:
        raise NoAnswerError(page.text)
    parts = urlsplit(target)
    assert parts._replace(query="").geturl() == uri
    assert parts.fragment == ""
    return parse_qsl(parts.query, keep_blank_values=True, strict_parsing=True)


def _posted(page: httpx2.Response, uri: str) -> list[tuple[str, str]]:
    """OAuth 2.0 Form Post Response Mode: one form, that goes to the app and nowhere else."""
    assert page.headers["content-type"].startswith("text/html")
    assert "location" not in page.headers
    forms = re.findall(r"<form\b[^>]*>", page.text)
    if page.status_code != 200 or not any(uri in html.unescape(form) for form in forms):
        raise NoAnswerError(page.text)
    (form,) = forms
    assert html.unescape(form).count(f'action="{uri}"') == 1
    assert 'method="post"' in form
    origin = "://".join(urlsplit(uri)[:2])
    assert f"form-action {origin};" in page.headers["content-security-policy"]
    found = re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)"', page.text)
    return [(html.unescape(name), html.unescape(value)) for name, value in found]


def from_base64(text: str) -> bytes:
    """The bytes of base64url without padding (RFC 7515 section 2)."""
    assert "=" not in text
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _number(text: str) -> int:
    return int.from_bytes(from_base64(text))
