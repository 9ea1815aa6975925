import base64
import json

import pytest
from tests.support.office import Office

from doorward.issuer.tokens import ACCESS_TYPE, ID_TYPE, LARGEST, BadToken, access_of, half_hash, read, sign


def part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
async def test_oidcc_idtoken_signature(office: Office, algorithm: str) -> None:
    await office.person("ann")
    party = await office.app(algorithm=algorithm)
    claims = await party.sign_in()  # checked by what checks the tokens of other providers, at_hash too
    header = json.loads(base64.urlsafe_b64decode(party.tokens["id_token"].split(".")[0] + "==="))
    assert header["alg"] == algorithm
    assert claims["aud"] == party.app.client_id


async def test_an_access_token_has_the_form_that_servers_expect(office: Office) -> None:
    """RFC 9068, section 2."""
    await office.person("ann")
    party = await office.app()
    claims = await party.sign_in()
    ring = await office.issuer._desk.keys.ring()
    said = read(ring, party.tokens["access_token"], ACCESS_TYPE)
    assert said.keys() >= {
        "iss",
        "exp",
        "aud",
        "sub",
        "client_id",
        "iat",
        "jti",
        "scope",
        "auth_time",
        "acr",
        "amr",
    }
    assert (said["sub"], said["aud"]) == (claims["sub"], party.app.client_id)


async def test_one_kind_of_token_is_never_the_other(office: Office) -> None:
    await office.person("ann")
    party = await office.app()
    await party.sign_in()
    assert (await party.userinfo(party.tokens["id_token"])).status_code == 401
    ring = await office.issuer._desk.keys.ring()
    with pytest.raises(BadToken):
        read(ring, party.tokens["access_token"], ID_TYPE)


async def test_no_forged_token_is_read(office: Office) -> None:
    ring = await office.issuer._desk.keys.ring()
    rsa = ring.signing["RS256"]
    good = sign(ring, "RS256", ID_TYPE, {"sub": "ann"})
    header, claims, signature = good.split(".")
    forged = [
        f"{part({'alg': 'none', 'kid': rsa.kid, 'typ': ID_TYPE})}.{claims}.",
        f"{part({'alg': 'HS256', 'kid': rsa.kid, 'typ': ID_TYPE})}.{claims}.{signature}",
        f"{part({'alg': 'ES256', 'kid': rsa.kid, 'typ': ID_TYPE})}.{claims}.{signature}",
        f"{part({'alg': 'RS256', 'kid': 'other', 'typ': ID_TYPE})}.{claims}.{signature}",
        f"{part({'alg': 'RS256', 'kid': [], 'typ': ID_TYPE})}.{claims}.{signature}",
        f"{part({'alg': 'RS256', 'kid': rsa.kid, 'typ': ID_TYPE, 'crit': ['x']})}.{claims}.{signature}",
        f"{header}.{part({'sub': 'bob'})}.{signature}",
        f"{header}.{claims}.{signature[:-8]}AAAAAAAA",
        f"{header}.{claims}",
        f"{header}.{claims}.a",
        "....",
        "é.é.é",
        "a" * (LARGEST + 1),
        "",
    ]
    assert read(ring, good, ID_TYPE) == {"sub": "ann"}
    for token in forged:
        with pytest.raises(BadToken):
            read(ring, token, ID_TYPE)


async def test_a_token_ends_and_belongs_to_its_door(office: Office) -> None:
    await office.person("ann")
    party = await office.app()
    await party.sign_in()
    desk, token = office.issuer._desk, party.tokens["access_token"]
    claims = read(await desk.keys.ring(), token, ACCESS_TYPE)
    assert access_of(claims, desk.issuer, desk.now()).grant_id == 1
    with pytest.raises(BadToken, match="another door"):
        access_of(claims, "https://other.example", desk.now())
    office.world.clock.advance(301)
    with pytest.raises(BadToken, match="over"):
        access_of(claims, desk.issuer, desk.now())


def test_the_hash_of_ed25519_is_the_long_one() -> None:
    assert len(half_hash("EdDSA", "x")) == 43
    assert len(half_hash("RS256", "x")) == 22
