"""A program as a client of an issuer: it asks about tokens, exchanges one for the next server, brings words to others' servers.

It shows who it is with its secret, by signing with its key (RFC 7523 section 2.2), or by the node that it runs on, and never with the token that it was
called with. What it gets is kept until shortly before it is over, so a busy gateway asks once for each caller and server.
"""

import asyncio
import base64
import hashlib
import secrets
import ssl
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import quote_plus, urlencode

import msgspec
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from doorward.clock import Clock, SystemClock
from doorward.errors import BadInput, NotPermitted, RemoteProtocolError, Unavailable
from doorward.identity.discovery import Ask, Places, asker, fetching
from doorward.login.idtoken import ALGORITHMS

EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
ID_JAG = "urn:ietf:params:oauth:token-type:id-jag"
KINDS = {
    "id_token": "urn:ietf:params:oauth:token-type:id_token",
    "refresh_token": "urn:ietf:params:oauth:token-type:refresh_token",
}
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - a name
MOST = 1000  # tokens that are kept; the one that was not used for the longest time goes first
EARLY = 30.0  # seconds before its end that a token is no longer handed out
_NODE = "doorward-client"
_SIGNED_FOR = 60  # seconds that what we sign is good
_KINDS: dict[str, type[Key]] = {"EC": ECKey, "RSA": RSAKey, "OKP": OKPKey}


class GrantRefused(NotPermitted):
    """The issuer gives no token. ``code`` as RFC 6749 section 5.2 and RFC 8693 section 2.2.2 have it."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """What the issuer gave."""

    access_token: str
    token_type: str = "Bearer"  # noqa: S105 - a name
    expires_in: float = 0  # seconds; 0: it does not say
    scope: str = ""

    def __repr__(self) -> str:
        return f"Token(token_type={self.token_type!r}, scope={self.scope!r})"


@dataclass
class _Kept:
    token: Token | None = None
    until: float = float("-inf")
    one: asyncio.Lock = field(default_factory=asyncio.Lock)


class Client:
    """One client of one issuer.

    Args:
        issuer: its address, exactly as its metadata has it.
        client_id: as ``doorward apps create`` printed it.
        secret: the same; or
        key: a secret key as a JWK, whose public half the issuer has (``--keys``); or
        node: the tagged node that this program runs on, which the issuer knows by the connection (``--node``); doorward's own way.
        ssl_context: whom to trust for https, such as the output of ``doorward ca``; the system's authorities by default.
        ask: makes an HTTP request; for programs with a client of their own.
        clock: the time.
    """

    def __init__(
        self,
        issuer: str,
        client_id: str,
        *,
        secret: str = "",
        key: Mapping[str, Any] | None = None,
        node: bool = False,
        ssl_context: ssl.SSLContext | None = None,
        ask: Ask | None = None,
        clock: Clock | None = None,
    ) -> None:
        if sum((bool(secret), key is not None, node)) != 1:
            raise BadInput("a client has a secret, a key or its node", cure="Give one of the three.")
        self.issuer = issuer
        self.client_id = client_id
        self._secret = secret
        self._node = node
        self._signer = None if key is None else _signer(key)
        self._ask = ask or asker(ssl_context)
        self._clock = clock or SystemClock()
        self._places = Places(issuer, fetching(self._ask), self._clock)
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()

    def __repr__(self) -> str:
        return f"Client({self.issuer!r}, {self.client_id!r})"

    async def introspect(self, token: str) -> dict[str, Any]:
        """What the issuer says of a token now (RFC 7662 section 2.2). Raises GrantRefused, Unavailable, RemoteProtocolError."""
        place = await self._places.find("introspection_endpoint", "the place to ask about tokens")
        return await self._post(place, {"token": token, "token_type_hint": "access_token"})

    async def exchange(self, token: str, resource: str, scopes: Sequence[str] = ()) -> Token:
        """The caller's token for the next server, in place of the one for us (RFC 8693). Kept until shortly before its end.

        Args:
            token: what we were called with. It never goes to anybody but the issuer.
            resource: what the next server calls itself.
            scopes: no more than what it takes there; all of the caller's by default.

        Raises GrantRefused where the policy does not have it so, or the caller's token is over.
        """
        form = {
            "grant_type": EXCHANGE,
            "subject_token": token,
            "subject_token_type": ACCESS_TOKEN,
            "resource": resource,
            "scope": " ".join(scopes),
        }
        return await self._granted(form)

    async def own_token(self, resource: str = "", scopes: Sequence[str] = ()) -> Token:
        """A token for this program itself and for no person (RFC 6749 section 4.4). Kept in the same way."""
        return await self._granted(
            {"grant_type": "client_credentials", "resource": resource, "scope": " ".join(scopes)}
        )

    async def word(
        self,
        token: str,
        issuer: str,
        resource: str = "",
        scopes: Sequence[str] = (),
        *,
        kind: Literal["id_token", "refresh_token"] = "id_token",
    ) -> str:
        """The issuer's word about a person for another organization's issuer (an ID-JAG): to be brought there, once, within minutes.

        Args:
            token: of the person's sign-in to this very program.
            issuer: the other one's address.
            resource: what is to be used there.
            scopes: the same.
            kind: what ``token`` is.

        Raises GrantRefused where the policy does not have it so, or the token is over.
        """
        form = {
            "grant_type": EXCHANGE,
            "requested_token_type": ID_JAG,
            "subject_token": token,
            "subject_token_type": KINDS[kind],
            "audience": issuer,
            "resource": resource,
            "scope": " ".join(scopes),
        }
        return (await self._ask_for(form)).access_token

    async def bring(self, word: str, resource: str = "", scopes: Sequence[str] = ()) -> Token:
        """A token for what another organization's issuer said (RFC 7523). A word is good once, so nothing is kept."""
        form = {
            "grant_type": JWT_BEARER,
            "assertion": word,
            "resource": resource,
            "scope": " ".join(scopes),
        }
        return await self._ask_for(form)

    async def _ask_for(self, form: dict[str, str]) -> Token:
        place = await self._places.find("token_endpoint", "the place to ask for tokens")
        given = {name: value for name, value in form.items() if value}
        return _token(self.issuer, await self._post(place, given))

    async def _granted(self, form: dict[str, str]) -> Token:
        given = {name: value for name, value in form.items() if value}
        # Of tokens that come in only the hash is kept.
        digest = hashlib.sha256(urlencode(sorted(given.items())).encode()).digest()
        kept = self._kept.setdefault(digest, _Kept())
        self._kept.move_to_end(digest)
        while len(self._kept) > MOST:
            self._kept.popitem(last=False)
        async with kept.one:  # who comes meanwhile for the same waits for the same answer
            now = self._clock.monotonic()
            if kept.token is None or kept.until <= now:
                kept.token = await self._ask_for(given)
                kept.until = now + kept.token.expires_in - EARLY
            return kept.token

    async def _post(self, place: str, form: dict[str, str]) -> dict[str, Any]:
        headers = {"content-type": "application/x-www-form-urlencoded", "accept": "application/json"}
        if self._node:
            # What no page can have a browser send, so that the node's word is this program's.
            headers[_NODE] = "node"
            form = form | {"client_id": self.client_id}
        elif self._signer is None:
            # RFC 6749 section 2.3.1: each half form-encoded first.
            pair = f"{quote_plus(self.client_id)}:{quote_plus(self._secret)}"
            headers["authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        else:
            form = form | {"client_assertion_type": ASSERTION, "client_assertion": self._assertion()}
        answer = await self._ask("POST", place, headers, urlencode(form).encode())
        if answer.status >= 500 or answer.status == 429:
            raise Unavailable(f"{self.issuer} answered with status {answer.status}", cure="Try again later.")
        try:
            said = msgspec.json.decode(answer.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            said = None
        if not isinstance(said, dict):
            raise RemoteProtocolError(f"{self.issuer} answered with what is no JSON object")
        if answer.status != 200:
            code = said.get("error")
            why = str(said.get("error_description", ""))[:200]
            named = code[:60] if isinstance(code, str) else "an error without a name"
            raise GrantRefused(named, f"the issuer says {named}{why and ': '}{why}")
        return said

    def _assertion(self) -> str:
        assert self._signer is not None
        algorithm, key, kid = self._signer
        now = int(self._clock.now().timestamp())
        claims = {
            "iss": self.client_id,
            "sub": self.client_id,
            "aud": self.issuer,
            "iat": now,
            "exp": now + _SIGNED_FOR,
            "jti": secrets.token_urlsafe(18),
        }
        header = {"alg": algorithm, "typ": "JWT"} | ({"kid": kid} if kid else {})
        signed = f"{_encode(header)}.{_encode(claims)}"
        signature = JWSRegistry.algorithms[algorithm].sign(signed.encode(), key)
        return f"{signed}.{_text(signature)}"


def _signer(jwk: Mapping[str, Any]) -> tuple[str, Key, str]:
    """Algorithm, key and its name. Raises BadInput."""
    kind, curve = jwk.get("kty"), jwk.get("crv", "")
    wanted = _KINDS.get(kind) if isinstance(kind, str) else None
    fits = [name for name, (one, of) in ALGORITHMS.items() if one is wanted and of in {"", curve}]
    said = jwk.get("alg") or next(iter(fits), "")
    if wanted is None or said not in fits or "d" not in jwk:
        raise BadInput(
            "the key is no secret key of a kind that is known here",
            cure="Give a JWK of an RSA key, of P-256 or of Ed25519, with its secret half.",
        )
    try:
        return str(said), wanted.import_key(dict(jwk)), str(jwk.get("kid", ""))
    except (JoseError, ValueError, TypeError):
        raise BadInput("the key is none") from None  # what is wrong with it might repeat it


def _token(issuer: str, said: Mapping[str, Any]) -> Token:
    try:
        return msgspec.convert(said, type=Token)
    except msgspec.ValidationError:
        raise RemoteProtocolError(f"{issuer} answered with what is no token") from None


def _encode(value: Any) -> str:
    return _text(msgspec.json.encode(value))


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
