"""Tokens that are worth nothing without a key: proofs of possession at a server (RFC 9449 section 7).

A proof is good once. Which ones have been seen a ``Seen`` remembers: in this process by default, so several processes behind one
address need one that they share. With nonces a proof is worth nothing before the server has given out what has to be in it.
"""

import hashlib
import hmac
import secrets
from base64 import urlsafe_b64encode
from collections import OrderedDict
from typing import Protocol

from doorward.clock import Clock, SystemClock
from doorward.errors import Unavailable
from doorward.identity.refusals import ProofRefused
from doorward.login.proofs import WINDOW, Proof, ProofError, read_proof

MOST = 100_000  # proofs that one process remembers: about 20 MB, and 160 a second
_TERM = 120  # seconds that a nonce is given out; it is taken for as long again


class Seen(Protocol):
    """Remembers what has been seen."""

    async def first(self, key: bytes, seconds: float) -> bool:
        """True for a key that was not seen in the last ``seconds`` of any call for it; it is remembered."""
        ...


class SeenHere:
    """In this process.

    Args:
        clock: the time.
        most: how many are remembered; more are refused rather than forgotten.
    """

    def __init__(self, clock: Clock | None = None, most: int = MOST) -> None:
        self._clock = clock or SystemClock()
        self._most = most
        self._known: OrderedDict[bytes, float] = OrderedDict()  # until when, oldest first

    async def first(self, key: bytes, seconds: float) -> bool:
        """As ``Seen`` has it. Raises Unavailable when there is no more room."""
        now = self._clock.monotonic()
        while self._known and next(iter(self._known.values())) <= now:
            self._known.popitem(last=False)
        if self._known.get(key, now) > now:
            return False
        if len(self._known) >= self._most:
            raise Unavailable(
                "there are too many requests with proofs to tell them apart", cure="Try again later."
            )
        self._known[key] = now + seconds
        return True


class Proofs:
    """Looks at proofs.

    Args:
        seen: remembers them.
        nonces: ask for a nonce of ours in each.
        secret: what nonces are made with, where several processes have to know each other's.
        clock: the time.
    """

    def __init__(
        self,
        *,
        seen: Seen | None = None,
        nonces: bool = False,
        secret: bytes = b"",
        clock: Clock | None = None,
    ) -> None:
        self._clock = clock or SystemClock()
        self._seen = seen or SeenHere(self._clock)
        self.nonces = nonces
        self._secret = secret or secrets.token_bytes(32)

    def nonce(self) -> str:
        """What has to be in proofs from now on."""
        return self._nonce(self._term())

    def _term(self) -> int:
        return int(self._clock.now().timestamp()) // _TERM

    def _nonce(self, term: int) -> str:
        digest = hmac.digest(self._secret, b"dpop nonce %d" % term, hashlib.sha256)
        return urlsafe_b64encode(digest[:18]).decode()

    def read(self, headers: list[bytes], *, method: str, address: str, token: str) -> Proof:
        """The proof of a request, right but for whether it was seen before. Raises ProofRefused.

        Args:
            headers: the values of its DPoP headers.
            method: of the request.
            address: of the request, from outside.
            token: the access token that came along.
        """
        if len(headers) != 1:
            raise ProofRefused(
                "invalid_dpop_proof", "a token of this kind comes with one proof (header DPoP)"
            )
        try:
            proof = read_proof(
                headers[0].decode("latin-1"),
                method=method,
                address=address,
                now=self._clock.now(),
                token=token,
            )
        except ProofError as error:
            raise ProofRefused("invalid_dpop_proof", error.message) from None
        if self.nonces:
            term = self._term()
            known = [self._nonce(each).encode() for each in (term, term - 1)]
            said = proof.nonce.encode(errors="replace")
            if not any(hmac.compare_digest(said, one) for one in known):
                raise ProofRefused("use_dpop_nonce", "the proof has no nonce of this server's, or an old one")
        return proof

    async def use(self, proof: Proof) -> None:
        """Note that a proof was shown; called last, when all else is good. Raises ProofRefused for one that was before."""
        key = hashlib.sha256(f"{proof.thumbprint} {proof.number}".encode(errors="replace")).digest()
        if not await self._seen.first(key, 2 * WINDOW):
            raise ProofRefused("invalid_dpop_proof", "the proof was shown before (jti)")
