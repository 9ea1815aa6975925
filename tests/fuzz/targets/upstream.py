"""What an outside provider answers, and what an administrator says of one."""

import json
from datetime import UTC, datetime
from functools import partial
from types import TracebackType
from typing import Any, Self

from tests.fuzz.feeding import feed, in_loop, text_of
from tests.support.clock import FakeClock
from tests.support.idtokens import CLIENT, ISSUER, NONCE, claims, jwk, jwks, signed

from doorward.errors import DoorwardError
from doorward.login.idtoken import Expected, check_id_token, claims_of, read_keys
from doorward.login.sealing import Sealer
from doorward.login.upstream import Upstream
from doorward.model import Provider
from doorward.tailnet.outside import check_provider
from doorward.transport.fetch import Answer, Fetcher

COVERS = (
    "login.idtoken:_address",
    "login.idtoken:_base64",
    "login.idtoken:_bits",
    "login.idtoken:_check_claims",
    "login.idtoken:_object",
    "login.upstream:_decode",
    "login.upstream:_refusal",
    "login.upstream:Upstream._ask",
    "login.upstream:Upstream._check_place",
    "login.upstream:Upstream.start",
    "tailnet.outside:check_provider",
    "tailnet.outside:_listed",
)
LIMIT = 65_536
NOW = FakeClock().now()
SECONDS = int(NOW.timestamp())
METADATA = {
    "issuer": ISSUER,
    "authorization_endpoint": f"{ISSUER}/auth",
    "token_endpoint": f"{ISSUER}/token",
    "jwks_uri": f"{ISSUER}/jwks",
    "userinfo_endpoint": f"{ISSUER}/me",
}
GOOD = claims(
    SECONDS, auth_time=SECONDS, email="ann@example.com", email_verified=True, groups=["eng"], name="Ann"
)
TOKEN = signed(GOOD)
KEYS = jwks(jwk("ES256"), jwk("RS256"), jwk("EdDSA"))
PUBLISHED = read_keys("corp", KEYS)
SEALER = Sealer(bytes(32), bytes)
PROVIDER = Provider(
    id=1, name="corp", issuer=ISSUER, client_id=CLIENT, created=datetime(2026, 1, 1, tzinfo=UTC)
)
EXPECTED = Expected(
    provider="corp", issuer=ISSUER, client_id=CLIENT, nonce=NONCE, access_token="a", fresh_since=NOW
)
SEEDS = (
    TOKEN.encode(),
    KEYS,
    json.dumps(METADATA).encode(),
    json.dumps(GOOD).encode(),
    json.dumps({"id_token": TOKEN, "access_token": "a"}).encode(),
    b'{"error":"invalid_grant"}',
    b"https://id.example.com/realms/x",
    b"@example.com",
    b"ann@example.com",
)


class _Net(Fetcher):
    """Answers one address with the bytes, and the others as an honest provider does."""

    def __init__(self, end: str, data: bytes) -> None:
        self._end = end
        self._data = data

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return

    async def request(
        self, method: str, url: str, *, limit: int, headers: Any = None, body: Any = None
    ) -> Answer:
        del method, limit, headers, body
        if url.endswith(self._end):
            return Answer(200, {}, self._data)
        if url.endswith("/token"):
            return Answer(200, {}, json.dumps({"id_token": TOKEN, "access_token": "a"}).encode())
        return Answer(200, {}, KEYS if url.endswith("/jwks") else json.dumps(METADATA).encode())


def fuzz(data: bytes) -> None:
    """Believed only if it is signed; refused with a reason otherwise."""
    text = text_of(data)
    feed(data, partial(read_keys, "corp"))
    feed(text, partial(check_id_token, keys=PUBLISHED, expected=EXPECTED, now=NOW))
    feed(data, _signed)
    for end in ("configuration", "/token", "/jwks", "/me"):
        in_loop(partial(_flow, end, data))
    for name in ("name", "issuer", "client_id", "groups_claim"):
        feed({name: text}, _provider)
    for name in ("domains", "users", "groups", "scopes"):
        feed({name: tuple(text.split("\n"))}, _provider)


def _signed(data: bytes) -> None:
    """The provider itself lies."""
    try:
        said = json.loads(data)
    except (ValueError, RecursionError):
        return
    if not isinstance(said, dict):
        return
    found = check_id_token(signed({**GOOD, **said}), PUBLISHED, EXPECTED, NOW)
    assert (found["iss"], found["nonce"], found["aud"]) == (ISSUER, NONCE, CLIENT) or isinstance(
        found["aud"], list
    )
    told = claims_of("corp", found, {"sub": found["sub"], **said}, "groups")
    assert told.email == told.email.lower()
    assert all(group.isprintable() for group in told.groups)


async def _flow(end: str, data: bytes) -> None:
    upstream = Upstream(FakeClock(), bytes, SEALER, open_fetcher=lambda _: _Net(end, data))
    text = text_of(data)
    try:
        await upstream.start(
            PROVIDER, redirect_uri="https://door.example.com/x", fresh=False, login_hint=text[:200]
        )
        query = {"state": "s", "iss": ISSUER, "code": text[:100], "error": text if end == "/me" else ""}
        await upstream.finish(
            PROVIDER,
            redirect_uri="https://door.example.com/x",
            query=query,
            state="s",
            nonce=NONCE,
            verifier="v",
        )
    except DoorwardError:
        return


def _provider(fields: dict[str, Any]) -> None:
    values: dict[str, Any] = {
        "id": 0,
        "name": "corp",
        "issuer": ISSUER,
        "client_id": CLIENT,
        "created": NOW,
    }
    good = check_provider(Provider(**(values | fields)))
    assert check_provider(good) == good
