"""What apps and browsers send to the issuer: whole requests, forms, headers, tokens, redirect addresses, capabilities."""

import asyncio
import base64
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
from tests.fuzz.feeding import feed, text_of
from tests.support.nouns import NOW
from tests.support.office import PAGE, Office, Party, challenge
from tests.support.world import open_world

from doorward.errors import DoorwardError
from doorward.issuer.access import read_access
from doorward.issuer.assertions import KIND
from doorward.issuer.claims import SCOPES
from doorward.issuer.described import read as read_description
from doorward.issuer.documents import _Reader, check_client_id
from doorward.issuer.fetch import LONGEST, SHORTEST, _lifetime, check_address
from doorward.issuer.request import canonical, find_target, read, with_answer
from doorward.issuer.tokens import ACCESS_TYPE, sign
from doorward.issuer.tokens import read as read_token
from doorward.issuer.trust import Trust
from doorward.login.apps import Wanted, _check, name_of, read_public_keys
from doorward.login.asking import parse_pairs
from doorward.login.redirects import allows, check_redirect, is_local, origin_of, shown_host
from doorward.login.tsidp import read_clients
from doorward.model import App
from doorward.policy.apps import Entry, _read, merged

COVERS = (
    "issuer.clients:_basic",
    "issuer.described:read",
    "issuer.documents:_Reader.__call__",
    "issuer.documents:check_client_id",
    "issuer.fetch:_lifetime",
    "issuer.fetch:check_address",
    "issuer.request:_bound_key",
    "issuer.request:_limits",
    "issuer.request:_proof_key",
    "issuer.request:canonical",
    "issuer.request:read",
    "issuer.request:with_answer",
    "issuer.tokens:_decode",
    "issuer.trust:_named",
    "issuer.wanted:read",
    "login.apps:name_of",
    "issuer.tokens:_raw",
    "issuer.tokens:access_of",
    "login.apps:_check",
    "login.apps:check_logout_url",
    "login.apps:_is_https",
    "login.apps:_check_resource",
    "login.apps:_check_scopes",
    "login.apps:read_public_keys",
    "login.tsidp:read_clients",
    "login.tsidp:_read",
    "login.asking:parse_pairs",
    "login.redirects:_split",
    "login.redirects:allows",
    "login.redirects:check_redirect",
    "policy.apps:_read",
)
LIMIT = 32_768
BACK = "https://a.example/cb"
APP = App(id=1, name="a", client_id="app-a", secret_hash=b"x", redirect_uris=(BACK,), actor="", created=NOW)


class _Tailnet:
    """An issuer that is kept from one input to the next."""

    def __init__(self) -> None:
        self.runner = asyncio.Runner()
        self.stack = AsyncExitStack()
        self.folder = tempfile.TemporaryDirectory(prefix="dw-fuzz-")
        self.party: Party = self.runner.run(self._open())

    async def _open(self) -> Party:
        world = await self.stack.enter_async_context(open_world(Path(self.folder.name)))
        office = Office(world)
        await office.person("ann")
        return await office.app()

    def close(self) -> None:
        self.runner.run(self.stack.aclose())
        self.runner.close()
        self.folder.cleanup()


_open: list[_Tailnet] = []
SEEDS = (
    f"redirect_uri={BACK}&response_type=code&scope=openid+x&code_challenge={challenge()}"
    f"&code_challenge_method=S256&max_age=7&prompt=login&state=%22&dpop_jkt={challenge()}".encode(),
    f"redirect_uri={BACK}&response_type=code&code_challenge={challenge()}&code_challenge_method=S256"
    "&claims=%7B%22id_token%22%3A%7B%22acr%22%3A%7B%22essential%22%3Atrue%2C%22value%22%3A%22x%22%7D%7D%7D".encode(),
    b"grant_type=authorization_code&code=dwcode-x",
    base64.b64encode(b"app-a:secret%20"),
    b'{"iss":"x","exp":9,"aud":"x","client_id":"x","sub":"x","scope":"openid","jti":"1.x","iat":1}',
    b"eyJhbGciOiJub25lIn0.e30.",
    b"https://grafana.example.com/cb?x=1",
    b"http://127.0.0.1:80/cb",
    b"com.example.app:/cb",
    b'{"client_id":"https://a.example/c","client_name":"x","redirect_uris":["https://a.example/cb"],"jwks_uri":"https://a.example/k"}',
    b"max-age=600, no-store",
    b'{"apps":["grafana"],"roles":["x"],"claims":{"a":[1]}}',
    b'{"%s":{"client_id":null,"client_secret":"%s","client_name":"A b","redirect_uris":["https://a.example/cb"]},'
    b'"%s":{"client_id":"x","name":"old","redirect_uri":"http://b","dynamically_registered":true}}'
    % (b"0a" * 16, b"f00d" * 16, b"1b" * 16),
    b'{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","kid":"a"}]}',
)


def fuzz(data: bytes) -> None:
    """Refused with a reason; nobody is sent anywhere but to the app, and no token is ours that we did not sign."""
    if not _open:
        _open.append(_Tailnet())
    text = text_of(data)
    feed(data, _request, lambda given: read_description(given, usual="none"), _Reader("https://a.example/c"))
    feed(text, _address)
    problems: list[str] = []
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        value = None
    found = _read(value, Entry, "grants[0]", problems)
    assert (found is None) == bool(problems)
    if found is not None:
        assert "sub" not in merged([found.claims], [])
    party = _open[0].party
    _open[0].runner.run(_whole(party, data, text, value))


def close() -> None:
    """Put everything away."""
    while _open:
        _open.pop().close()


def _request(data: bytes) -> None:
    pairs = parse_pairs(data, 60)
    asked = read(pairs, find_target(pairs, APP), frozenset(SCOPES), APP.resources)
    assert asked.redirect_uri == BACK
    assert with_answer(asked.redirect_uri, [("state", asked.state)]).startswith(BACK + "?state=")


def _address(text: str) -> None:
    for registered in (BACK, "http://127.0.0.1/cb", "com.example.app:/cb"):
        if allows(registered, text) and registered != text:
            assert text.startswith("http://127.0.0.1:")
            assert text.endswith("/cb")
    feed(text, _fetched, _client_id)
    trust = Trust(hosts=("a.example", "*.a.example"))
    assert not trust.knows(text) or "a.example" in text.lower()
    assert SHORTEST <= _lifetime({"cache-control": text}) <= LONGEST
    shown_host(text)
    origin_of(text)
    is_local(text)
    feed(Wanted("a", (text,), public=True), _check)
    feed(Wanted("a", (BACK,), resources=(text,)), _check)
    feed(Wanted("a", (BACK,), scopes=(text,)), _check)
    assert canonical(canonical(text)) == canonical(text)
    feed(Wanted("a", (BACK,), keys_url=text), _check)
    feed(Wanted("a", (BACK,), logout_url=text), _check)
    feed(text, _keys, _moving)
    check_redirect(text, public=True)
    assert text.isascii()
    assert not text.lower().startswith(("javascript:", "data:"))


def _client_id(text: str) -> None:
    check_client_id(text)
    assert "~" in name_of(text)


def _fetched(text: str) -> None:
    assert check_address(text)
    assert text.lower().startswith("https://")


def _keys(text: str) -> None:
    """What is kept of keys is public."""
    for one in read_public_keys(text):
        assert one.keys() <= {"kty", "n", "e", "crv", "x", "y", "kid", "alg", "use"}


def _moving(text: str) -> None:
    """A client of another server's has a name that policies may say, and an id that is no person's; or a reason."""
    for one in read_clients(text):
        assert (one.wanted is None) == bool(one.why)
        if one.wanted is not None:
            feed(one.wanted._replace(redirect_uris=(BACK,)), _check_name)
            assert one.client_id.isascii()
            assert ":" not in one.client_id


def _check_name(wanted: Wanted) -> None:
    _check(wanted)


async def _whole(party: Party, data: bytes, text: str, value: Any) -> None:
    desk = party.office.issuer._desk
    ring = await desk.keys.ring()
    try:
        read_token(ring, text, ACCESS_TYPE)
    except DoorwardError:
        pass
    else:
        raise AssertionError("a token that nobody has signed")
    if (
        isinstance(value, dict)
        and {"iss", "exp", "aud", "client_id", "sub", "scope", "jti", "iat"} <= value.keys()
    ):
        good = {"iss": desk.issuer, "exp": 2**40, "aud": "x", "client_id": "x", "sub": "x", "iat": 1}
        token = sign(ring, "ES256", ACCESS_TYPE, {**good, "scope": "openid", "jti": "1.x"})
        assert (await read_access(desk, token)).grant_id == 1
    async with party.program() as client:
        form = [(b"content-type", b"application/x-www-form-urlencoded")]
        basic = (b"authorization", b"Basic " + data.replace(b"\n", b"").replace(b"\r", b"")[:2000])
        for path in ("/token", "/par", "/device_authorization", "/introspect", "/revoke", "/userinfo"):
            for headers in (form, [*form, basic]):
                said = await client.post(path, content=data, headers=headers)
                assert said.status_code in {400, 401, 403, 413, 415, 429}, said.text
        asserted = {
            "client_assertion": text,
            "client_assertion_type": KIND,
            "grant_type": "client_credentials",
        }
        proof = (b"dpop", data.replace(b"\n", b"").replace(b"\r", b"")[:2000])
        said = await client.post("/token", content=f"client_id={party.app.client_id}", headers=[*form, proof])
        assert said.status_code in {400, 401, 429}, said.text
        said = await client.post("/token", data=asserted)
        assert said.status_code in {400, 401, 413, 429}, said.text
        for where, given in (("/device", text), ("/device/answer", text)):
            said = await client.post(where, data={"user_code": given, "asking": given, "answer": given})
            assert said.status_code in {400, 403, 404, 413, 429}, said.text
        page = [(name.encode(), value.encode()) for name, value in PAGE.items()]
        said = await client.post("/authorize", content=data, headers=[*form, *page])
        assert said.status_code in {200, 303, 400, 403, 413}
        assert not said.headers.get("location", "").startswith("https://a.example")
    party.office.world.clock.advance(100)
