"""What OAuth calls errors: RFC 6749 sections 4.1.2.1 and 5.2, OpenID Connect Core section 3.1.2.6.

::

    OAuthError            a code and a sentence
    ├── AuthorizeError    told to the app, by way of the browser: only once the redirect address is known to be the app's
    └── TokenError        told to the app itself, as JSON
"""

import re
from collections.abc import Mapping
from typing import ClassVar

from starlette.responses import Response

from doorward.asgi import json_answer
from doorward.errors import BadInput

# What an error_description may be made of (RFC 6749 section 5.2); anything else becomes a question mark.
_UNSEEN = re.compile(r"[^\x20-\x21\x23-\x5b\x5d-\x7e]")


class OAuthError(BadInput):
    """An error with the code that OAuth has for it.

    Args:
        code: ``invalid_request`` and the like.
        message: for the person who runs the app.
    """

    problem: ClassVar[str] = "oauth"

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code

    @property
    def description(self) -> str:
        """The message, in the signs that may travel."""
        return _UNSEEN.sub("?", self.message)


class AuthorizeError(OAuthError):
    """What an app is told in place of a code."""


class TokenError(OAuthError):
    """What an app is told in place of tokens, or of what they say.

    Args:
        code: as above.
        message: as above.
        status: of the answer.
        challenge: the WWW-Authenticate header, where there is one.
        headers: others.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        status: int = 400,
        challenge: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(code, message)
        self.answer_status = status
        self.challenge = challenge
        self.headers = dict(headers or {})

    def answer(self) -> Response:
        """As a response."""
        response = json_answer(
            {"error": self.code, "error_description": self.description}, self.answer_status
        )
        response.headers["Pragma"] = "no-cache"
        for name, value in self.headers.items():
            response.headers[name] = value
        if self.challenge:
            response.headers["WWW-Authenticate"] = self.challenge
        return response


def bad_token(
    message: str = "the access token is not good, or not good any more", *, scheme: str = "Bearer"
) -> TokenError:
    """What userinfo says about a token (RFC 6750 section 3.1)."""
    challenge = f'{scheme} realm="doorward", error="invalid_token", error_description="{message}"'
    return TokenError("invalid_token", message, status=401, challenge=challenge)
