"""An outside provider in memory, honest until a test bends what it says, behind the real client of one."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs

from tests.support.clock import FakeClock
from tests.support.idtokens import CLIENT, ISSUER, claims, jwk, jwks, signed
from tests.support.world import SEALER, counting_entropy

from doorward.errors import DoorwardError
from doorward.login.upstream import Started, Upstream
from doorward.model import Claims, Provider
from doorward.transport.fetch import Answer, Fetcher

BACK = "https://door.example.com/signin/callback/corp"
SECRET = "s3cret/+ä"
PROVIDER = Provider(
    id=1,
    name="corp",
    issuer=ISSUER,
    client_id=CLIENT,
    client_secret=SEALER.seal(SECRET, ISSUER),
    created=datetime(2026, 1, 1, tzinfo=UTC),
)


class Corp:
    """A provider in memory. Tests bend what it says; ``asked`` is what it was asked, with the network's view of it."""

    def __init__(self, clock: FakeClock | None = None) -> None:
        self.clock = clock or FakeClock()
        self.metadata: dict[str, Any] = {
            "issuer": ISSUER,
            "authorization_endpoint": f"{ISSUER}/auth?tenant=7",
            "token_endpoint": f"{ISSUER}/token",
            "jwks_uri": "https://keys.example.net/jwks",
            "userinfo_endpoint": f"{ISSUER}/me",
            "authorization_response_iss_parameter_supported": True,
        }
        self.keys = [jwk("ES256"), jwk("RS256")]
        self.said: dict[str, Any] = {}  # claims that differ
        self.sign: Callable[[dict[str, Any]], str] = signed
        self.userinfo: dict[str, Any] = {"sub": "s1", "email": "ann@example.com", "email_verified": True}
        self.answers: dict[
            str, Answer | DoorwardError
        ] = {}  # by the end of the address, in place of the true ones
        self.asked: list[tuple[str, str, bool, dict[str, str], dict[str, str]]] = []
        self.nonce = ""
        self.upstream = Upstream(
            self.clock, counting_entropy(), SEALER, open_fetcher=lambda private: Net(self, private)
        )

    def answer(
        self, method: str, url: str, headers: dict[str, str], form: dict[str, str], *, private: bool
    ) -> Answer:
        self.asked.append((method, url, private, headers, form))
        for end, instead in self.answers.items():
            if url.endswith(end):
                if isinstance(instead, DoorwardError):
                    raise instead
                return instead
        if url.endswith("/.well-known/openid-configuration"):
            return told(self.metadata)
        if url.endswith("/jwks"):
            return Answer(200, {}, jwks(*self.keys))
        if url.endswith("/me"):
            return told(self.userinfo)
        if form.get("code") != "the code":
            return told({"error": "invalid_grant"}, 400)
        now = int(self.clock.now().timestamp())
        token = self.sign(claims(now, nonce=self.nonce) | self.said)
        return told({"id_token": token, "access_token": "access", "token_type": "Bearer"})

    async def begin(self, **options: Any) -> Started:
        started = await self.upstream.start(
            options.pop("provider", PROVIDER), redirect_uri=BACK, fresh=options.pop("fresh", False), **options
        )
        self.nonce = started.nonce
        return started

    async def end(self, started: Started, query: dict[str, str] | None = None, **options: Any) -> Claims:
        good = {"code": "the code", "state": started.state, "iss": ISSUER}
        return await self.upstream.finish(
            options.pop("provider", PROVIDER),
            redirect_uri=BACK,
            query=good | (query or {}),
            state=started.state,
            nonce=started.nonce,
            verifier=started.verifier,
            **options,
        )

    async def sign_in(self, **options: Any) -> Claims:
        return await self.end(await self.begin(), **options)

    def count(self, end: str) -> int:
        return sum(url.endswith(end) for _, url, *_ in self.asked)


class Net(Fetcher):
    """The fetcher, with the provider at its other end."""

    def __init__(self, corp: Corp, private: bool) -> None:
        self._corp = corp
        self._private = private

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    async def request(
        self, method: str, url: str, *, limit: int, headers: Any = None, body: bytes | None = None
    ) -> Answer:
        assert 0 < limit <= 1 << 20
        form = {
            name: value[0]
            for name, value in parse_qs((body or b"").decode(), strict_parsing=bool(body)).items()
        }
        return self._corp.answer(method, url, dict(headers or {}), form, private=self._private)


def told(what: Any, status: int = 200) -> Answer:
    return Answer(status, {}, json.dumps(what).encode())
