"""Why a caller is not let in, with the codes that programs act on.

::

    DoorwardError
    ├── Unauthenticated
    │   ├── TokenError      401  invalid_token: another token may do
    │   ├── ProofRefused    401  invalid_dpop_proof, use_dpop_nonce: another proof may do
    │   └── StrengthError   401  insufficient_user_authentication: the person has to show better, or anew, who they are
    ├── NotPermitted
    │   └── ScopeError      403  insufficient_scope: a token with more scopes may do
    └── BadInput
        └── TokenTwice      400  invalid_request: there is more than one
"""

from collections.abc import Sequence
from typing import ClassVar

from doorward.errors import BadInput, NotPermitted, Unauthenticated


class TokenError(Unauthenticated):
    """The token is not good; the message says why."""

    code: ClassVar[str] = "invalid_token"  # RFC 6750 section 3.1


class TokenTwice(BadInput):
    """Two tokens came: another reader might take the other one."""

    code: ClassVar[str] = "invalid_request"  # RFC 6750 section 3.1


class ProofRefused(Unauthenticated):
    """The proof of possession is not good.

    Args:
        code: as RFC 9449 sections 7.1 and 9 have it.
        message: as always.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class ScopeError(NotPermitted):
    """The token is good, and does not allow this.

    Args:
        message: as always.
        scopes: all that it would take.
        cure: as always.
    """

    code: ClassVar[str] = "insufficient_scope"

    def __init__(self, message: str, scopes: Sequence[str] = (), *, cure: str = "") -> None:
        super().__init__(message, cure=cure)
        self.scopes = tuple(scopes)


class StrengthError(Unauthenticated):
    """The person is known, and not well enough for this (RFC 9470).

    Args:
        message: as always.
        levels: values of ``acr`` that would do.
        max_age: seconds since they have shown who they are that would do.
    """

    code: ClassVar[str] = "insufficient_user_authentication"

    def __init__(self, message: str, levels: Sequence[str] = (), max_age: int | None = None) -> None:
        super().__init__(message)
        self.levels = tuple(levels)
        self.max_age = max_age
