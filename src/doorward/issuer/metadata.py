"""What programs may read about the issuer: OpenID Connect Discovery 1.0 section 3, RFC 8414. Only what there is."""

from typing import Any

from doorward.issuer.claims import CLAIMS, SCOPES
from doorward.issuer.decision import Level
from doorward.issuer.grants.id_jag import PROFILE
from doorward.issuer.keys import ALGORITHMS
from doorward.issuer.nodes import METHOD
from doorward.issuer.token import GRANTS
from doorward.login.idtoken import ALGORITHMS as ALGORITHMS_OF_APPS
from doorward.login.proofs import PROOF_ALGORITHMS

_CONFIDENTIAL = ["client_secret_basic", "client_secret_post", "private_key_jwt", METHOD]


def describe_userinfo(issuer: str) -> dict[str, Any]:
    """What programs may read about userinfo as a resource of ours: RFC 9728 section 2."""
    return {
        "resource": f"{issuer}/userinfo",
        "authorization_servers": [issuer],
        "scopes_supported": [one for one in SCOPES if one != "offline_access"],
        "bearer_methods_supported": ["header", "body"],
        "dpop_signing_alg_values_supported": list(PROOF_ALGORITHMS),
        "resource_name": "who is signed in",
    }


def describe(
    issuer: str, *, openid: bool, documents: bool = True, registration: bool = False
) -> dict[str, Any]:
    """The document.

    Args:
        issuer: the door.
        openid: for OpenID Connect's document, else OAuth's own.
        documents: apps may describe themselves.
        registration: who asks may register some.

    They differ in one word: a program that finds offline_access in OAuth's document asks for it without a need.
    """
    methods = [*_CONFIDENTIAL, "none"]
    return {
        "issuer": issuer,
        "authorization_endpoint": f"{issuer}/authorize",
        "token_endpoint": f"{issuer}/token",
        "pushed_authorization_request_endpoint": f"{issuer}/par",
        "device_authorization_endpoint": f"{issuer}/device_authorization",
        "userinfo_endpoint": f"{issuer}/userinfo",
        "protected_resources": [f"{issuer}/userinfo"],
        "jwks_uri": f"{issuer}/.well-known/jwks.json",
        "introspection_endpoint": f"{issuer}/introspect",
        "revocation_endpoint": f"{issuer}/revoke",
        "end_session_endpoint": f"{issuer}/end_session",
        "backchannel_logout_supported": True,
        "backchannel_logout_session_supported": True,
        **({"registration_endpoint": f"{issuer}/register"} if registration else {}),
        "scopes_supported": [one for one in SCOPES if openid or one != "offline_access"],
        "response_types_supported": ["code"],
        "response_modes_supported": ["query", "form_post"],
        "grant_types_supported": list(GRANTS),
        "authorization_grant_profiles_supported": [PROFILE],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": list(ALGORITHMS),
        "token_endpoint_auth_methods_supported": methods,
        "token_endpoint_auth_signing_alg_values_supported": list(ALGORITHMS_OF_APPS),
        "introspection_endpoint_auth_methods_supported": _CONFIDENTIAL,
        "introspection_endpoint_auth_signing_alg_values_supported": list(ALGORITHMS_OF_APPS),
        "revocation_endpoint_auth_methods_supported": methods,
        "revocation_endpoint_auth_signing_alg_values_supported": list(ALGORITHMS_OF_APPS),
        "code_challenge_methods_supported": ["S256"],
        "dpop_signing_alg_values_supported": list(PROOF_ALGORITHMS),
        "require_pushed_authorization_requests": False,
        "authorization_response_iss_parameter_supported": True,
        "client_id_metadata_document_supported": documents,
        "request_parameter_supported": False,
        "request_uri_parameter_supported": False,
        "claims_parameter_supported": True,
        "claims_supported": list(CLAIMS),
        "acr_values_supported": [level.value for level in Level],
        "prompt_values_supported": ["none", "login", "consent", "select_account"],
    }
