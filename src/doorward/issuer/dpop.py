"""Proofs of possession: RFC 9449. A token that is bound to a key is worth nothing to who has the token and not the key.

::

    app ──▶ a request with a proof (a JWT: this method, this address, now, my public key) ──▶ tokens bound to that key
    app ──▶ the token and another proof, which names the token too ──▶ userinfo

A proof is good once and for a few minutes: its number is remembered in the database, for all processes. An app that was made with
``--dpop`` also has to put a word of ours into it (a *nonce*), so that nobody makes proofs ahead of time; such a word is a MAC of the
time, the same for all processes, and kept nowhere.
"""

import base64
import hashlib
import hmac
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from starlette.requests import Request

from doorward.errors import Conflict
from doorward.issuer.desk import Desk
from doorward.issuer.errors import TokenError
from doorward.issuer.nodes import MEMBER
from doorward.login.proofs import WINDOW, Proof, ProofError, read_proof
from doorward.model import App
from doorward.store import apps

HEADER = "DPoP-Nonce"
TERM = 150  # seconds between two nonces; each counts for two of these, so for 150 seconds at least


class Binding(NamedTuple):
    """What the tokens that one request asks for are bound to; empty for nothing."""

    jkt: str = ""  # the thumbprint of a key (RFC 7638)
    node: str = ""  # the stable id of a node
    caller: str = (
        ""  # the same of the one by which the app has shown who it is: nothing is bound to that alone
    )

    @property
    def token_type(self) -> str:
        """What the tokens are called (section 5)."""
        return "DPoP" if self.jkt else "Bearer"

    @property
    def claims(self) -> dict[str, Any]:
        """What an access token says of it (section 6.1, RFC 7800)."""
        said = {"jkt": self.jkt, MEMBER: self.node}
        found = {name: value for name, value in said.items() if value}
        return {"cnf": found} if found else {}

    def of_refresh(self, app: App) -> "Binding":
        """What a refresh token is bound to: a public app's to the same; another's is by its secret (section 5)."""
        return self if app.public else UNBOUND

    def holds(self, bound: "Binding") -> bool:
        """True for who may use what is bound like that."""
        return bound.jkt in {"", self.jkt} and bound.node in {"", self.node}


UNBOUND = Binding()


class Proofs:
    """What comes in DPoP headers.

    Args:
        desk: the issuer's.
        secret: what only doorward's files hold, the same for all processes.
    """

    def __init__(self, desk: Desk, secret: bytes) -> None:
        self._desk = desk
        self._key = HKDF(
            algorithm=hashes.SHA256(), length=32, salt=None, info=b"doorward dpop nonces 1"
        ).derive(secret)

    async def binding(self, request: Request, *, needed: bool = False, token: str = "") -> Binding:
        """The key whose proof came with a request; none without a proof.

        Raises TokenError with invalid_dpop_proof for one that is not good, and with use_dpop_nonce for one without our word.

        Args:
            request: at one of our endpoints.
            needed: there has to be a proof, with our word in it.
            token: the access token that came along, which the proof has to name.
        """
        headers = request.headers.getlist("dpop")
        if not headers and not needed:
            return UNBOUND
        if len(headers) != 1:
            raise _bad("there has to be a proof in one header DPoP")
        now = self._desk.now()
        try:
            proof = read_proof(
                headers[0].strip(),
                method=request.method,
                address=self._address(request),
                now=now,
                token=token,
            )
        except ProofError as error:
            raise _bad(error.message) from None
        if proof.nonce or needed:
            self._check_nonce(proof.nonce)
        await self._use_up(proof)
        return Binding(proof.thumbprint)

    def nonce(self) -> str:
        """The word that proofs are to have in them now."""
        return self._nonce_of(int(self._desk.now().timestamp()) // TERM)

    def _nonce_of(self, term: int) -> str:
        return _text(hmac.digest(self._key, str(term).encode(), "sha256")[:16])

    def _address(self, request: Request) -> str:
        # Ours as people and programs know it, whatever stands before us: the request came in at this name and no other.
        return self._desk.issuer + request.url.path

    def _check_nonce(self, said: str) -> None:
        """One that an app puts in unasked counts as well: it may be of an earlier answer (section 8.2)."""
        term = int(self._desk.now().timestamp()) // TERM
        # The next one too: the clock of the process that gave it may be ahead.
        known = [self._nonce_of(one).encode() for one in (term, term - 1, term + 1)]
        if not any(hmac.compare_digest(said.encode(errors="replace"), one) for one in known):
            raise TokenError(
                "use_dpop_nonce",
                f"the proof is to have the value of the header {HEADER} in it (nonce)",
                headers={HEADER: self.nonce()},
            )

    async def _use_up(self, proof: Proof) -> None:
        said = f"dpop {proof.thumbprint} {proof.number}"
        digest = hashlib.sha256(said.encode(errors="replace")).digest()
        until = datetime.fromtimestamp(proof.issued, UTC) + timedelta(seconds=WINDOW + 1)
        try:
            await self._desk.database.run(apps.use_once, digest, self._desk.now(), until)
        except Conflict:
            raise _bad("the proof was shown before (jti)") from None


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _bad(why: str) -> TokenError:
    return TokenError("invalid_dpop_proof", why)
