"""Asking an outside OpenID provider who somebody is: the authorization code flow, with PKCE, state and nonce.

::

    start ──▶ the browser goes to the provider, and comes back with a code ──▶ finish ──▶ Claims

Followed: OpenID Connect Core 1.0 and Discovery 1.0, RFC 6749, 7636 (PKCE), 9207 (the issuer in the response) and 9700. What
is fetched goes through the hardened fetcher, without redirects, each within TIME and a size. The issuer is an administrator's
word, so its own host may have a private address; whatever else a provider names must be on the open internet. A provider that
is down, slow or lying changes nothing, and concerns nobody who signs in elsewhere.
"""

import hashlib
import hmac
import re
import ssl
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Any, Literal, NamedTuple, TypeVar
from urllib.parse import parse_qsl, quote_plus, urlencode, urlsplit, urlunsplit

import msgspec

from doorward.clock import Clock
from doorward.errors import DoorwardError, NotPermitted, RemoteProtocolError, Unavailable
from doorward.login.idtoken import (
    ALGORITHMS,
    MAX_TOKEN,
    Expected,
    Keys,
    UnknownKeyError,
    check_id_token,
    claims_of,
    read_keys,
)
from doorward.login.sealing import Sealer
from doorward.model import Claims, Provider
from doorward.transport.fetch import Answer, Fetcher

TIME = 10.0  # seconds for one question to a provider: a person waits
KEEP = 3600.0  # seconds for which a provider's description and keys are taken as they were
KEYS_AGAIN = (
    30.0  # seconds between two looks at the keys because of unknown ones: anybody can make up a token's
)
_DISCOVERY = "/.well-known/openid-configuration"
_METADATA_MAX = 256 << 10  # bytes
_ANSWER_MAX = 2 * MAX_TOKEN
_LOOPBACK = frozenset(("127.0.0.1", "::1", "localhost"))
_CODE = re.compile(r"[a-z_]{1,40}")  # an error code of RFC 6749
_ELSEWHERE = "Nothing was changed. Try again later, or sign in another way."

CALLBACK = "/signin/callback/"  # at the door, with the provider's name behind it: where browsers come back to

OpenFetcher = Callable[[bool], Fetcher]
T = TypeVar("T")


class Started(NamedTuple):
    """Where to send a browser, and what to remember until it comes back. Nobody but that browser may learn the three."""

    url: str
    state: str
    nonce: str
    verifier: str

    def __repr__(self) -> str:
        return f"Started({urlsplit(self.url).netloc!r})"


class Found(NamedTuple):
    """One thing that is right or wrong with how a provider is set up."""

    level: Literal["ok", "warning", "error"]
    subject: str
    message: str
    cure: str = ""


class Metadata(msgspec.Struct, frozen=True, kw_only=True):
    """What of a provider's description counts here (Discovery 1.0, section 3)."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str = ""
    id_token_signing_alg_values_supported: list[str] = []
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("client_secret_basic",)
    code_challenge_methods_supported: list[str] | None = None
    claims_supported: list[str] | None = None
    authorization_response_iss_parameter_supported: bool = False


class TokenAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What the token endpoint answers (RFC 6749, sections 5.1 and 5.2; Core, section 3.1.3.3)."""

    id_token: str = ""
    access_token: str = ""
    error: str = ""


@dataclass(slots=True)
class _Known:
    """A provider as it was when last asked. Times are those of ``clock.monotonic``."""

    metadata: Metadata
    at: float
    keys: Keys = ()
    keys_at: float = field(default=float("-inf"))


@cache
def _authorities() -> ssl.SSLContext:
    return ssl.create_default_context()


def open_fetcher(allow_private: bool) -> Fetcher:
    """The fetcher for providers."""
    return Fetcher(allow_private=allow_private, seconds=TIME, redirects=0, ssl_context=_authorities())


class Upstream:
    """Outside providers, as one process asks them.

    Args:
        clock: the time that tokens are judged by.
        entropy: random bytes, for state, nonce and verifier.
        sealer: opens the client secrets, which providers have sealed.
        loopback_http: let a provider on this very machine be asked without TLS. For tests and labs.
        open_fetcher: makes the HTTP client; it is told whether private addresses may be asked.
    """

    def __init__(
        self,
        clock: Clock,
        entropy: Callable[[int], bytes],
        sealer: Sealer,
        *,
        loopback_http: bool = False,
        open_fetcher: OpenFetcher = open_fetcher,
    ) -> None:
        self._clock = clock
        self._entropy = entropy
        self.sealer = sealer
        self._loopback_http = loopback_http
        self._open_fetcher = open_fetcher
        self._known: dict[str, _Known] = {}  # by issuer: as many as administrators have named

    async def start(
        self, provider: Provider, *, redirect_uri: str, fresh: bool, login_hint: str = ""
    ) -> Started:
        """Where to send a browser so that it comes back to ``redirect_uri``.

        ``fresh``: they have to show anew who they are, however lately they did. Raises Unavailable when the provider does
        not answer, RemoteProtocolError when what it answers cannot be used.
        """
        metadata = (await self._discover(provider)).metadata
        state, nonce, verifier = (_text(self._entropy(32)) for _ in range(3))
        asked = {
            "response_type": "code",
            "client_id": provider.client_id,
            "redirect_uri": redirect_uri,
            "scope": " ".join(provider.scopes),
            "state": state,
            "nonce": nonce,
            "code_challenge": _text(hashlib.sha256(verifier.encode()).digest()),
            "code_challenge_method": "S256",
        }
        if fresh:
            asked |= {"prompt": "login", "max_age": "0"}
        if login_hint:
            asked["login_hint"] = login_hint
        place = urlsplit(metadata.authorization_endpoint)
        query = urlencode([*parse_qsl(place.query), *asked.items()])
        return Started(urlunsplit(place._replace(query=query)), state, nonce, verifier)

    async def finish(
        self,
        provider: Provider,
        *,
        redirect_uri: str,
        query: Mapping[str, str],
        state: str,
        nonce: str,
        verifier: str,
        fresh_since: datetime | None = None,
    ) -> Claims:
        """Who the browser that came back with ``query`` belongs to; the other arguments are what `start` was told and said.

        ``fresh_since``: they must have shown who they are since then. Raises NotPermitted when they or the provider said no,
        or gave no fresh proof; Unavailable when the provider does not answer or does not know us; RemoteProtocolError for
        every lie. The code that came back is used up in any case.
        """
        # First of all: without it the whole answer may be somebody else's work (RFC 9700, section 2.1).
        if not state or not hmac.compare_digest(query.get("state", "").encode(), state.encode()):
            raise NotPermitted(
                "this is not the answer to what this browser asked", cure="Begin again from the sign-in page."
            )
        known = await self._discover(provider)
        issuer = query.get("iss")
        if issuer != provider.issuer and (
            issuer is not None or known.metadata.authorization_response_iss_parameter_supported
        ):
            raise _refuse(
                provider, "sent the browser back with the name of another issuer, or with none (RFC 9207)"
            )
        if error := query.get("error"):
            raise _refusal(provider, error)
        code = query.get("code", "")
        if not code:
            raise _refuse(provider, "sent the browser back without a code")
        form = {"code": code, "redirect_uri": redirect_uri, "code_verifier": verifier}
        answer = await self._redeem(provider, known.metadata, form)
        if not answer.id_token:
            raise _refuse(provider, "gave no ID token", cure='Its "scopes" must have "openid" in them.')
        expected = Expected(
            provider=provider.name,
            issuer=provider.issuer,
            client_id=provider.client_id,
            nonce=nonce,
            access_token=answer.access_token,
            fresh_since=fresh_since,
        )
        said = await self._check(provider, known, answer.id_token, expected)
        userinfo = None
        if known.metadata.userinfo_endpoint and answer.access_token:
            userinfo = await self._userinfo(provider, known.metadata.userinfo_endpoint, answer.access_token)
        return claims_of(provider.name, said, userinfo, provider.groups_claim)

    async def examine(self, provider: Provider, *, redirect_uris: Sequence[str]) -> list[Found]:
        """What is right and what is wrong with how a provider is set up here, as far as it can be asked without a person.

        ``redirect_uris``: all that it has to know, at least one.
        """
        try:
            self._known.pop(provider.issuer, None)
            known = await self._discover(provider)
        except DoorwardError as error:
            return [Found("error", "discovery", error.message, error.cure)]
        found = [Found("ok", "discovery", f"{provider.issuer} describes itself"), *_findings(provider, known)]
        try:
            await self._renew_keys(provider, known)
            usable = ", ".join(sorted({one.kid or "without a name" for one in known.keys}))
            found.append(
                Found("ok", "keys", f"it publishes {len(known.keys)} usable: {usable}")
                if known.keys
                else Found(
                    "error",
                    "keys",
                    "it publishes no key that can be used",
                    f"Have it sign with one of {', '.join(ALGORITHMS)}.",
                )
            )
        except DoorwardError as error:
            found.append(Found("error", "keys", error.message, error.cure))
        try:
            form = {"code": "doorward-asks", "redirect_uri": redirect_uris[0], "code_verifier": "x" * 43}
            await self._redeem(provider, known.metadata, form)
        except _BadCodeError:  # it looks at who asks before it looks at the code
            found.append(Found("ok", "client", f"it knows the client {provider.client_id}"))
        except DoorwardError as error:
            found.append(Found("error", "client", error.message, error.cure))
        else:
            message = "it takes a code that it never gave"
            found.append(Found("error", "client", message, "Do not use this provider."))
        shown = " and ".join(redirect_uris)
        found.append(Found("ok", "redirect", f"it cannot be asked whether it sends browsers back to {shown}"))
        return found

    async def keys(self, provider: Provider, anew: bool) -> Keys:
        """What a provider signs with. ``anew``: look again, where that was not done a moment ago. Raises as ``start``."""
        known = await self._discover(provider)
        age = self._clock.monotonic() - known.keys_at
        if age >= KEEP or (anew and age >= KEYS_AGAIN):
            await self._renew_keys(provider, known)
        return known.keys

    # What is asked

    async def _discover(self, provider: Provider) -> _Known:
        now = self._clock.monotonic()
        known = self._known.get(provider.issuer)
        if known is not None and now - known.at < KEEP:
            return known
        url = provider.issuer.rstrip("/") + _DISCOVERY
        body = _fine(provider, await self._ask(provider, "GET", url, limit=_METADATA_MAX))
        metadata = _decode(provider, body, Metadata, "its description")
        if metadata.issuer != provider.issuer:
            # Discovery, section 4.3: else anybody's description could speak for another issuer.
            raise _refuse(
                provider,
                f"calls itself {metadata.issuer[:200]!r}, expected {provider.issuer!r}",
                cure="Add the provider with exactly the issuer that it gives.",
            )
        for endpoint in (metadata.authorization_endpoint, metadata.userinfo_endpoint):
            if endpoint:
                self._check_place(provider, endpoint)
        known = self._known[provider.issuer] = _Known(metadata, now)
        return known

    async def _check(
        self, provider: Provider, known: _Known, token: str, expected: Expected
    ) -> dict[str, Any]:
        """Check an ID token, with the keys as they are now if it needs one that was not known."""
        if self._clock.monotonic() - known.keys_at >= KEEP:
            await self._renew_keys(provider, known)
        try:
            return check_id_token(token, known.keys, expected, self._clock.now())
        except UnknownKeyError:
            if self._clock.monotonic() - known.keys_at < KEYS_AGAIN:
                raise
        await self._renew_keys(provider, known)
        return check_id_token(token, known.keys, expected, self._clock.now())

    async def _renew_keys(self, provider: Provider, known: _Known) -> None:
        url = known.metadata.jwks_uri
        body = _fine(provider, await self._ask(provider, "GET", url, limit=_METADATA_MAX))
        known.keys = read_keys(provider.name, body)
        known.keys_at = self._clock.monotonic()

    async def _redeem(self, provider: Provider, metadata: Metadata, form: dict[str, str]) -> TokenAnswer:
        """Exchange a code (RFC 6749, section 4.1.3), saying who we are in a way that the provider takes."""
        form = {"grant_type": "authorization_code", **form}
        headers = {"content-type": "application/x-www-form-urlencoded", "accept": "application/json"}
        methods = metadata.token_endpoint_auth_methods_supported
        if not provider.client_secret:
            form["client_id"] = provider.client_id
        elif "client_secret_basic" in methods:
            secret = self.sealer.open(provider.client_secret, provider.issuer)
            pair = f"{quote_plus(provider.client_id)}:{quote_plus(secret)}"
            headers["authorization"] = f"Basic {b64encode(pair.encode()).decode()}"
        elif "client_secret_post" in methods:
            secret = self.sealer.open(provider.client_secret, provider.issuer)
            form |= {"client_id": provider.client_id, "client_secret": secret}
        else:
            raise Unavailable(
                f"{provider.name} takes no client secret in a way that is known here",
                cure="Allow the client client_secret_basic or client_secret_post at the provider.",
            )
        answer = await self._ask(
            provider,
            "POST",
            metadata.token_endpoint,
            limit=_ANSWER_MAX,
            headers=headers,
            body=urlencode(form).encode(),
        )
        if answer.status >= 500:
            raise _down(provider, f"answered with status {answer.status}")
        said = _decode(provider, answer.body, TokenAnswer, "its answer about a code")
        if answer.status == 200 and not said.error:
            return said
        if said.error in {"invalid_client", "unauthorized_client"}:
            raise Unavailable(
                f"{provider.name} does not take this server's client ID and secret",
                cure=f"An administrator renews them: `doorward providers change {provider.name}`.",
            )
        if said.error == "invalid_grant":
            raise _BadCodeError(
                f"{provider.name} does not take the code that it gave to the browser",
                cure="Begin again from the sign-in page: a code can be used once, and soon.",
            )
        raise _refusal(provider, said.error)

    async def _userinfo(self, provider: Provider, url: str, access_token: str) -> dict[str, Any]:
        headers = {"authorization": f"Bearer {access_token}", "accept": "application/json"}
        answer = await self._ask(provider, "GET", url, limit=_ANSWER_MAX, headers=headers)
        return _decode(provider, _fine(provider, answer), dict[str, Any], "what it says about a person")

    async def _ask(
        self,
        provider: Provider,
        method: str,
        url: str,
        *,
        limit: int,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Answer:
        host = self._check_place(provider, url)
        try:
            async with self._open_fetcher(host == urlsplit(provider.issuer).hostname) as fetcher:
                return await fetcher.request(method, url, limit=limit, headers=headers, body=body)
        except Unavailable as error:
            raise _down(provider, f"cannot be asked: {error.message}") from None
        except DoorwardError as error:
            raise _refuse(provider, f"cannot be asked: {error.message}") from None

    def _check_place(self, provider: Provider, url: str) -> str:
        """The host of an address that may be used: https, or this machine where the settings say so."""
        try:
            parts = urlsplit(url)
            host = parts.hostname or ""
        except ValueError:
            host, parts = "", urlsplit("")
        if host and not parts.fragment and parts.username is None:
            if parts.scheme == "https":
                return host
            if parts.scheme == "http" and host in _LOOPBACK and self._loopback_http:
                return host
        raise _refuse(
            provider,
            f"is at {parts.scheme[:20]}://{host[:100]}, expected an https address",
            cure="Use https. For a provider on this very machine the setting `login.loopback_http` allows http.",
        )


class _BadCodeError(RemoteProtocolError):
    """The provider knows us, and not the code."""


def _findings(provider: Provider, known: _Known) -> list[Found]:
    """What the description says about what will be needed."""
    metadata = known.metadata
    found: list[Found] = []
    signs = metadata.id_token_signing_alg_values_supported
    if signs and not ALGORITHMS.keys() & set(signs):
        cure = f"Have it sign with one of {', '.join(ALGORITHMS)}."
        found.append(Found("error", "signatures", "it signs ID tokens in no way that is taken here", cure))
    if metadata.code_challenge_methods_supported and "S256" not in metadata.code_challenge_methods_supported:
        message = "it does not say that it knows PKCE with S256, which is always sent"
        found.append(Found("warning", "pkce", message, "Update it, or allow PKCE for this client there."))
    claims = metadata.claims_supported
    if claims is not None:
        if provider.groups and provider.groups_claim not in claims:
            message = f"it does not say that it sends the claim {provider.groups_claim!r}"
            cure = "Add the claim to its ID token, or name another with --groups-claim."
            found.append(Found("warning", "groups", message, cure))
        if (provider.domains or provider.users) and "email_verified" not in claims:
            message = "it does not say that it sends email_verified: domains and users then let nobody in"
            found.append(Found("warning", "email", message, "Have it send email_verified, or allow groups."))
    return found


def _refusal(provider: Provider, error: str) -> DoorwardError:
    """What an error code of the provider means for the person. Its description is not shown: anybody may have written it."""
    if error == "access_denied":
        return NotPermitted(
            f"{provider.name} did not let you in, or you said no there",
            cure="Nothing was changed. Try again.",
        )
    if error in {"login_required", "interaction_required", "account_selection_required", "consent_required"}:
        return NotPermitted(f"{provider.name} wants you to sign in there first", cure="Try again.")
    if error in {"server_error", "temporarily_unavailable"}:
        return _down(provider, "says that it cannot answer now")
    shown = error if _CODE.fullmatch(error) else "an error without a name"
    return RemoteProtocolError(
        f"{provider.name} answered {shown}",
        cure=f"An administrator finds out why: `doorward providers test {provider.name}`.",
    )


def _fine(provider: Provider, answer: Answer) -> bytes:
    if answer.status != 200:
        raise _down(provider, f"answered with status {answer.status}, expected 200")
    return answer.body


def _decode(provider: Provider, body: bytes, kind: type[T], what: str) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        detail = str(error)[:200] if isinstance(error, msgspec.ValidationError) else ""
        raise RemoteProtocolError(
            f"{provider.name} sent {what} in a form that cannot be read", cure=_ELSEWHERE, detail=detail
        ) from None


def _down(provider: Provider, what: str) -> Unavailable:
    return Unavailable(f"{provider.name} {what}", cure=_ELSEWHERE)


def _refuse(provider: Provider, what: str, *, cure: str = "") -> RemoteProtocolError:
    return RemoteProtocolError(f"{provider.name} {what}", cure=cure or _ELSEWHERE)


def _text(random: bytes) -> str:
    return urlsafe_b64encode(random).rstrip(b"=").decode()
