"""A request to authorize, read and judged step by step: RFC 6749, RFC 7636, RFC 8707, OpenID Connect Core section 3.1.2.

The first two steps find out whose request it is and where an answer would go; what is wrong there is said on a page, for nobody
may be sent to an address that is not the app's. What is wrong after that is told to the app. Pure but for the app, which the
caller looks up.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import urlencode, urlsplit, urlunsplit

import msgspec

from doorward.errors import BadInput
from doorward.issuer.decision import POSTURE, Level, read_prompt
from doorward.issuer.errors import AuthorizeError
from doorward.issuer.wanted import Wanted
from doorward.issuer.wanted import read as read_wanted
from doorward.login.redirects import allows
from doorward.model import App

LARGEST = 32_768  # characters of all parameters
_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")  # a SHA-256 (RFC 7636 section 4.2)
_PORTS = {"https": 443, "http": 80}
_LONG = 2000  # characters of a state, which is the app's own, and of a nonce
_MORE_THAN_ONCE = frozenset({"resource"})  # RFC 8707 section 2
_AGE = re.compile(r"[0-9]{1,9}")

_LOW = frozenset((Level.REMOTE, Level.NETWORK, Level.CLICK))  # what takes no sign-in

Pairs = Sequence[tuple[str, str]]


class UnknownApp(BadInput):
    """No such app, or no such address of it: nobody is sent anywhere."""

    problem = "unknown-app"


@dataclass(frozen=True, kw_only=True)
class Target:
    """Whose request it is, and where answers go: enough to tell the app what is wrong."""

    app: App
    redirect_uri: str
    state: str
    mode: str  # "query" or "form_post"


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A request that is right in itself. It is kept as JSON while a person is asked."""

    client_id: str
    redirect_uri: str
    state: str
    mode: str
    scopes: tuple[str, ...]
    resources: tuple[str, ...]
    challenge: str
    nonce: str
    prompt: frozenset[str]
    max_age: int | None
    login_hint: str
    id_token_hint: str
    levels: tuple[Level, ...]
    postures: tuple[str, ...] = ()  # acr_values that ask for a posture of the device
    jkt: str = ""  # the key that the code is bound to (RFC 9449 section 10)
    wanted: Wanted = Wanted()  # single claims

    @property
    def from_elsewhere(self) -> bool:
        """True where a yes from another device would do: not for what takes a sign-in, or a device that meets something."""
        if self.wanted.essential or self.wanted.subjects:
            return False
        return not self.postures and (not self.levels or bool(set(self.levels) & _LOW))

    @property
    def shown(self) -> tuple[str, ...]:
        """The scopes, and those that single claims belong to: what whoever is asked is asked about."""
        return (*self.scopes, *self.wanted.scopes)

    @property
    def oldest(self) -> timedelta | None:
        """``max_age`` as a length of time."""
        return None if self.max_age is None else timedelta(seconds=self.max_age)


def single(pairs: Pairs, name: str) -> str:
    """A parameter's value; empty where it is missing. Raises BadInput for one given twice (RFC 6749 section 3.1)."""
    found = [value for key, value in pairs if key == name]
    if len(found) > 1:
        raise BadInput(f"the parameter {name} is given twice")
    return found[0] if found else ""


def find_target(pairs: Pairs, app: App | None) -> Target:
    """Where the answer goes. Raises UnknownApp, or BadInput for what is given twice: a page says so."""
    if app is None:
        raise UnknownApp(
            "no app of this name may sign people in here",
            cure="Whoever runs the app sets its client id; `doorward apps list` shows those there are.",
        )
    uri = single(pairs, "redirect_uri")
    if not uri or not any(allows(known, uri) for known in app.redirect_uris):
        raise UnknownApp(
            f"{app.name} may not have people sent back to that address",
            cure=f"`doorward apps show {app.name}` shows its addresses. They are compared sign by sign.",
        )
    mode = single(pairs, "response_mode")
    state = single(pairs, "state")
    return Target(
        app=app, redirect_uri=uri, state=state, mode="form_post" if mode == "form_post" else "query"
    )


def read(pairs: Pairs, target: Target, known: frozenset[str], allowed: Iterable[str]) -> Asked:
    """All of the request. Raises AuthorizeError, which the app is told.

    Args:
        pairs: the parameters.
        target: where the answer goes.
        known: the scopes that there are.
        allowed: the resources that tokens may be for.
    """
    for step in _STEPS:
        step(pairs, target.app)
    try:
        prompt = read_prompt(single(pairs, "prompt"))
    except BadInput as error:
        raise AuthorizeError("invalid_request", error.message) from None
    seconds = single(pairs, "max_age")
    wanted = read_wanted(single(pairs, "claims"))
    levels = " ".join(wanted.levels if wanted.essential else (single(pairs, "acr_values"), *wanted.levels))
    # First: a resource that is not the app's has no scopes either, and that is not what is wrong.
    resources = resources_of(pairs, allowed)
    return Asked(
        client_id=target.app.client_id,
        redirect_uri=target.redirect_uri,
        state=target.state,
        mode=target.mode,
        scopes=scopes_of(single(pairs, "scope"), known),
        resources=resources,
        challenge=single(pairs, "code_challenge"),
        nonce=single(pairs, "nonce"),
        prompt=prompt,
        max_age=int(seconds) if seconds else None,
        login_hint=single(pairs, "login_hint"),
        id_token_hint=single(pairs, "id_token_hint"),
        levels=levels_of(levels),
        postures=postures_of(levels),
        jkt=single(pairs, "dpop_jkt"),
        wanted=wanted,
    )


def _each_once(pairs: Pairs, _: App) -> None:
    names = [name for name, _value in pairs if name not in _MORE_THAN_ONCE]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise AuthorizeError("invalid_request", f"the parameter {twice[:60]} is given twice")
    if any(len(single(pairs, name)) > _LONG for name in ("state", "nonce", "login_hint")):
        raise AuthorizeError(
            "invalid_request", f"state, nonce and login_hint have {_LONG} characters at most"
        )
    if "\x00" in single(pairs, "nonce"):  # it has to be stored, and a NUL cannot be
        raise AuthorizeError("invalid_request", "a nonce has no NUL")


def _no_request_objects(pairs: Pairs, _: App) -> None:
    """Core section 6: never ignored, or an app would think that we had read them."""
    for name in ("request", "request_uri"):
        if single(pairs, name):
            raise AuthorizeError(f"{name}_not_supported", f"the parameter {name} is not taken here")


def _code_flow(pairs: Pairs, _: App) -> None:
    if not single(pairs, "response_type"):
        raise AuthorizeError("invalid_request", "the parameter response_type is missing")
    if single(pairs, "response_type") != "code":
        raise AuthorizeError("unsupported_response_type", "only response_type=code is possible here")
    if single(pairs, "response_mode") not in {"", "query", "form_post"}:
        raise AuthorizeError("invalid_request", "response_mode is query or form_post")


def _proof_key(pairs: Pairs, app: App) -> None:
    """RFC 7636 with S256 alone; a public app has nothing else to show that a code is its own."""
    challenge, method = single(pairs, "code_challenge"), single(pairs, "code_challenge_method")
    if not challenge and not method:
        if app.public:
            raise AuthorizeError(
                "invalid_request", "an app without a secret has to use PKCE (code_challenge)"
            )
        return
    if method != "S256":
        raise AuthorizeError("invalid_request", "code_challenge_method is S256 and nothing else")
    if not _CHALLENGE.fullmatch(challenge):
        raise AuthorizeError("invalid_request", "code_challenge is no SHA-256 in base64url")


def _limits(pairs: Pairs, _: App) -> None:
    text = single(pairs, "max_age")
    if text and not _AGE.fullmatch(text):
        raise AuthorizeError("invalid_request", "max_age is a number of seconds")


def _bound_key(pairs: Pairs, _: App) -> None:
    jkt = single(pairs, "dpop_jkt")
    if jkt and not _CHALLENGE.fullmatch(jkt):
        raise AuthorizeError("invalid_request", "dpop_jkt is no SHA-256 in base64url")


_STEPS = (_each_once, _no_request_objects, _code_flow, _proof_key, _limits, _bound_key)


def scopes_of(text: str, known: frozenset[str]) -> tuple[str, ...]:
    """Those that are known; without the parameter, openid (Core section 3.1.2.1 has unknown ones ignored).

    Raises AuthorizeError where none is left.
    """
    found = tuple(dict.fromkeys(one for one in text.split() if one in known)) if text.strip() else ("openid",)
    if not found:
        raise AuthorizeError(
            "invalid_scope", f"none of these scopes is known here; there are {', '.join(sorted(known))}"
        )
    return found


def levels_of(text: str) -> tuple[Level, ...]:
    """Of ``acr_values`` those that are ours, the best first."""
    return tuple(Level(one) for one in text.split() if one in set(Level))


def postures_of(text: str) -> tuple[str, ...]:
    """Of ``acr_values`` those that ask for a posture, the best first."""
    return tuple(one for one in text.split() if one.startswith(POSTURE))


def resources_of(pairs: Iterable[tuple[str, str]], allowed: Iterable[str]) -> tuple[str, ...]:
    """What the tokens are to be for (RFC 8707), as it was registered. Raises AuthorizeError for what the app may not have them for."""
    known = {canonical(one): one for one in allowed}
    found: dict[str, None] = {}
    for name, value in pairs:
        if name != "resource":
            continue
        registered = known.get(canonical(value))
        if registered is None:
            raise AuthorizeError(
                "invalid_target", f"this app may have no tokens for {value[:200]}; see doorward apps show"
            )
        found[registered] = None
    return tuple(found)


def canonical(resource: str) -> str:
    """A resource in the one form that is compared: what RFC 3986 sections 6.2.2.1 and 6.2.3 have equal is equal.

    Programs write the root of a host with its slash and without, since their libraries do. Nothing else is changed: two paths that
    differ are two resources.
    """
    try:
        parts = urlsplit(resource)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return resource
    if parts.scheme not in _PORTS or not host or "@" in parts.netloc:
        return resource
    shown = f"[{host}]" if ":" in host else host
    place = shown if port in {None, _PORTS[parts.scheme]} else f"{shown}:{port}"
    # A "#" or "?" with nothing behind it would be lost here, and one with something makes another resource.
    if parts.path in {"", "/"} and resource.count("?") + resource.count("#") == 0:
        return f"{parts.scheme}://{place}"
    return urlunsplit(parts._replace(netloc=place)) if resource[-1] not in "?#" else resource


def with_answer(uri: str, answer: Iterable[tuple[str, str]]) -> str:
    """A redirect address with an answer added to its query, which stays as it was registered."""
    parts = urlsplit(uri)
    added = urlencode(list(answer))
    return urlunsplit(parts._replace(query=f"{parts.query}&{added}" if parts.query else added))
