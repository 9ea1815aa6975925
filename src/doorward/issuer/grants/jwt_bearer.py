"""``jwt-bearer``: another organization's word about a person becomes a token for a resource here (RFC 7523, ID-JAG section 5).

::

    app ──▶ the provider where the person signed in: an ID-JAG for this issuer ──▶ app ──▶ here, with its own secret or key ──▶ token

The word has to be signed by a provider at which people sign in here, for us alone, for the very app that shows it, and is good once.
Whom it is about only the provider's own number of them says, as at the sign-in page: never an address. And the policy has to let this
app bring that provider's word about that person (``assertions``). There is no refresh token: the app asks the provider again.
"""

from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from doorward.errors import Conflict, DoorwardError
from doorward.issuer.claims import Standing, standing
from doorward.issuer.decision import Level
from doorward.issuer.desk import Desk, one
from doorward.issuer.dpop import Binding
from doorward.issuer.errors import AuthorizeError, TokenError
from doorward.issuer.grants.answer import tokens_of
from doorward.issuer.grants.id_jag import KIND
from doorward.issuer.request import Pairs, canonical, resources_of
from doorward.issuer.tokens import ACCESS, BadToken, Parts, split
from doorward.login.idtoken import ALGORITHMS, candidates, verifies
from doorward.model import App, AppGrant, Provider
from doorward.store import Connection, apps, audit, signin
from doorward.tailnet import secrets

JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
WINDOW = 600  # seconds that a word may be good; the draft has five minutes
LEEWAY = 60  # seconds between the provider's clock and ours
_LATEST = 2**36  # seconds since 1970 that are a time
_LONGEST = 255  # characters of a subject and of a number


class _Word(NamedTuple):
    """A word that is right in itself."""

    provider: Provider
    subject: str
    number: str  # its jti
    until: float
    shown: datetime  # when the person last showed the provider who they are
    scopes: tuple[str, ...]
    resources: tuple[str, ...]


async def accept(desk: Desk, app: App, pairs: Pairs, binding: Binding) -> dict[str, Any]:
    """The answer. Raises TokenError."""
    if app.public:
        raise TokenError("unauthorized_client", "an app without a secret or a key brings nobody's word")
    try:
        parts = split(one(pairs, "assertion"))
    except BadToken:
        raise _bad("it is no signed token") from None
    word = await _read(desk, app, parts)
    who = await _person(desk, app, word)
    resources = _resources(app, pairs, word)
    scopes = await _scopes(desk, app, pairs, word, resources)
    grant = await _keep(desk, app, word, who, scopes, resources)
    answer = await tokens_of(desk, app, grant, who, binding, scopes=scopes, resources=resources)
    answer.pop("id_token", None)
    return answer


async def _read(desk: Desk, app: App, parts: Parts) -> _Word:
    """What the word says, all of it checked but whom it is about. Raises TokenError with invalid_grant."""
    kind, issuer = parts.header.get("typ"), parts.claims.get("iss")
    if not isinstance(kind, str) or kind.lower() != KIND:
        raise _bad(f"it is no ID-JAG (typ); expected {KIND}")
    provider = next((each for each in await desk.registry.outside.providers() if each.issuer == issuer), None)
    if provider is None:
        raise _bad("it is of nobody whose word counts here (iss)")
    await _check_signature(desk, provider, parts)
    claims = parts.claims
    if claims.get("aud") not in (desk.issuer, [desk.issuer]):  # for us and for nobody else
        raise _bad(f"it is for {desk.issuer} and nobody else (aud)")
    if claims.get("client_id") != app.client_id:
        raise _bad("it is for another app (client_id)")
    now = desk.now().timestamp()
    made, ends, begins = (_moment(claims, name) for name in ("iat", "exp", "nbf"))
    if made is None or ends is None:
        raise _bad("it does not say when it was made and how long it is good (iat, exp)")
    if max(made, begins or 0) > now + LEEWAY:
        raise _bad("it is from the future (iat, nbf)")
    until = min(ends, made + WINDOW) + LEEWAY
    if until <= now:
        raise _bad("it is over (exp)")
    shown = _moment(claims, "auth_time")
    return _Word(
        provider,
        _text(claims, "sub"),
        _text(claims, "jti"),
        until,
        datetime.fromtimestamp(min(made if shown is None else shown, now), UTC),
        _scopes_said(claims),
        _resources_said(claims),
    )


async def _check_signature(desk: Desk, provider: Provider, parts: Parts) -> None:
    algorithm, kid = parts.header.get("alg"), parts.header.get("kid")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS or "crit" in parts.header:
        raise _bad(f"it is signed with one of {', '.join(ALGORITHMS)}, and nothing in it is critical")
    try:
        found = candidates(await desk.provider_keys(provider, False), algorithm, kid)
        if not found:
            found = candidates(await desk.provider_keys(provider, True), algorithm, kid)
    except DoorwardError as error:
        raise TokenError("temporarily_unavailable", error.message, status=503) from None
    if not any(verifies(algorithm, parts.signed, parts.signature, key.key) for key in found):
        raise _bad(f"no key of {provider.name} has signed it")


async def _person(desk: Desk, app: App, word: _Word) -> Standing:
    """Whom it is about, where the policy takes this provider's word for them from this app."""
    identity = await desk.database.read(signin.identity, word.provider.id, word.subject)
    if identity is None:
        raise _bad(f"it is about somebody who never signed in here by {word.provider.name} (sub)")
    who = standing(desk.registry.snapshot, app, identity.user_id, None)
    if who is None or word.provider.name not in who.entitlement.assertions:
        user = desk.registry.snapshot.users.get(identity.user_id)
        await desk.note(user, app, "app.refuse", why="no word", of=word.provider.name)
        raise _bad(
            f"the policy does not take the word of {word.provider.name} about this person from this app"
        )
    return who


def _resources(app: App, pairs: Pairs, word: _Word) -> tuple[str, ...]:
    """For which resources of the app the token is to be: those of the word, or of them those that are asked for."""
    try:
        asked = resources_of(pairs, app.resources)
    except AuthorizeError as error:
        raise TokenError(error.code, error.message) from None
    own = {canonical(each): each for each in app.resources}
    said = tuple(own[canonical(each)] for each in word.resources if canonical(each) in own)
    if len(said) < len(word.resources):
        raise _bad("it is for a resource that is none of this app's (resource)")
    if word.resources and not set(map(canonical, asked)) <= set(map(canonical, said)):
        raise TokenError("invalid_target", "the word is not for this resource")
    return asked or said


async def _scopes(
    desk: Desk, app: App, pairs: Pairs, word: _Word, resources: tuple[str, ...]
) -> tuple[str, ...]:
    """What the word and the request have both, of what there is for these resources."""
    asked = tuple(dict.fromkeys(one(pairs, "scope").split()))
    known = await desk.scopes_known(app, [("resource", each) for each in resources])
    # A person who is not here signs in nowhere, and the app does not stay signed in for them.
    known -= {"openid", "offline_access"}
    found = tuple(each for each in asked or word.scopes if each in word.scopes and each in known)
    if asked and not found:
        raise TokenError("invalid_scope", "the word allows none of these scopes, or they are not known here")
    return found


async def _keep(
    desk: Desk,
    app: App,
    word: _Word,
    who: Standing,
    scopes: tuple[str, ...],
    resources: tuple[str, ...],
) -> AppGrant:
    """Use the word up, and note what the app was given by it: one transaction."""
    now = desk.now()
    draft = AppGrant(
        id=0,
        app_id=app.id,
        user_id=who.user.id,
        node_id=None,
        sid=desk.random(15),
        code_hash=secrets.digest(desk.random()),  # of no code
        redirect_uri="",
        challenge="",
        nonce="",
        scopes=scopes,
        resources=resources,
        auth_time=word.shown,
        acr=Level.SESSION.value,
        amr=("provider",),
        created=now,
        code_expires=now,
        expires=now + ACCESS,
        redeemed=now,
    )
    try:
        return await desk.database.run(_store, app, word, who.user.name, draft)
    except Conflict:
        raise _bad("it was shown before (jti)") from None


def _store(connection: Connection, app: App, word: _Word, person: str, draft: AppGrant) -> AppGrant:
    digest = secrets.digest(f"id-jag {word.provider.id} {word.number}")
    until = datetime.fromtimestamp(word.until, UTC) + timedelta(seconds=1)
    apps.use_once(connection, digest, draft.created, until)
    grant = apps.insert_grant(connection, draft)
    details = {
        "grant": grant.id,
        "by": f"provider:{word.provider.name}",
        "scopes": list(draft.scopes),
        "resources": list(draft.resources),
    }
    audit.append(connection, f"user:{person}", "app.assertion", f"app:{app.name}", details, draft.created)
    return grant


# What it says ------------------------------------------------------------------------------------------------------


def _moment(claims: dict[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _LATEST:
        raise _bad(f"{name} is no time")
    return value


def _text(claims: dict[str, Any], name: str) -> str:
    value = claims.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= _LONGEST or not value.isprintable():
        raise _bad(f"{name} is a text of {_LONGEST} characters at most")
    return value


def _scopes_said(claims: dict[str, Any]) -> tuple[str, ...]:
    value = claims.get("scope", "")
    if not isinstance(value, str):
        raise _bad("scope is no text")
    return tuple(dict.fromkeys(value.split()))


def _resources_said(claims: dict[str, Any]) -> tuple[str, ...]:
    value = claims.get("resource", [])
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list) or not all(isinstance(each, str) for each in listed):
        raise _bad("resource is no address")
    return tuple(dict.fromkeys(listed))


def _bad(why: str) -> TokenError:
    return TokenError("invalid_grant", f"assertion: {why}")
