"""What an app says of itself."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.idtokens import jwk

from doorward.errors import DoorwardError
from doorward.issuer.described import Described, MetadataError, read

GOOD = {"client_name": "A tool", "redirect_uris": ["https://tool.example.com/back"]}


def described(usual: Any = "none", **fields: Any) -> Described:
    return read(json.dumps(GOOD | fields).encode(), usual=usual)


def test_a_few_words_are_enough() -> None:
    found = described()
    assert (found.title, found.redirect_uris) == ("A tool", ("https://tool.example.com/back",))
    assert (found.method, found.algorithm, found.refreshes, found.native) == ("none", "RS256", False, False)
    assert described(client_name="").title == "tool.example.com"


def test_all_of_them() -> None:
    found = described(
        client_uri="https://tool.example.com",
        policy_uri="https://tool.example.com/policy",
        tos_uri="https://tool.example.com/terms",
        logo_uri="https://tool.example.com/logo.png",
        grant_types=["authorization_code", "refresh_token", "urn:example:other"],
        response_types=["code"],
        token_endpoint_auth_method="private_key_jwt",
        jwks={"keys": [jwk("ES256")]},
        software_id="tool",
        software_version="1.2",
        id_token_signed_response_alg="ES256",
        something_else={"a": 1},
        contacts=None,
    )
    assert (found.site, found.policy, found.terms) == (
        "https://tool.example.com",
        "https://tool.example.com/policy",
        "https://tool.example.com/terms",
    )
    assert found.refreshes
    assert found.method == "private_key_jwt"
    assert [one["kid"] for one in found.keys] == [jwk("ES256")["kid"]]
    assert found.software == "tool 1.2"
    assert found.algorithm == "ES256"


def test_of_redirect_addresses_those_count_that_are_possible() -> None:
    """One program names three for all servers at once, and must not be turned away for the one that is not possible here."""
    uris = [
        "cursor://anysphere.cursor-mcp/oauth/callback",
        "https://www.cursor.com/agents/mcp/oauth/callback",
        "http://localhost:8787/callback",
        "http://localhost:8787/callback",
    ]
    assert described(redirect_uris=uris).redirect_uris == tuple(uris[1:3])
    mine = "com.example.tool:/back"
    assert described(redirect_uris=[mine]).redirect_uris == (mine,)
    assert described(redirect_uris=[mine]).native
    for fields in ({"application_type": "web"}, {"token_endpoint_auth_method": "client_secret_basic"}):
        with pytest.raises(MetadataError) as refused:
            described(redirect_uris=[mine], **fields)
        assert refused.value.code == "invalid_redirect_uri"


def test_where_people_go_who_sign_out_and_where_it_is_told() -> None:
    host = "https://tool.example.com"
    uris = [f"{host}/out", "https://evil.example/out", f"{host}/out", f"{host}:8443/out"]
    found = described(post_logout_redirect_uris=uris, backchannel_logout_uri=f"{host}:8443/told?a=b")
    assert (found.signed_out_uris, found.logout_url) == ((f"{host}/out",), f"{host}:8443/told?a=b")
    assert (described().signed_out_uris, described().logout_url) == ((), "")
    for fields in (
        {"backchannel_logout_uri": "https://evil.example/told"},
        {"post_logout_redirect_uris": uris * 6},
    ):
        with pytest.raises(MetadataError) as refused:
            described(**fields)
        assert refused.value.code == "invalid_client_metadata"


@pytest.mark.parametrize(
    "uri",
    [
        "https://tool.example.com/back#part",
        "https://ann@tool.example.com/back",
        "https://tool.example.com/*\\",
        "http://tool.example.com/back",
        "javascript:alert(1)",
        "data:text/html,x",
        "https://",
        "",
        "back",
        "https://tool.example.com/" + "a" * 1000,
    ],
)
def test_an_address_that_is_none(uri: str) -> None:
    with pytest.raises(MetadataError) as refused:
        described(redirect_uris=[uri])
    assert refused.value.code == "invalid_redirect_uri"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"redirect_uris": []}, "invalid_redirect_uri"),
        ({"redirect_uris": None}, "invalid_redirect_uri"),
        ({"redirect_uris": [f"https://a.example/{n}" for n in range(21)]}, "invalid_redirect_uri"),
        ({"redirect_uris": "https://a.example/"}, "invalid_client_metadata"),
        ({"redirect_uris": [7]}, "invalid_client_metadata"),
        ({"client_name": 7}, "invalid_client_metadata"),
        ({"grant_types": ["implicit"]}, "invalid_client_metadata"),
        ({"grant_types": ["client_credentials"]}, "invalid_client_metadata"),
        ({"response_types": ["token"]}, "invalid_client_metadata"),
        ({"token_endpoint_auth_method": "tls_client_auth"}, "invalid_client_metadata"),
        ({"token_endpoint_auth_method": "private_key_jwt"}, "invalid_client_metadata"),
        (
            {"token_endpoint_auth_method": "private_key_jwt", "jwks": {"keys": []}},
            "invalid_client_metadata",
        ),
        (
            {"token_endpoint_auth_method": "private_key_jwt", "jwks": {"keys": [{"kty": "oct", "k": "AA"}]}},
            "invalid_client_metadata",
        ),
        (
            {"token_endpoint_auth_method": "private_key_jwt", "jwks_uri": "http://a.example/jwks"},
            "invalid_client_metadata",
        ),
        ({"jwks": {"keys": []}, "jwks_uri": "https://a.example/jwks"}, "invalid_client_metadata"),
        ({"subject_type": "pairwise"}, "invalid_client_metadata"),
        ({"sector_identifier_uri": "https://a.example/x"}, "invalid_client_metadata"),
        ({"id_token_signed_response_alg": "none"}, "invalid_client_metadata"),
        ({"id_token_signed_response_alg": "HS256"}, "invalid_client_metadata"),
        ({"userinfo_signed_response_alg": "RS256"}, "invalid_client_metadata"),
        ({"application_type": "desktop"}, "invalid_client_metadata"),
        ({"software_statement": "eyJ"}, "unapproved_software_statement"),
    ],
)
def test_what_cannot_be(fields: dict[str, Any], code: str) -> None:
    with pytest.raises(MetadataError) as refused:
        described(**fields)
    assert refused.value.code == code


def test_what_people_read_fits_a_page_and_turns_nothing_around() -> None:
    assert described(client_name="  A\n tool\u202e looT \x00").title == "A tool looT"
    assert len(described(client_name="x" * 500).title) == 60
    assert described(client_uri="javascript:alert(1)", policy_uri="http://a.example", tos_uri="x").site == ""
    assert described(policy_uri="http://a.example").policy == ""


@pytest.mark.parametrize("body", [b"", b"[]", b"7", b'"x"', b"\xff", b"{" * 10_000, b'{"a": NaN}'])
def test_what_is_no_object(body: bytes) -> None:
    with pytest.raises(MetadataError) as refused:
        read(body, usual="none")
    assert refused.value.code == "invalid_client_metadata"


_TEXT = st.text(max_size=10)
_VALUE = st.none() | st.booleans() | st.integers() | _TEXT | st.lists(_TEXT, max_size=2)
_NAMES = ("redirect_uris", "client_name", "jwks", "jwks_uri", "grant_types", "token_endpoint_auth_method")


@given(
    st.fixed_dictionaries(
        {}, optional=dict.fromkeys(_NAMES, _VALUE | st.fixed_dictionaries({"keys": _VALUE}))
    )
)
def test_whatever_it_says(fields: dict[str, Any]) -> None:
    try:
        found = described(**fields)
    except DoorwardError as error:
        assert isinstance(error, MetadataError)  # noqa: PT017 - it may as well be good
    else:
        assert found.redirect_uris
