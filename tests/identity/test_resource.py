import json

import pytest

from doorward.errors import BadInput
from doorward.identity.resource import Resource, challenge

DOOR = "https://door.example.com"


@pytest.mark.parametrize(
    ("address", "where", "paths"),
    [
        ("https://h.example/mcp", "https://h.example/.well-known/oauth-protected-resource/mcp", {"/mcp", ""}),
        ("https://h.example", "https://h.example/.well-known/oauth-protected-resource", {""}),
        ("https://h.example/", "https://h.example/.well-known/oauth-protected-resource", {""}),
        (
            "https://H.example:8443/a/b",
            "https://h.example:8443/.well-known/oauth-protected-resource/a/b",
            {"/a/b", ""},
        ),
    ],
)
def test_where_its_metadata_is(address: str, where: str, paths: set[str]) -> None:
    made = Resource(address, issuer=DOOR)
    assert made.metadata_url == where
    assert made.metadata_paths == {f"/.well-known/oauth-protected-resource{path}" for path in paths}
    assert made.metadata["resource"] == address  # as it is registered, sign by sign


def test_what_it_says() -> None:
    made = Resource(
        "https://h.example/mcp",
        issuer=DOOR,
        scopes=["files:read", "files:write"],
        name="Files",
        documentation="https://h.example/docs",
        bound_only=True,
    )
    assert json.loads(made.body) == {
        "resource": "https://h.example/mcp",
        "authorization_servers": [DOOR],
        "scopes_supported": ["files:read", "files:write"],
        "bearer_methods_supported": ["header"],
        "resource_name": "Files",
        "resource_documentation": "https://h.example/docs",
        "dpop_signing_alg_values_supported": ["ES256", "EdDSA", "Ed25519", "RS256", "PS256"],
        "dpop_bound_access_tokens_required": True,
    }


@pytest.mark.parametrize(
    "address",
    [
        "http://h.example",
        "https://h.example/#a",
        "https://h.example/#",
        "https://h.example?x=1",
        "https://u@h.example",
        "mcp",
    ],
)
def test_what_is_no_resource(address: str) -> None:
    with pytest.raises(BadInput):
        Resource(address, issuer=DOOR)


def test_offline_access_is_not_a_server_s_to_ask_for() -> None:
    with pytest.raises(BadInput):
        Resource("https://h.example", issuer=DOOR, scopes=["offline_access"])


def test_a_challenge_cannot_be_broken_out_of() -> None:
    said = challenge("Bearer", error="a", error_description='no "x", \r\nSet-Cookie: ä\\', scope="")
    assert said == 'Bearer error="a", error_description="no ?x?, ??Set-Cookie: ??"'
    assert challenge("Bearer") == "Bearer"
