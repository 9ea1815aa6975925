"""doorward as a relying party of outside providers: the Basic RP and Config RP profiles, module by module.

Each test is named as its module; what a provider does there, the one in memory does here. The modules about refresh tokens have no place:
doorward keeps none of a provider's. Those about back-channel logout have none either: it does not offer providers an address for it.
"""

from base64 import b64decode
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from tests.support.corp import Corp, told
from tests.support.idtokens import CLIENT, ISSUER, jwk, signed

from doorward.errors import RemoteProtocolError
from doorward.login.upstream import KEEP, KEYS_AGAIN


@pytest.fixture
def corp() -> Corp:
    return Corp()


async def refused(corp: Corp, match: str) -> None:
    """Nobody is signed in, and the reason is said."""
    with pytest.raises(RemoteProtocolError, match=match):
        await corp.sign_in()


# Basic RP --------------------------------------------------------------------------------------------------------


async def test_oidcc_client_test(corp: Corp) -> None:
    started = await corp.begin()
    asked = {name: value for name, (value,) in parse_qs(urlsplit(started.url).query).items()}
    assert (asked["response_type"], asked["client_id"]) == ("code", CLIENT)
    assert "openid" in asked["scope"].split()
    assert asked["state"]
    assert asked["nonce"]
    assert (await corp.end(started)).subject == "s1"


async def test_oidcc_client_test_invalid_iss(corp: Corp) -> None:
    corp.said = {"iss": "https://other.example.com"}
    await refused(corp, "expected one of")


async def test_oidcc_client_test_missing_sub(corp: Corp) -> None:
    corp.sign = lambda said: signed({name: value for name, value in said.items() if name != "sub"})
    await refused(corp, "sub")


@pytest.mark.parametrize("audience", ["other", ["other"], None])
async def test_oidcc_client_test_invalid_aud(corp: Corp, audience: Any) -> None:
    corp.said = {"aud": audience}
    await refused(corp, "aud")


async def test_oidcc_client_test_missing_iat(corp: Corp) -> None:
    corp.sign = lambda said: signed({name: value for name, value in said.items() if name != "iat"})
    await refused(corp, "iat")


async def test_oidcc_client_test_kid_absent_single_jwks(corp: Corp) -> None:
    corp.keys = [jwk("RS256")]
    corp.sign = lambda said: signed(said, "RS256", header={"kid": None})
    assert (await corp.sign_in()).subject == "s1"


async def test_oidcc_client_test_kid_absent_multiple_jwks(corp: Corp) -> None:
    """One may refuse here, or try all keys that fit; they are tried."""
    corp.keys = [jwk("RS256", 1), jwk("ES256"), jwk("RS256")]
    corp.sign = lambda said: signed(said, "RS256", header={"kid": None})
    assert (await corp.sign_in()).subject == "s1"
    corp.sign = lambda said: signed(said, "RS256", number=2, header={"kid": None})
    await refused(corp, "signature is wrong")


async def test_oidcc_client_test_idtoken_sig_rs256(corp: Corp) -> None:
    corp.sign = lambda said: signed(said, "RS256")
    assert (await corp.sign_in()).subject == "s1"


async def test_oidcc_client_test_idtoken_sig_none(corp: Corp) -> None:
    corp.sign = lambda said: signed(said, "none")
    await refused(corp, "signed its ID token with 'none'")


async def test_oidcc_client_test_invalid_sig_rs256(corp: Corp) -> None:
    corp.sign = lambda said: signed(said, "RS256", number=1, header={"kid": "RS256-0"})
    await refused(corp, "signature is wrong")


async def test_oidcc_client_test_userinfo_invalid_sub(corp: Corp) -> None:
    corp.userinfo["sub"] = "somebody else"
    await refused(corp, "another person")


async def test_oidcc_client_test_nonce_invalid(corp: Corp) -> None:
    for nonce in ("another", "", None, 7):
        corp.said = {"nonce": nonce}
        await refused(corp, "nonce")


async def test_oidcc_client_test_scope_userinfo_claims(corp: Corp) -> None:
    corp.userinfo = {"sub": "s1", "name": "Ann", "email": "ann@example.com", "email_verified": True}
    found = await corp.sign_in()
    assert (found.name, found.email, found.email_verified) == ("Ann", "ann@example.com", True)


async def test_oidcc_client_test_client_secret_basic(corp: Corp) -> None:
    await corp.sign_in()
    ((headers, form),) = [(headers, form) for method, _, _, headers, form in corp.asked if method == "POST"]
    scheme, _, shown = headers["authorization"].partition(" ")
    assert (scheme, b64decode(shown).partition(b":")[0]) == ("Basic", CLIENT.encode())
    assert not {"client_id", "client_secret"} & form.keys()


# Config RP -------------------------------------------------------------------------------------------------------


async def test_oidcc_client_test_discovery_openid_config(corp: Corp) -> None:
    await corp.sign_in()
    assert corp.asked[0][:2] == ("GET", f"{ISSUER}/.well-known/openid-configuration")


async def test_oidcc_client_test_discovery_jwks_uri_keys(corp: Corp) -> None:
    await corp.sign_in()
    assert corp.count("keys.example.net/jwks") == 1


async def test_oidcc_client_test_discovery_issuer_mismatch(corp: Corp) -> None:
    for issuer in (f"{ISSUER}/", "https://other.example.com", ISSUER.upper()):
        corp.metadata["issuer"] = issuer
        with pytest.raises(RemoteProtocolError, match="calls itself"):
            await corp.begin()
    corp.answers["/openid-configuration"] = told({})
    with pytest.raises(RemoteProtocolError):
        await corp.begin()


async def test_oidcc_client_test_signing_key_rotation(corp: Corp) -> None:
    await corp.sign_in()
    corp.keys = [jwk("ES256", 1)]
    corp.sign = lambda said: signed(said, number=1)
    corp.clock.advance(KEEP)
    assert (await corp.sign_in()).subject == "s1"


async def test_oidcc_client_test_signing_key_rotation_just_before_signing(corp: Corp) -> None:
    await corp.sign_in()
    corp.clock.advance(KEYS_AGAIN)
    started = await corp.begin()
    corp.keys = [jwk("ES256", 1)]
    corp.sign = lambda said: signed(said, number=1)
    assert (await corp.end(started)).subject == "s1"
    assert corp.count("/jwks") == 2
