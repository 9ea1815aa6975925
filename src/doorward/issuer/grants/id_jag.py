"""An ID-JAG, out: our word about a person, for an app to show to the authorization server of another organization.

::

    app ──▶ token exchange: an ID token or refresh token of its own, audience = that server ──▶ a signed word, for five minutes
    app ──▶ that server: grant jwt-bearer, with the word ──▶ its access token; nobody was asked or sent anywhere

Draft *Identity Assertion JWT Authorization Grant*, section 4; MCP calls it enterprise-managed authorization. For which servers and
resources an app may have a word about a person, and as whom it is known there, the policy says (``elsewhere``); without it there is nothing.
"""

from datetime import timedelta
from typing import Any

from doorward.issuer.claims import Standing, of_userinfo
from doorward.issuer.desk import Desk, one
from doorward.issuer.errors import TokenError
from doorward.issuer.grants.answer import still_stands
from doorward.issuer.request import Pairs, canonical
from doorward.issuer.tokens import ID_TYPE, BadToken, read, sign
from doorward.model import App, AppGrant
from doorward.policy.apps import Elsewhere
from doorward.store import apps
from doorward.tailnet import secrets

ID_JAG = "urn:ietf:params:oauth:token-type:id-jag"
PROFILE = "urn:ietf:params:oauth:grant-profile:id-jag"
KIND = "oauth-id-jag+jwt"
ID_TOKEN = "urn:ietf:params:oauth:token-type:id_token"  # noqa: S105 - a name
REFRESH_TOKEN = "urn:ietf:params:oauth:token-type:refresh_token"  # noqa: S105 - a name
LIFETIME = timedelta(minutes=5)
_MOST_SCOPES = 100


async def vouch(desk: Desk, app: App, pairs: Pairs) -> dict[str, Any]:
    """The answer. Raises TokenError."""
    if one(pairs, "actor_token") or one(pairs, "actor_token_type"):
        raise TokenError(
            "invalid_request", "an ID-JAG is about a person and their app, and nobody in between"
        )
    grant = await _subject(desk, app, pairs)
    who = still_stands(desk, app, grant)
    if who is None:
        raise TokenError("invalid_request", "subject_token: its person may not use the app any more")
    place = await _place(desk, app, pairs, who, grant)
    scopes = tuple(dict.fromkeys(one(pairs, "scope").split()))
    if len(scopes) > _MOST_SCOPES or (place.scopes is not None and not set(scopes) <= set(place.scopes)):
        raise TokenError(
            "invalid_scope", "the policy lets the app have no word for all of these scopes there"
        )
    token = await _sign(desk, app, grant, who, place, scopes or place.scopes or ())
    await desk.note(who.user, app, "app.vouch", grant=grant.id, to=place.issuer, resource=place.resource)
    return {
        "access_token": token,
        "issued_token_type": ID_JAG,
        "token_type": "N_A",
        "expires_in": int(LIFETIME.total_seconds()),
        **({"scope": " ".join(scopes or place.scopes or ())} if scopes or place.scopes else {}),
    }


async def _sign(
    desk: Desk, app: App, grant: AppGrant, who: Standing, place: Elsewhere, scopes: tuple[str, ...]
) -> str:
    ring, now = await desk.keys.ring(), int(desk.now().timestamp())
    claims: dict[str, Any] = {
        "iss": desk.issuer,
        "sub": ring.subject(who.user.id),
        "aud": place.issuer,
        "client_id": place.client_id or app.client_id,
        "jti": desk.random(),
        "iat": now,
        "exp": now + int(LIFETIME.total_seconds()),
        "auth_time": int(grant.auth_time.timestamp()),
        "acr": grant.acr,
        "amr": list(grant.amr),
    }
    if scopes:
        claims["scope"] = " ".join(scopes)
    if place.resource:
        claims["resource"] = place.resource
    # No more of the person than the app knows of them anyway.
    if address := of_userinfo(who, grant.scopes).get("email"):
        claims["email"] = address
    return sign(ring, app.algorithm, KIND, claims)


async def _subject(desk: Desk, app: App, pairs: Pairs) -> AppGrant:
    """What the person gave to the very app that asks. Raises TokenError with invalid_request (RFC 8693 section 2.2.2)."""
    text, kind = one(pairs, "subject_token"), one(pairs, "subject_token_type")
    if text and kind == ID_TOKEN:
        grant = await _by_id_token(desk, app, text)
    elif text and kind == REFRESH_TOKEN:
        grant = await _by_refresh_token(desk, text)
    else:
        raise TokenError(
            "invalid_request", f"subject_token is missing, or subject_token_type is not {ID_TOKEN}"
        )
    good = grant is not None and grant.app_id == app.id and grant.ended is None and grant.redeemed is not None
    if grant is None or not good or grant.expires <= desk.now():
        raise TokenError(
            "invalid_request", "subject_token: it is not good, not good any more, or of another app"
        )
    return grant


async def _by_id_token(desk: Desk, app: App, text: str) -> AppGrant | None:
    ring = await desk.keys.ring()
    try:
        said = read(ring, text, ID_TYPE)
    except BadToken as error:
        raise TokenError("invalid_request", f"subject_token: {error.message}") from None
    if said["iss"] != desk.issuer or said["aud"] != app.client_id or said["exp"] <= desk.now().timestamp():
        raise TokenError("invalid_request", "subject_token: it is over, or for another app")
    grant = await desk.database.read(apps.grant_of_session, app.id, said["sid"])
    return grant if grant is not None and ring.subject(grant.user_id) == said["sub"] else None


async def _by_refresh_token(desk: Desk, text: str) -> AppGrant | None:
    """It is looked at and not used up: it goes on giving tokens, and this is none that lasts."""
    found = await desk.database.read(apps.refresh_token, secrets.digest(text))
    if found is None or found.used is not None or found.expires <= desk.now():
        return None
    return await desk.database.read(apps.grant_by_id, found.grant_id)


async def _place(desk: Desk, app: App, pairs: Pairs, who: Standing, grant: AppGrant) -> Elsewhere:
    """Where the word is for, as the policy has it for this person and this app."""
    audience = one(pairs, "audience")
    resources = {value for name, value in pairs if name == "resource"}
    if not audience or len(resources) > 1:
        raise TokenError("invalid_target", "audience is the other server's issuer, with one resource at most")
    resource = next(iter(resources), "")
    for each in who.entitlement.elsewhere:
        if each.issuer == audience and canonical(each.resource) == canonical(resource):
            return each
    await desk.note(who.user, app, "app.refuse", why="no word", to=audience[:200], grant=grant.id)
    raise TokenError("invalid_target", "the policy lets this app have no word about this person for that")
