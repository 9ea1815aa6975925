"""Tokens that say nothing by themselves, or that have to be good at this very moment: the issuer is asked (RFC 7662).

What it says is kept for a few seconds: that is how long a token that was taken back may still be taken here.
"""

import asyncio
import hashlib
import re
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from doorward.clock import Clock, SystemClock
from doorward.errors import Unavailable
from doorward.identity.caller import Identity
from doorward.identity.client import Client, GrantRefused
from doorward.identity.refusals import TokenError
from doorward.identity.verifier import LARGEST, admitted, check_claims

KEPT = 10.0  # seconds
MOST = 10_000  # answers that are kept
_AT_ONCE = 20  # questions: invented tokens must not make us a nuisance to the issuer
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750 section 2.1


class Introspector:
    """Checks access tokens of any kind by asking their issuer. Stands wherever a ``Verifier`` does.

    Args:
        client: who asks; the issuer answers an app about its own tokens, and about those that are for a resource of its.
        audience: what a token must be for: this program's client id, or its resource's address.
        keep: seconds that an answer is taken for true.
        clock: the time.
    """

    def __init__(
        self, client: Client, audience: str, *, keep: float = KEPT, clock: Clock | None = None
    ) -> None:
        self._client = client
        self._audience = audience
        self._keep = keep
        self._clock = clock or SystemClock()
        self._kept: OrderedDict[bytes, tuple[float, dict[str, Any]]] = OrderedDict()
        self._few = asyncio.Semaphore(_AT_ONCE)

    async def verify(
        self, token: str, scopes: Sequence[str] = (), *, key: str = "", node: str = ""
    ) -> Identity:
        """Who an access token speaks for; as ``Verifier.verify``, and Unavailable where the issuer does not know who asks."""
        if len(token) > LARGEST or not _TOKEN.fullmatch(token):
            raise TokenError("the token is none")
        claims = await self._ask(token)
        if claims.get("active") is not True:
            raise TokenError("the token is not good, or not good any more, or not for this server")
        if claims.get("iss", self._client.issuer) != self._client.issuer:
            raise TokenError(f"the token is not from {self._client.issuer} (iss)")
        now = self._clock.now()
        check_claims(claims, self._audience, now)
        return admitted(claims, scopes, now, key=key, node=node)

    async def _ask(self, token: str) -> dict[str, Any]:
        digest = hashlib.sha256(token.encode()).digest()
        if (found := self._known(digest)) is not None:
            return found
        async with self._few:
            if (found := self._known(digest)) is not None:
                return found
            try:
                said = await self._client.introspect(token)
            except GrantRefused as error:  # of us, and not of who is calling
                raise Unavailable(
                    f"the issuer does not tell this server about tokens ({error.code})",
                    cure="Check its client id, and its secret or key.",
                ) from None
            self._kept[digest] = (self._clock.monotonic() + self._keep, said)
            self._kept.move_to_end(digest)
            while len(self._kept) > MOST:
                self._kept.popitem(last=False)
        return said

    def _known(self, digest: bytes) -> dict[str, Any] | None:
        until, said = self._kept.get(digest, (float("-inf"), {}))
        return said if until > self._clock.monotonic() else None
