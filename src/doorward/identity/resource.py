"""What a server says of itself to programs that want in: metadata (RFC 9728) and challenges (RFC 6750, 9449, 9470).

::

    program ──▶ 401, WWW-Authenticate: where the metadata is, which scopes ──▶ metadata: who issues tokens ──▶ issuer
    program ──▶ with a token that allows too little ──▶ 403, all the scopes that it takes ──▶ issuer, for those too
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import msgspec

from doorward.errors import BadInput
from doorward.identity.discovery import check_address
from doorward.identity.needs import check_scopes
from doorward.login.proofs import PROOF_ALGORITHMS

WELL_KNOWN = "/.well-known/oauth-protected-resource"  # RFC 9728 section 3
# What a quoted string may hold that nobody has to escape (RFC 9110 section 5.6.4).
_UNSEEN = re.compile(r"[^\x20-\x21\x23-\x5b\x5d-\x7e]")


class Resource:
    """A server that takes tokens.

    Args:
        address: what it calls itself, the same as in tokens (``aud``): an https address without a fragment, or http on this computer.
        issuer: who issues the tokens.
        scopes: all that its operations may need, for programs that have to choose.
        name: for people.
        documentation: an address, for people.
        policy: the same, of what it does with data.
        terms: the same, of service.
        bound_only: take only tokens that are bound to a key (DPoP).
    """

    def __init__(
        self,
        address: str,
        *,
        issuer: str,
        scopes: Sequence[str] = (),
        name: str = "",
        documentation: str = "",
        policy: str = "",
        terms: str = "",
        bound_only: bool = False,
    ) -> None:
        check_address(address, "the resource")
        check_address(issuer, "the issuer")
        parts = urlsplit(address)
        if parts.fragment or "#" in address or parts.query or parts.username is not None:
            raise BadInput(
                "the resource's address has a query, a fragment or a user name", cure="Leave it out."
            )
        check_scopes(scopes)
        self.address = address
        self.issuer = issuer
        self.bound_only = bound_only
        self.origin = f"{parts.scheme.lower()}://{parts.netloc.lower()}"
        path = parts.path.rstrip("/")
        self.metadata_url = f"{self.origin}{WELL_KNOWN}{path}"
        # The second is where older programs look when no challenge tells them the first.
        self.metadata_paths = frozenset((f"{WELL_KNOWN}{path}", WELL_KNOWN))
        said: dict[str, Any] = {
            "resource": address,
            "authorization_servers": [issuer],
            "scopes_supported": list(scopes),
            "bearer_methods_supported": ["header"],
            "resource_name": name,
            "resource_documentation": documentation,
            "resource_policy_uri": policy,
            "resource_tos_uri": terms,
            "dpop_signing_alg_values_supported": list(PROOF_ALGORITHMS),
            "dpop_bound_access_tokens_required": bound_only,
        }
        self.metadata: Mapping[str, Any] = {key: value for key, value in said.items() if value}
        self.body = msgspec.json.encode(self.metadata)


def challenge(scheme: str, **parameters: str) -> str:
    """A challenge (RFC 9110 section 11.6.1). Empty parameters are left out; what may not stand in one becomes a question mark."""
    said = ", ".join(f'{name}="{_UNSEEN.sub("?", value)}"' for name, value in parameters.items() if value)
    return f"{scheme} {said}".rstrip()
