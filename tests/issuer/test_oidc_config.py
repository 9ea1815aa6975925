"""The Config OP profile: its one module, ``oidcc-discovery-endpoint-verification``, check by check."""

import re
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from tests.support.browsing import DOOR
from tests.support.conformance import from_base64
from tests.support.office import Office

PATH = "/.well-known/openid-configuration"
SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")  # RFC 6749 section 3.3
LOCALE = re.compile(r"[a-z]{2,3}(-[A-Z][a-z]{3})?(-[A-Z]{2})?")  # RFC 5646, the canonical way to write it
GRANTS = re.compile(r"[a-z_]+|urn:ietf:params:oauth:grant-type:[a-z0-9_-]+|urn:openid:params:grant-type:ciba")
# RFC 8414 section 2 and OpenID Connect Discovery 1.0 section 3: what has to be there.
NEEDED = frozenset(
    (
        "issuer",
        "authorization_endpoint",
        "token_endpoint",
        "userinfo_endpoint",
        "jwks_uri",
        "response_types_supported",
        "subject_types_supported",
        "id_token_signing_alg_values_supported",
        "scopes_supported",
        "claims_supported",
    )
)


@pytest.fixture
async def said(office: Office) -> httpx2.Response:
    return await office.browser().client.get(PATH)


@pytest.fixture
async def document(said: httpx2.Response) -> dict[str, Any]:
    found: dict[str, Any] = said.json()
    return found


async def test_oidcc_discovery_endpoint_verification(
    office: Office, said: httpx2.Response, document: dict[str, Any]
) -> None:
    assert said.status_code == 200
    assert said.headers["content-type"] == "application/json"
    assert document["issuer"] == DOOR
    parts = urlsplit(document["issuer"])
    assert (parts.scheme, parts.path, parts.query, parts.fragment) == ("https", "", "", "")
    assert document.keys() >= NEEDED
    assert document["response_types_supported"] == ["code"]
    assert document["subject_types_supported"] == ["public"]
    assert "RS256" in document["id_token_signing_alg_values_supported"]
    assert "none" not in str(document["id_token_signing_alg_values_supported"])
    assert "openid" in document["scopes_supported"]
    assert "S256" in document["code_challenge_methods_supported"]
    assert "plain" not in document["code_challenge_methods_supported"]
    # What is named has to be there, at https, and under this name.
    client = office.browser().client
    for name, value in document.items():
        if name.endswith("_endpoint") or name == "jwks_uri":
            assert value.startswith(f"{DOOR}/")
            assert (await client.get(value.removeprefix(DOOR))).status_code not in {404, 500}, name


async def test_each_member_has_the_form_that_it_has_to_have(document: dict[str, Any]) -> None:
    """The schema of RFC 8414: what is a list is a list of texts that are each there once."""
    for name, value in document.items():
        if name.endswith("_supported") and not isinstance(value, bool):
            assert isinstance(value, list), name
            assert all(isinstance(one, str) for one in value), name
            assert len(value) == len(set(value)) > 0, name
        elif name.endswith(("_endpoint", "_uri", "_documentation")) or name == "issuer":
            assert isinstance(value, str), name
            assert urlsplit(value).scheme == "https", name
        elif not isinstance(value, list):
            assert isinstance(value, bool), name
    assert all(SCOPE.fullmatch(one) for one in document["scopes_supported"])
    assert all(GRANTS.fullmatch(one) for one in document["grant_types_supported"])
    assert all(LOCALE.fullmatch(one) for one in document.get("ui_locales_supported", ()))
    assert set(document["response_modes_supported"]) <= {"query", "form_post"}
    assert not {"implicit", "password"} & set(document["grant_types_supported"])


async def test_the_keys_are_usable_and_public(office: Office, document: dict[str, Any]) -> None:
    answer = await office.browser().client.get(document["jwks_uri"])
    assert answer.headers["content-type"] == "application/json"
    found = answer.json()["keys"]
    assert {one["alg"] for one in found} == set(document["id_token_signing_alg_values_supported"])
    assert len({one["kid"] for one in found}) == len(found)
    for one in found:
        assert one["kid"]
        assert one["use"] == "sig"
        assert not {"d", "p", "q", "dp", "dq", "qi", "k", "oth"} & one.keys()
        _usable(one)


def _usable(key: dict[str, Any]) -> None:
    """Raise for what no library would take."""
    match key["kty"]:
        case "RSA":
            n, e = (int.from_bytes(from_base64(key[name])) for name in ("n", "e"))
            assert rsa.RSAPublicNumbers(e, n).public_key().key_size >= 2048
        case "EC":
            assert key["crv"] == "P-256"
            x, y = (int.from_bytes(from_base64(key[name])) for name in ("x", "y"))
            ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
        case "OKP":
            assert key["crv"] == "Ed25519"
            ed25519.Ed25519PublicKey.from_public_bytes(from_base64(key["x"]))
        case other:
            pytest.fail(f"an unknown kind of key: {other}")


async def test_any_page_may_read_it_and_nobody_may_write(office: Office, said: httpx2.Response) -> None:
    assert said.headers["access-control-allow-origin"] == "*"
    assert "set-cookie" not in said.headers
    for method in ("POST", "PUT", "DELETE"):
        assert (await office.browser().client.request(method, PATH)).status_code == 405
