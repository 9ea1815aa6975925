from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.support import idtokens, proving

from doorward.login.proofs import LARGEST, PROOF_ALGORITHMS, WINDOW, ProofError, plain_address, read_proof

NOW = datetime(2027, 1, 1, tzinfo=UTC)
AT = NOW.timestamp()
HERE = "https://api.example.com/mcp"


def read(text: str, token: str = "", **how: Any) -> Any:
    given: dict[str, Any] = {"method": "POST", "address": HERE, "now": NOW, "token": token} | how
    return read_proof(text, **given)


@pytest.mark.parametrize("algorithm", PROOF_ALGORITHMS)
def test_a_right_proof_names_its_key(algorithm: str) -> None:
    said = read(
        proving.proof("POST", HERE, AT, algorithm=algorithm, token="t", jti="a", nonce="n"), token="t"
    )
    assert said == (proving.thumbprint(algorithm), "a", "n", AT)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"htm": "GET"}, "htm"),
        ({"htm": "post"}, "htm"),
        ({"htm": None}, "htm"),
        ({"htu": "https://api.example.com/"}, "htu"),
        ({"htu": "https://other.example/mcp"}, "htu"),
        ({"htu": "http://api.example.com/mcp"}, "htu"),
        ({"htu": "https://api.example.com:444/mcp"}, "htu"),
        ({"htu": "https://[x/mcp"}, "htu"),
        ({"htu": None}, "htu"),
        ({"iat": AT - WINDOW - 1}, "iat"),
        ({"iat": AT + WINDOW + 1}, "iat"),
        ({"iat": None}, "iat"),
        ({"iat": True}, "iat"),
        ({"iat": 10**400}, "iat"),
        ({"jti": None}, "jti"),
        ({"jti": ""}, "jti"),
        ({"jti": "x" * 300}, "jti"),
        ({"nonce": 1}, "nonce"),
        ({"nonce": "x" * 300}, "nonce"),
        ({"ath": "x"}, "ath"),
        ({"ath": None}, "ath"),
        ({"header": {"typ": "JWT"}}, "typ"),
        ({"header": {"typ": None}}, "typ"),
        ({"header": {"alg": "HS256"}}, "alg"),
        ({"header": {"alg": "none"}}, "alg"),
        ({"header": {"alg": None}}, "alg"),
        ({"header": {"crit": ["x"]}}, "alg"),
        ({"header": {"alg": "RS256"}}, "signature"),
        ({"header": {"jwk": None}}, "jwk"),
        ({"header": {"jwk": []}}, "jwk"),
        ({"header": {"jwk": idtokens.signing_key("ES256", 0).as_dict(private=True)}}, "jwk"),
        ({"header": {"jwk": {"kty": "oct", "k": "c2VjcmV0"}}}, "jwk"),
        ({"header": {"jwk": {"kty": "EC"}}}, "signature"),
        (
            {"header": {"alg": "RS256", "jwk": {"kty": "RSA", "n": "v" * 171, "e": "AQAB"}}},
            "key",
        ),  # too short
        ({"header": {"jwk": idtokens.jwk("ES256", 7)}}, "signature"),
    ],
)
def test_each_lie_is_found(changes: dict[str, Any], part: str) -> None:
    with pytest.raises(ProofError, match=part) as caught:
        read(proving.proof("POST", HERE, AT, token="t", **changes), token="t")
    assert caught.value.code == "invalid_dpop_proof"


def test_what_was_signed_by_another_key_or_changed_later() -> None:
    head, body, signature = proving.proof("POST", HERE, AT).split(".")
    other = proving.proof("POST", HERE, AT, number=1).split(".")
    for text in (f"{head}.{other[1]}.{signature}", f"{head}.{body}.{other[2]}", f"{head}.{body}."):
        with pytest.raises(ProofError, match="signature"):
            read(text)


@pytest.mark.parametrize(
    "text", ["", "a.b", "a.b.c", "é.é.é", "e30.e30.e30=", "W10.e30.", "x" * (LARGEST + 1)]
)
def test_what_is_no_proof(text: str) -> None:
    with pytest.raises(ProofError):
        read(text)


@pytest.mark.parametrize(
    "said",
    ["HTTPS://API.Example.com:443/mcp", "https://api.example.com/mcp?x=1#y", "https://api.example.com/mcp#"],
)
def test_one_address_may_be_written_in_ways(said: str) -> None:
    assert read(proving.proof("POST", said, AT)).nonce == ""


def test_paths_are_told_apart() -> None:
    assert plain_address("https://a.example") == plain_address("https://a.example/")
    assert plain_address("https://a.example/%c3%a4") == plain_address("https://a.example/%C3%A4")
    assert plain_address("https://a.example/a") != plain_address("https://a.example/A")
    assert plain_address("https://a.example/a") != plain_address("https://a.example/a/")


def test_time_is_given_both_ways() -> None:
    for away in (-WINDOW, WINDOW):
        assert read(proving.proof("POST", HERE, AT + away), now=NOW).issued == AT + away
    with pytest.raises(ProofError):
        read(proving.proof("POST", HERE, AT), now=NOW + timedelta(seconds=WINDOW + 1))
