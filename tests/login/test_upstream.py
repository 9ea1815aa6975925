"""Outside providers: one that is honest, and what becomes of one that is down, slow or lying."""

import hashlib
from base64 import b64decode, urlsafe_b64encode
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest
from tests.support.corp import BACK, PROVIDER, SECRET, Corp, Net, told
from tests.support.idtokens import CLIENT, ISSUER, jwk, signed
from tests.support.world import SEALER, counting_entropy

from doorward.errors import DoorwardError, NotPermitted, RemoteProtocolError, Unavailable
from doorward.login.upstream import KEEP, KEYS_AGAIN, Upstream, open_fetcher
from doorward.transport.fetch import Answer


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def corp() -> Corp:
    return Corp()


# -- one that is honest


async def test_the_browser_is_sent_with_what_has_to_come_back(corp: Corp) -> None:
    started = await corp.begin(login_hint="ann@example.com")
    place = urlsplit(started.url)
    assert f"{place.scheme}://{place.netloc}{place.path}" == f"{ISSUER}/auth"
    query = {name: value[0] for name, value in parse_qs(place.query).items()}
    digest = hashlib.sha256(started.verifier.encode()).digest()
    assert query == {
        "tenant": "7",
        "response_type": "code",
        "client_id": CLIENT,
        "redirect_uri": BACK,
        "scope": "openid email profile",
        "state": started.state,
        "nonce": started.nonce,
        "code_challenge": urlsafe_b64encode(digest).rstrip(b"=").decode(),
        "code_challenge_method": "S256",
        "login_hint": "ann@example.com",
    }
    assert len({started.state, started.nonce, started.verifier}) == 3
    assert len(started.verifier) == 43  # RFC 7636, section 4.1
    assert not {started.state, started.nonce, started.verifier} & set(repr(started).split("'"))
    fresh = parse_qs(urlsplit((await corp.begin(fresh=True)).url).query)
    assert (fresh["prompt"], fresh["max_age"]) == (["login"], ["0"])


async def test_a_code_becomes_a_person(corp: Corp) -> None:
    corp.said = {"auth_time": int(corp.clock.now().timestamp()), "name": "Ann"}
    started = await corp.begin()
    found = await corp.end(started, fresh_since=corp.clock.now())
    assert (found.subject, found.email, found.email_verified, found.name) == (
        "s1",
        "ann@example.com",
        True,
        "Ann",
    )
    (_, _, private, headers, form), (_, _, keys_private, *_), (_, _, _, me, _) = corp.asked[1:]
    assert form == {
        "grant_type": "authorization_code",
        "code": "the code",
        "redirect_uri": BACK,
        "code_verifier": started.verifier,
    }
    assert b64decode(headers["authorization"].removeprefix("Basic ")) == b"doorward:s3cret%2F%2B%C3%A4"
    assert me["authorization"] == "Bearer access"
    # The issuer's own host may be at home; whatever else it names must be on the open internet.
    assert (private, keys_private) == (True, False)


async def test_each_way_to_say_who_we_are(corp: Corp) -> None:
    corp.metadata["token_endpoint_auth_methods_supported"] = ["private_key_jwt", "client_secret_post"]
    await corp.sign_in()
    (form,) = [form for method, _, _, _, form in corp.asked if method == "POST"]
    assert (form["client_id"], form["client_secret"]) == (CLIENT, SECRET)
    public = msgspec.structs.replace(PROVIDER, client_secret="")
    await corp.sign_in(provider=public)
    _, _, _, headers, form = [one for one in corp.asked if one[0] == "POST"][1]
    assert form["client_id"] == CLIENT
    assert "client_secret" not in form
    assert "authorization" not in headers
    corp.metadata["token_endpoint_auth_methods_supported"] = ["private_key_jwt"]
    corp.clock.advance(KEEP)
    with pytest.raises(Unavailable, match="takes no client secret"):
        await corp.sign_in()


async def test_a_provider_is_asked_for_its_description_and_keys_now_and_then(corp: Corp) -> None:
    for _ in range(3):
        await corp.sign_in()
    assert (corp.count("openid-configuration"), corp.count("jwks")) == (1, 1)
    corp.clock.advance(KEEP)
    await corp.sign_in()
    assert (corp.count("openid-configuration"), corp.count("jwks")) == (2, 2)


async def test_new_keys_are_looked_for_once(corp: Corp) -> None:
    await corp.sign_in()
    corp.keys = [jwk("ES256", 1)]
    corp.sign = lambda said: signed(said, number=1)
    with pytest.raises(RemoteProtocolError, match="key that it does not publish"):  # just looked
        await corp.sign_in()
    corp.clock.advance(KEYS_AGAIN)
    assert (await corp.sign_in()).subject == "s1"
    assert corp.count("jwks") == 2
    corp.sign = lambda said: signed(said, number=2)  # made up by anybody
    corp.clock.advance(KEYS_AGAIN)
    for _ in range(5):
        with pytest.raises(RemoteProtocolError, match="key that it does not publish"):
            await corp.sign_in()
    assert corp.count("jwks") == 3


async def test_what_it_signs_with_is_told_as_it_is_now_and_then(corp: Corp) -> None:
    assert [one.kid for one in await corp.upstream.keys(PROVIDER, False)] == ["ES256-0", "RS256-0"]
    corp.keys = [jwk("ES256", 1)]
    for anew in (False, True):  # just looked
        assert len(await corp.upstream.keys(PROVIDER, anew)) == 2
    corp.clock.advance(KEYS_AGAIN)
    assert len(await corp.upstream.keys(PROVIDER, False)) == 2
    assert [one.kid for one in await corp.upstream.keys(PROVIDER, True)] == ["ES256-1"]
    corp.keys = []
    corp.clock.advance(KEEP)
    assert await corp.upstream.keys(PROVIDER, False) == ()


async def test_without_userinfo_the_token_is_all(corp: Corp) -> None:
    del corp.metadata["userinfo_endpoint"]
    corp.said = {"email": "ann@example.com"}
    found = await corp.sign_in()
    assert (found.email, found.email_verified) == ("ann@example.com", False)


# -- what comes back with the browser


@pytest.mark.parametrize(
    ("query", "kind", "why"),
    [
        ({"state": "another"}, NotPermitted, "not the answer to what this browser asked"),
        ({"state": ""}, NotPermitted, "not the answer to what this browser asked"),
        ({"state": "ü", "error": "access_denied"}, NotPermitted, "not the answer"),
        ({"iss": "https://evil.example.com"}, RemoteProtocolError, "another issuer"),
        ({"iss": f"{ISSUER}/"}, RemoteProtocolError, "another issuer"),
        (
            {"iss": "https://evil.example.com", "error": "access_denied"},
            RemoteProtocolError,
            "another issuer",
        ),
        ({"code": ""}, RemoteProtocolError, "without a code"),
        ({"code": "another"}, RemoteProtocolError, "does not take the code"),
        ({"error": "access_denied"}, NotPermitted, "you said no there"),
        ({"error": "login_required"}, NotPermitted, "sign in there first"),
        ({"error": "server_error"}, Unavailable, "cannot answer now"),
        ({"error": "invalid_scope"}, RemoteProtocolError, "answered invalid_scope"),
        (
            {"error": "<script>", "error_description": "call 555"},
            RemoteProtocolError,
            "an error without a name",
        ),
    ],
    ids=str,
)
async def test_an_answer_that_is_none(
    corp: Corp, query: dict[str, str], kind: type[DoorwardError], why: str
) -> None:
    with pytest.raises(kind) as refused:
        await corp.end(await corp.begin(), query)
    assert why in refused.value.message
    assert refused.value.cure
    assert "555" not in refused.value.sentence()


async def test_an_answer_without_state_is_never_one(corp: Corp) -> None:
    with pytest.raises(NotPermitted):
        await corp.upstream.finish(
            PROVIDER,
            redirect_uri=BACK,
            query={"code": "the code", "state": ""},
            state="",
            nonce="n",
            verifier="v",
        )
    assert corp.asked == []


async def test_the_issuer_must_be_in_the_answer_where_that_was_announced(corp: Corp) -> None:
    started = await corp.begin()
    bare = {"code": "the code", "state": started.state}
    for announced in (True, False):
        corp.metadata["authorization_response_iss_parameter_supported"] = announced
        corp.clock.advance(KEEP)
        known: dict[str, Any] = {
            "redirect_uri": BACK,
            "state": started.state,
            "nonce": started.nonce,
            "verifier": started.verifier,
        }
        if announced:
            with pytest.raises(RemoteProtocolError, match="or with none"):
                await corp.upstream.finish(PROVIDER, query=bare, **known)
        else:
            assert (await corp.upstream.finish(PROVIDER, query=bare, **known)).subject == "s1"


# -- one that lies


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"iss": "https://evil.example.com"}, "expected one of"),
        ({"aud": "another"}, "(aud)"),
        ({"nonce": "another"}, "(nonce)"),
        ({"at_hash": "another"}, "(at_hash)"),
        ({"exp": 5, "iat": 1}, "ago"),
        ({"sub": "s2"}, "about another person"),
    ],
    ids=str,
)
async def test_a_lie_in_the_token(corp: Corp, said: dict[str, Any], why: str) -> None:
    corp.said = said
    with pytest.raises(RemoteProtocolError) as refused:
        await corp.sign_in()
    assert why in refused.value.message


async def test_a_fresh_proof_that_is_none(corp: Corp) -> None:
    with pytest.raises(NotPermitted, match="does not say when"):
        await corp.sign_in(fresh_since=corp.clock.now())
    corp.said = {"auth_time": int(corp.clock.now().timestamp()) - 3600}
    with pytest.raises(NotPermitted, match="did not ask you again"):
        await corp.sign_in(fresh_since=corp.clock.now() - timedelta(minutes=5))


BENT: list[tuple[dict[str, Any], str]] = [
    ({"issuer": "https://evil.example.com"}, "calls itself 'https://evil.example.com'"),
    ({"issuer": f"{ISSUER}/"}, "calls itself"),
    ({"authorization_endpoint": "http://id.example.com/auth"}, "expected an https address"),
    ({"authorization_endpoint": "javascript:alert(1)"}, "expected an https address"),
    ({"authorization_endpoint": "https://a:b@id.example.com/auth"}, "expected an https address"),
    ({"authorization_endpoint": "https://[x/"}, "expected an https address"),
    ({"token_endpoint": "http://127.0.0.1/token"}, "expected an https address"),
    ({"jwks_uri": "file:///etc/passwd"}, "expected an https address"),
    ({"userinfo_endpoint": "http://id.example.com/me"}, "expected an https address"),
    ({"token_endpoint": None}, "cannot be read"),
    ({"jwks_uri": ["https://id.example.com"]}, "cannot be read"),
]


@pytest.mark.parametrize(("bent", "why"), BENT, ids=str)
async def test_a_description_that_cannot_be_used(corp: Corp, bent: dict[str, Any], why: str) -> None:
    corp.metadata |= bent
    with pytest.raises(RemoteProtocolError) as refused:
        await corp.sign_in()
    assert why in refused.value.message
    assert refused.value.cure
    assert not any(url.startswith(("http:", "file:")) for _, url, *_ in corp.asked)


@pytest.mark.parametrize("end", ["openid-configuration", "/token", "/jwks", "/me"])
@pytest.mark.parametrize(
    ("instead", "kind"),
    [
        (Unavailable("id.example.com did not answer within 10 seconds"), Unavailable),
        (RemoteProtocolError("id.example.com redirects more than 0 times"), RemoteProtocolError),
        (
            NotPermitted("id.example.com is at an address that is not of the open internet"),
            RemoteProtocolError,
        ),
        (Answer(502, {}, b"<html>"), Unavailable),
        (Answer(200, {}, b"<html>"), RemoteProtocolError),
        (Answer(200, {}, b"[]"), RemoteProtocolError),
        (Answer(200, {}, b"\xff{"), RemoteProtocolError),
        (Answer(200, {}, b"[" * 100_000), RemoteProtocolError),
    ],
    ids=str,
)
async def test_one_that_is_down_slow_or_talks_nonsense(
    corp: Corp, end: str, instead: Answer | DoorwardError, kind: type[DoorwardError]
) -> None:
    corp.answers[end] = instead
    with pytest.raises(kind) as refused:
        await corp.sign_in()
    assert refused.value.message.startswith("corp ")
    assert refused.value.cure
    del corp.answers[end]
    assert (await corp.sign_in()).subject == "s1"  # nothing of it is kept


async def test_a_wrong_secret_is_the_administrator_s_to_mend(corp: Corp) -> None:
    corp.answers["/token"] = told({"error": "invalid_client", "error_description": "x"}, 401)
    with pytest.raises(Unavailable, match="client ID and secret") as refused:
        await corp.sign_in()
    assert "providers change corp" in refused.value.cure
    assert SECRET not in refused.value.sentence()


async def test_a_secret_that_was_kept_for_another_issuer_is_not_sent(corp: Corp) -> None:
    """Somebody who can write the database moves it to a provider of their own."""
    moved = msgspec.structs.replace(PROVIDER, client_secret=SEALER.seal(SECRET, "https://other.example.com"))
    with pytest.raises(Unavailable, match="kept under another key"):
        await corp.sign_in(provider=moved)
    assert corp.count("/token") == 0


async def test_an_answer_without_a_token(corp: Corp) -> None:
    corp.answers["/token"] = told({"access_token": "a"})
    with pytest.raises(RemoteProtocolError, match="gave no ID token"):
        await corp.sign_in()


# -- http, on this very machine


@pytest.mark.parametrize(
    ("issuer", "allowed", "taken"),
    [
        ("http://127.0.0.1:9000", True, True),
        ("http://localhost:9000", True, True),
        ("http://[::1]:9000", True, True),
        ("http://127.0.0.1:9000", False, False),
        ("http://192.168.1.5", True, False),
        ("http://localhost.example.com", True, False),
    ],
)
async def test_http_is_for_this_machine_and_only_where_allowed(
    corp: Corp, issuer: str, allowed: bool, taken: bool
) -> None:
    upstream = Upstream(
        corp.clock,
        counting_entropy(),
        SEALER,
        loopback_http=allowed,
        open_fetcher=lambda private: Net(corp, private),
    )
    corp.metadata |= {"issuer": issuer, "authorization_endpoint": f"{issuer}/auth", "userinfo_endpoint": ""}
    provider = msgspec.structs.replace(PROVIDER, issuer=issuer)
    if taken:
        assert (await upstream.start(provider, redirect_uri=BACK, fresh=False)).url.startswith(issuer)
        return
    with pytest.raises(RemoteProtocolError) as refused:
        await upstream.start(provider, redirect_uri=BACK, fresh=False)
    assert "login.loopback_http" in refused.value.cure
    assert corp.asked == []


async def test_the_real_fetcher_follows_nobody_elsewhere() -> None:
    async with open_fetcher(False) as fetcher:
        assert (fetcher._redirects, fetcher._seconds, fetcher._allow_private) == (0, 10.0, False)
    async with open_fetcher(True) as fetcher:
        assert fetcher._allow_private


# -- what an administrator is told


def _levels(found: list[Any]) -> dict[str, str]:
    return {one.subject: one.level for one in found}


async def test_a_good_provider_is_called_good(corp: Corp) -> None:
    found = await corp.upstream.examine(PROVIDER, redirect_uris=[BACK])
    assert _levels(found) == {"discovery": "ok", "keys": "ok", "client": "ok", "redirect": "ok"}
    assert BACK in found[-1].message


async def test_what_is_wrong_is_told_with_its_cure(corp: Corp) -> None:
    corp.metadata |= {
        "id_token_signing_alg_values_supported": ["HS256", "none"],
        "code_challenge_methods_supported": ["plain"],
        "claims_supported": ["sub"],
    }
    corp.keys = []
    corp.answers["/token"] = told({"error": "invalid_client"}, 401)
    provider = msgspec.structs.replace(PROVIDER, groups=("eng",), domains=("example.com",))
    found = await corp.upstream.examine(provider, redirect_uris=[BACK])
    assert _levels(found) == {
        "discovery": "ok",
        "signatures": "error",
        "pkce": "warning",
        "groups": "warning",
        "email": "warning",
        "keys": "error",
        "client": "error",
        "redirect": "ok",
    }
    assert all(one.cure for one in found if one.level != "ok")
    corp.answers["/jwks"] = Unavailable("gone")
    corp.answers["/token"] = told({"id_token": "x"})
    assert _levels(await corp.upstream.examine(PROVIDER, redirect_uris=[BACK]))["client"] == "error"
    corp.answers["openid-configuration"] = Answer(404, {}, b"")
    (only,) = await corp.upstream.examine(PROVIDER, redirect_uris=[BACK])
    assert (only.level, only.subject) == ("error", "discovery")
