"""Every lie that an ID token can tell."""

import hashlib
import json
from base64 import urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from joserfc.jwk import ECKey, OctKey, RSAKey
from tests.support.idtokens import CLIENT, ISSUER, NONCE, NOW, claims, jwk, jwks, signed, signing_key

from doorward.errors import DoorwardError, NotPermitted, RemoteProtocolError
from doorward.login.idtoken import (
    ALGORITHMS,
    MAX_GROUPS,
    Expected,
    UnknownKeyError,
    check_id_token,
    claims_of,
    read_keys,
)

AT = datetime.fromtimestamp(NOW, UTC)
KEYS = read_keys("corp", jwks(*(jwk(name) for name in ALGORITHMS)))
EXPECTED: dict[str, Any] = {"provider": "corp", "issuer": ISSUER, "client_id": CLIENT, "nonce": NONCE}


def check(token: str, *, at: datetime = AT, keys: Any = KEYS, **expected: Any) -> dict[str, Any]:
    return check_id_token(token, keys, Expected(**(EXPECTED | expected)), at)


def at_hash(access_token: str, digest: Any = hashlib.sha256) -> str:
    whole = digest(access_token.encode()).digest()
    return urlsafe_b64encode(whole[: len(whole) // 2]).rstrip(b"=").decode()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_each_algorithm_is_taken(algorithm: str) -> None:
    digest = hashlib.sha512 if algorithm.startswith("Ed") else hashlib.sha256
    good = claims(at_hash=at_hash("access", digest))
    assert check(signed(good, algorithm), access_token="access") == good
    assert check(signed(good, algorithm, header={"kid": None})) == good  # then any key of the kind may be it


GOOD: list[dict[str, Any]] = [
    {"aud": [CLIENT]},
    {"aud": [CLIENT, "another"], "azp": CLIENT},
    {"azp": CLIENT},
    {"exp": NOW - 59},  # within the leeway
    {"iat": NOW + 59},
    {"iat": NOW - 0.5},
    {"iat": NOW - 600},
    {"nbf": NOW},
    {"auth_time": NOW - 10_000},
    {"at_hash": "of a token that did not come"},
]


@pytest.mark.parametrize("said", GOOD, ids=str)
def test_what_is_true_is_believed(said: dict[str, Any]) -> None:
    check(signed(claims(**said)))


LIES: list[tuple[dict[str, Any], str]] = [
    ({"iss": "https://evil.example.com"}, "expected one of 'https://id.example.com'"),
    ({"iss": f"{ISSUER}/"}, "expected one of"),
    ({"iss": None}, "nothing that is a name"),
    ({"iss": [ISSUER]}, "nothing that is a name"),
    ({"aud": "another"}, "another program (aud)"),
    ({"aud": None}, "another program (aud)"),
    ({"aud": []}, "another program (aud)"),
    ({"aud": {CLIENT: True}}, "another program (aud)"),
    ({"aud": f"{CLIENT}x"}, "another program (aud)"),
    ({"aud": [CLIENT, "another"]}, "another program (azp)"),
    ({"aud": [CLIENT, "another"], "azp": "another"}, "another program (azp)"),
    ({"azp": "another"}, "another program (azp)"),
    ({"exp": None}, "does not say when"),
    ({"iat": None}, "does not say when"),
    ({"exp": NOW - 60}, "over 60 seconds ago"),
    ({"exp": str(NOW + 300)}, "exp is no time"),
    ({"exp": True}, "exp is no time"),
    ({"exp": 10**30}, "exp is no time"),
    ({"iat": -5}, "iat is no time"),
    ({"iat": NOW + 61}, "61 seconds in the future"),
    ({"nbf": NOW + 3600, "exp": NOW + 7200}, "3600 seconds in the future"),
    ({"iat": NOW - 3600}, "3600 seconds old"),
    ({"nonce": None}, "another request (nonce)"),
    ({"nonce": ""}, "another request (nonce)"),
    ({"nonce": "another"}, "another request (nonce)"),
    ({"nonce": "ü"}, "another request (nonce)"),
    ({"nonce": [NONCE]}, "another request (nonce)"),
    ({"sub": None}, "whom it is about (sub)"),
    ({"sub": ""}, "whom it is about (sub)"),
    ({"sub": 7}, "whom it is about (sub)"),
    ({"sub": "s" * 256}, "whom it is about (sub)"),
    ({"sub": "s\n1"}, "whom it is about (sub)"),
    ({"at_hash": at_hash("another")}, "another access token (at_hash)"),
    ({"at_hash": None, "auth_time": NOW + 3600}, "only later"),
    ({"at_hash": 5}, "another access token (at_hash)"),
]


@pytest.mark.parametrize(("said", "why"), LIES, ids=str)
def test_a_lie_is_none_the_better_for_its_signature(said: dict[str, Any], why: str) -> None:
    with pytest.raises(RemoteProtocolError) as refused:
        check(signed(claims(**said)), access_token="access")
    assert why in refused.value.message
    assert refused.value.message.startswith("corp ")
    assert refused.value.cure


@pytest.mark.parametrize(("said", "why"), LIES, ids=str)
def test_without_its_signature_nothing_of_it_is_looked_at(said: dict[str, Any], why: str) -> None:
    with pytest.raises(RemoteProtocolError, match="signature is wrong"):
        check(signed(claims(**said), number=1, header={"kid": "ES256-0"}))


def test_clocks_are_the_cure_where_times_are_wrong() -> None:
    for said in ({"exp": NOW - 3600}, {"iat": NOW + 3600}, {"iat": NOW - 3600}):
        with pytest.raises(RemoteProtocolError) as refused:
            check(signed(claims(**said)))
        assert "clocks" in refused.value.cure


# -- signatures


def _hs256_with_the_public_key() -> str:
    """What a verifier that lets the token choose would take: the public key's text as a password."""
    key = signing_key("RS256", 0)
    assert isinstance(key, RSAKey)
    pem = key.as_pem(private=False)
    head = {"alg": "HS256", "kid": "RS256-0"}
    return _mac(head, pem)


def _mac(head: dict[str, Any], secret: bytes) -> str:
    import hmac  # noqa: PLC0415 - for this one forgery

    text = ".".join(
        urlsafe_b64encode(json.dumps(one).encode()).rstrip(b"=").decode() for one in (head, claims())
    )
    mac = hmac.new(secret, text.encode(), "sha256").digest()
    return f"{text}.{urlsafe_b64encode(mac).rstrip(b'=').decode()}"


FORGED: dict[str, tuple[str, str]] = {
    "none": (signed(claims(), "none"), "signed its ID token with 'none'"),
    "None": (signed(claims(), "none", header={"alg": "None"}), "signed its ID token with 'None'"),
    "a password": (
        signed(claims(), "HS256", key=OctKey.import_key(b"s" * 32)),
        "signed its ID token with 'HS256'",
    ),
    "a public key as password": (_hs256_with_the_public_key(), "signed its ID token with 'HS256'"),
    "no algorithm": (signed(claims(), header={"alg": None}), "nothing that is a name"),
    "an algorithm that is none": (signed(claims(), header={"alg": ["ES256"]}), "nothing that is a name"),
    "a stranger's key": (signed(claims(), number=1, header={"kid": "ES256-0"}), "signature is wrong"),
    "a key in the token": (
        signed(claims(), number=1, header={"kid": "ES256-0", "jwk": jwk("ES256", 1)}),
        "signature is wrong",
    ),
    "an extension": (signed(claims(), header={"crit": ["b64"], "b64": False}), "extensions"),
    "no signature": (signed(claims()).rpartition(".")[0] + ".", "signature is wrong"),
    "half a signature": (signed(claims())[:-10], "signature is wrong"),
    "two parts": (signed(claims()).rpartition(".")[0], "no signed token"),
    "five parts": (signed(claims()) + ".a.b", "no signed token"),
    "nothing": ("", "no signed token"),
    "padding": (signed(claims()) + "==", "cannot be decoded"),
    "no JSON": ("bm8.bm8.bm8", "header that is no JSON object"),
    "a list": ("W10.W10.W10", "header that is no JSON object"),
    "a list that is signed": (signed([]), "an ID token that is no JSON object"),
    "a giant": (signed(claims(more="x" * 200_000)), "no signed token"),
    "umlauts": ("ä.ö.ü", "cannot be decoded"),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forgery_is_refused(name: str) -> None:
    token, why = FORGED[name]
    with pytest.raises(RemoteProtocolError) as refused:
        check(token)
    assert why in refused.value.message
    assert not isinstance(refused.value, UnknownKeyError)
    assert token[:40] not in refused.value.sentence() or not token


def test_a_key_signs_only_as_it_says() -> None:
    """The same RSA key, published for PS256 alone; and a key for encryption."""
    token = signed(claims(), "RS256")
    for more in ({"alg": "PS256"}, {"use": "enc"}, {"kid": "another"}, {"kid": 7}):
        with pytest.raises(UnknownKeyError) as refused:
            check(token, keys=read_keys("corp", jwks(jwk("RS256", **more))))
        assert refused.value.cure


def _number(value: int) -> str:
    return urlsafe_b64encode(value.to_bytes((value.bit_length() + 7) // 8)).rstrip(b"=").decode()


def test_keys_that_are_of_no_use_are_left_out() -> None:
    numbers = rsa.generate_private_key(65537, 1024).public_key().public_numbers()
    short = {"kty": "RSA", "n": _number(numbers.n), "e": _number(numbers.e), "kid": "short"}
    odd: list[Any] = [
        {"kty": "oct", "k": "c2VjcmV0", "kid": "ES256-0"},
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"},
        {"kty": "EC", "crv": "P-1"},
        {"kty": "RSA", "n": 5, "e": "AQAB"},
        {"kty": ["RSA"]},
        {"kty": "OKP", "crv": "X25519", "x": "AA"},
        {},
        short,
    ]
    kept = read_keys("corp", jwks(*odd, jwk("ES256")))
    assert [one.kid for one in kept if one.kid] == ["ES256-0"]
    assert check(signed(claims()), keys=kept)
    other = ECKey.generate_key("P-384").as_dict(private=False)
    with pytest.raises(UnknownKeyError):
        check(signed(claims()), keys=read_keys("corp", jwks(other | {"kid": "ES256-0"})))
    with pytest.raises(RemoteProtocolError):
        read_keys("corp", json.dumps({"keys": "none"}).encode())
    with pytest.raises(RemoteProtocolError):
        read_keys("corp", b"<html>")


def test_a_private_key_that_is_published_is_taken_for_its_public_half() -> None:
    private = signing_key("ES256", 0).as_dict(private=True)
    (kept,) = read_keys("corp", jwks(private | {"kid": "ES256-0"}))
    assert not kept.key.is_private
    assert check(signed(claims()), keys=(kept,))


# -- fresh proofs


@pytest.mark.parametrize(
    ("auth_time", "why"),
    [(None, "does not say when you last"), (NOW - 200, "did not ask you again"), (NOW - 130, ""), (NOW, "")],
)
def test_a_fresh_proof_is_as_fresh_as_the_provider_says(auth_time: int | None, why: str) -> None:
    token = signed(claims(auth_time=auth_time))
    since = AT - timedelta(seconds=100)
    if not why:
        check(token, fresh_since=since)
        return
    with pytest.raises(NotPermitted) as refused:
        check(token, fresh_since=since)
    assert why in refused.value.message
    assert "passkey" in refused.value.cure


# -- what is of use


def test_claims_are_those_of_the_token_and_then_of_userinfo() -> None:
    said = claims(name="Ann", auth_time=NOW - 5)
    userinfo = {
        "sub": "s1",
        "name": "Somebody else",
        "email": "Ann@Example.com",
        "email_verified": True,
        "groups": ["ops", "eng", "ops", "", 5, " x", "a\nb", "g" * 201],
        "preferred_username": "ann",
        "iss": "https://evil.example.com",
        "auth_time": NOW,
    }
    found = claims_of("corp", said, userinfo, "groups")
    assert (found.issuer, found.subject, found.name) == (ISSUER, "s1", "Ann")
    assert (found.email, found.email_verified) == ("ann@example.com", True)
    assert found.groups == ("eng", "ops")
    assert found.preferred_username == "ann"
    assert found.auth_time == AT - timedelta(seconds=5)


def test_userinfo_about_another_is_refused() -> None:
    for other in ("s2", None, ["s1"]):
        with pytest.raises(RemoteProtocolError, match="another person"):
            claims_of("corp", claims(), {"sub": other, "email": "a@b.c"}, "groups")


@pytest.mark.parametrize(
    ("said", "verified"),
    [
        ({"email_verified": True}, True),
        ({"email_verified": "true"}, True),
        ({"email_verified": "false"}, False),
        ({"email_verified": False, "xms_edov": True}, False),
        ({"email_verified": None}, False),
        ({"email_verified": ["true"]}, False),
        ({"xms_edov": True}, True),
        ({"xms_edov": "1"}, True),
        ({"xms_edov": "0"}, False),
        ({}, False),
    ],
    ids=str,
)
def test_only_the_provider_s_own_word_makes_an_address_verified(said: dict[str, Any], verified: bool) -> None:
    found = claims_of("corp", {**claims(), "email": "ann@example.com", **said}, None, "groups")
    assert found.email_verified is verified


@pytest.mark.parametrize(
    ("email", "hd", "verified"),
    [
        ("ann@gmail.com", None, True),
        ("ann@example.com", "example.com", True),
        ("ann@example.com", None, False),  # had a mailbox there once
        ("ann@example.com", "example.org", False),
    ],
)
def test_google_speaks_for_its_own_addresses_and_for_organizations(
    email: str, hd: str | None, verified: bool
) -> None:
    said = claims(iss="https://accounts.google.com", email=email, email_verified=True, hd=hd)
    userinfo = {"sub": "s1", "hd": email.partition("@")[2]}  # what is not signed proves no organization
    assert claims_of("google", said, userinfo, "groups").email_verified is verified


def test_the_word_for_one_address_is_none_for_another() -> None:
    said = claims(email="boss@example.com")  # without a word
    userinfo = {"sub": "s1", "email": "ann@example.com", "email_verified": True}
    found = claims_of("corp", said, userinfo, "groups")
    assert (found.email, found.email_verified) == ("boss@example.com", False)


@pytest.mark.parametrize(
    "email",
    [
        "",
        "ann",
        "a@b@c",
        "ann@exa mple.com",
        "a\nb@c.d",
        'a"b@c.d',
        5,
        "a@" + "d" * 300,
        "\u212aay@example.com",
    ],
)
def test_what_is_no_address_is_none(email: Any) -> None:
    found = claims_of("corp", claims(email=email, email_verified=True), None, "groups")
    assert (found.email, found.email_verified) == ("", False)


def test_groups_are_whole_or_refused() -> None:
    assert claims_of("corp", claims(roles="admins"), None, "roles").groups == ("admins",)
    assert claims_of("corp", claims(groups={"a": 1}), None, "groups").groups == ()
    with pytest.raises(RemoteProtocolError, match="more groups to tell"):
        claims_of("corp", claims(_claim_names={"groups": "src1"}), None, "groups")
    many = [f"g{number}" for number in range(MAX_GROUPS + 1)]
    with pytest.raises(RemoteProtocolError, match="1001 groups"):
        claims_of("corp", claims(groups=many), None, "groups")


def test_names_are_one_short_line() -> None:
    found = claims_of("corp", claims(name="Ann\x1b[31m\n" + "x" * 500), None, "groups")
    assert found.name.startswith("Ann[31m")
    assert len(found.name) <= 200


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)  # the machine may be busy
@given(
    st.dictionaries(
        st.sampled_from(
            [
                "iss",
                "aud",
                "azp",
                "exp",
                "iat",
                "nbf",
                "nonce",
                "sub",
                "at_hash",
                "auth_time",
                "email",
                "groups",
                "name",
                "email_verified",
                "_claim_names",
            ]
        ),
        _JSON,
    )
)
def test_whatever_a_provider_signs_is_read_or_refused(said: dict[str, Any]) -> None:
    try:
        found = check(signed({**claims(), **said}), access_token="access")
    except DoorwardError:
        return
    assert (found["iss"], found["nonce"]) == (ISSUER, NONCE)
    try:
        claims_of("corp", found, {"sub": found["sub"], **said}, "groups")
    except DoorwardError:
        return
