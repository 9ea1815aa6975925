"""ASGI middleware: who is calling, in the scope of any app.

::

    request ─▶ headers that claim an identity are taken away
            ─▶ Authorization: Bearer or DPoP ─▶ the token is good: that is who; it is not: 401 or 403, whatever the connection says
            ─▶ none, and a tailnet           ─▶ the connection says who
            ─▶ neither                       ─▶ 401, or nobody with ``required=False``
            ─▶ what it takes here            ─▶ they have it; they have not: 403 or 401, with what to ask the issuer for
            ─▶ the app, which may ask for more (``demand``)

A resource's own metadata (RFC 9728) is answered here too: who wants in reads it before anything else.
"""

import contextlib
from collections.abc import MutableMapping, Sequence
from typing import Any, Protocol
from urllib.parse import quote

import msgspec

from doorward.clock import Clock, SystemClock
from doorward.errors import BadInput, DoorwardError, ProtocolError, Unauthenticated, Unavailable
from doorward.identity.caller import KEY, App, Identity, Receive, Scope, Send
from doorward.identity.connection import Tailnet
from doorward.identity.needs import SLOT, Needs, Slot, check, check_scopes, names_of
from doorward.identity.possession import Proofs
from doorward.identity.refusals import ScopeError, StrengthError, TokenError, TokenTwice
from doorward.identity.resource import Resource, challenge
from doorward.login.proofs import PROOF_ALGORITHMS, Proof
from doorward.protocol.proxyheaders import is_identity_header

__all__ = ["App", "Checks", "IdentityMiddleware", "Receive", "Scope", "Send"]


class Checks(Protocol):
    """What looks at tokens: ``Verifier``, ``Introspector``."""

    async def verify(
        self, token: str, scopes: Sequence[str] = (), *, key: str = "", node: str = ""
    ) -> Identity:
        """As ``Verifier.verify``."""
        ...


class IdentityMiddleware:
    """Puts an ``Identity`` into the scope (read it with ``caller``).

    Args:
        app: any ASGI app. What is not a request (``lifespan``) passes untouched.
        tailnet: believe connections of this daemon's.
        verifier: believe tokens (RFC 6750, in the Authorization header alone). Without one, that header is the app's own.
        scopes: what every token must allow.
        required: refuse strangers; False lets them in as None, except where ``needs`` has something for the place.
        resource: what this server calls itself; its metadata is served, and named in refusals.
        resource_metadata: the address of the metadata, where something else serves it.
        needs: what it takes besides, place by place.
        proofs: looks at proofs of possession (DPoP); with ``resource`` there is one that remembers in this process.
        clock: the time.
    """

    def __init__(
        self,
        app: App,
        *,
        tailnet: Tailnet | None = None,
        verifier: Checks | None = None,
        scopes: Sequence[str] = (),
        required: bool = True,
        resource: Resource | None = None,
        resource_metadata: str = "",
        needs: Sequence[Needs] = (),
        proofs: Proofs | None = None,
        clock: Clock | None = None,
    ) -> None:
        if verifier is None and (resource or proofs):
            raise BadInput("who takes tokens has to look at them", cure="Give a verifier.")
        if proofs is not None and resource is None:
            # Where a request went the Host header must not say: whoever sends it would choose for whom a proof is good.
            raise BadInput("proofs are for the address of a resource", cure="Give a resource.")
        self._clock = clock or SystemClock()
        self._needs = (*((Needs(scopes=tuple(scopes)),) if scopes else ()), *needs)
        check_scopes(names_of(self._needs))
        self._app = app
        self._tailnet = tailnet
        self._verifier = verifier
        self._required = required
        self._resource = resource
        self._metadata = resource_metadata or ("" if resource is None else resource.metadata_url)
        self._proofs = proofs or (None if resource is None else Proofs(clock=self._clock))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve as ASGI."""
        kind = scope["type"]
        if kind not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        if kind == "http" and self._resource is not None and scope["path"] in self._resource.metadata_paths:
            await _tell(self._resource, scope["method"], send)
            return
        headers = [pair for pair in scope["headers"] if not is_identity_header(pair[0])]
        needs = [each for each in self._needs if each.fits(scope.get("method", "GET"), scope["path"])]
        scheme = _scheme(headers)
        try:
            who = await self._who(scope, headers, scheme, names_of(needs))
            if who is None and (self._required or needs):
                raise Unauthenticated("it is not known who is asking", cure=self._cure())
            if who is not None:
                check(who, needs, self._clock.now())
        except ProtocolError as error:
            # The issuer's doing or the daemon's, and none of the caller's.
            await self._refuse(kind, Unavailable(error.message, cure=error.cure), scheme, needs, send)
            return
        except DoorwardError as error:
            await self._refuse(kind, error, scheme, needs, send)
            return
        slot = Slot(self._clock)
        inside = {**scope, "headers": headers, KEY: who, SLOT: slot}
        if kind == "websocket":
            await self._app(inside, receive, send)
            return
        guard = _Guard(send, slot, self._fresh_nonce(scheme))
        try:
            await self._app(inside, receive, guard.send)
        except DoorwardError as error:
            if error is not slot.error or guard.started:
                raise
        if slot.error is not None and not guard.started:
            await self._refuse(kind, slot.error, scheme, needs, send)

    async def _who(
        self, scope: Scope, headers: list[tuple[bytes, bytes]], scheme: str, scopes: Sequence[str]
    ) -> Identity | None:
        if self._verifier is not None:
            said = [value for name, value in headers if name.lower() == b"authorization"]
            if len(said) > 1:
                raise TokenTwice("there is more than one Authorization header")
            if scheme in {"bearer", "dpop"}:
                token = said[0].decode("latin-1").partition(" ")[2].strip()
                return await self._by_token(scope, headers, scheme, token, scopes)
        return await self._by_connection(scope)

    async def _by_connection(self, scope: Scope) -> Identity | None:
        if self._tailnet is None:
            return None
        return await self._tailnet.identify(scope.get("client"), scope.get("server"))

    async def _by_token(
        self,
        scope: Scope,
        headers: list[tuple[bytes, bytes]],
        scheme: str,
        token: str,
        scopes: Sequence[str],
    ) -> Identity:
        assert self._verifier is not None
        proof: Proof | None = None
        if scheme == "dpop":
            if self._proofs is None or self._resource is None:
                raise TokenError("tokens that are bound to a key are not taken here")
            shown = [value for name, value in headers if name.lower() == b"dpop"]
            path = scope.get("raw_path") or quote(scope["path"]).encode()
            proof = self._proofs.read(
                shown,
                method=scope.get("method", "GET"),
                address=self._resource.origin + path.decode("latin-1"),
                token=token,
            )
        elif self._resource is not None and self._resource.bound_only:
            raise TokenError("only tokens that are bound to a key are taken here")
        # It matters for a token that is bound to a node; any other is good though the daemon be away.
        found = None
        with contextlib.suppress(DoorwardError):
            found = await self._by_connection(scope)
        node = "" if found is None else found.subject
        who = await self._verifier.verify(
            token, scopes, key="" if proof is None else proof.thumbprint, node=node
        )
        if proof is not None:
            assert self._proofs is not None
            await self._proofs.use(proof)
        return who

    def _cure(self) -> str:
        ways = [
            *(["Come over the tailnet."] if self._tailnet else []),
            *(["Send an access token."] if self._verifier else []),
        ]
        return " Or: ".join(ways)

    def _fresh_nonce(self, scheme: str) -> bytes:
        if scheme != "dpop" or self._proofs is None or not self._proofs.nonces:
            return b""
        return self._proofs.nonce().encode()

    # No ----------------------------------------------------------------------------------------------------------------

    async def _refuse(
        self, kind: str, error: DoorwardError, scheme: str, needs: Sequence[Needs], send: Send
    ) -> None:
        if kind == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": error.message[:100]})
            return
        body = msgspec.json.encode(error.public())
        headers = [
            (b"content-type", b"application/problem+json"),
            (b"content-length", str(len(body)).encode()),
            (b"cache-control", b"no-store"),
        ]
        if self._verifier is not None and error.status in {400, 401, 403}:
            headers += [
                (b"www-authenticate", each.encode("ascii")) for each in self._challenges(error, scheme, needs)
            ]
            if nonce := self._fresh_nonce("dpop"):
                headers.append((b"dpop-nonce", nonce))
        await send({"type": "http.response.start", "status": error.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _challenges(self, error: DoorwardError, scheme: str, needs: Sequence[Needs]) -> list[str]:
        """RFC 6750 section 3; RFC 9728 section 5.1; RFC 9449 section 7.1; RFC 9470 section 3.

        Without a token there is no error code (6750 section 3.1). All scopes that the operation takes are in one challenge.
        """
        scopes = [*names_of(needs), *(error.scopes if isinstance(error, ScopeError) else ())]
        told = {"scope": " ".join(dict.fromkeys(scopes)), "resource_metadata": self._metadata}
        wrong = {"error": getattr(error, "code", "")}
        if wrong["error"]:
            wrong["error_description"] = error.message
        if isinstance(error, StrengthError):
            wrong["acr_values"] = " ".join(error.levels)
            wrong["max_age"] = "" if error.max_age is None else str(error.max_age)
        bound_only = self._resource is not None and self._resource.bound_only
        by_proof = bound_only or (self._proofs is not None and scheme == "dpop")
        found: list[str] = []
        if not bound_only:
            found.append(challenge("Bearer", **({} if by_proof else wrong), **told))
        if self._proofs is not None:
            named = {"algs": " ".join(PROOF_ALGORITHMS)}
            found.append(challenge("DPoP", **(wrong if by_proof else {}), **named, **told))
        return found


class _Guard:
    """Holds an app's answer back once something was asked of the caller in vain."""

    def __init__(self, send: Send, slot: Slot, nonce: bytes) -> None:
        self._send = send
        self._slot = slot
        self._nonce = nonce
        self.started = False

    async def send(self, message: MutableMapping[str, Any]) -> None:
        if not self.started:
            if self._slot.error is not None:
                return
            self.started = True
            if self._nonce:
                message = {**message, "headers": [*message.get("headers", ()), (b"dpop-nonce", self._nonce)]}
        await self._send(message)


def _scheme(headers: list[tuple[bytes, bytes]]) -> str:
    """The scheme of the first Authorization header, in lower case."""
    for name, value in headers:
        if name.lower() == b"authorization":
            return value.decode("latin-1").partition(" ")[0].lower()
    return ""


async def _tell(resource: Resource, method: str, send: Send) -> None:
    """The metadata, for programs and pages from anywhere."""
    headers = [
        (b"access-control-allow-origin", b"*"),
        (b"access-control-allow-methods", b"GET, HEAD, OPTIONS"),
        (b"access-control-allow-headers", b"*"),
    ]
    if method not in {"GET", "HEAD"}:
        status = 204 if method == "OPTIONS" else 405
        headers.append((b"allow", b"GET, HEAD, OPTIONS"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b""})
        return
    headers += [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(resource.body)).encode()),
        (b"cache-control", b"public, max-age=3600"),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if method == "HEAD" else resource.body})
