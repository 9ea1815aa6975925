"""``token-exchange``: an app that holds a person's token gets one for the next server (RFC 8693).

The token has to be for the app that shows it, or name it as one that may act (``may_act``), and good at this moment. What it may be exchanged for the policy says, of this person
and this app (``resources``); without a word there is nothing. The new token is for that one server, says in ``act`` through whose
hands it came, ends no later than the first one, and ends with the same grant. It has no more scopes, but for scopes of that server which the
policy names in the same entry.
"""

from typing import Any

from doorward.issuer.access import access_token
from doorward.issuer.acting import acts, may_act
from doorward.issuer.claims import Standing, device_of, granted, of_access_token, standing
from doorward.issuer.desk import Desk, one
from doorward.issuer.dpop import Binding
from doorward.issuer.errors import TokenError
from doorward.issuer.grants.answer import narrowed
from doorward.issuer.grants.id_jag import ID_JAG, vouch
from doorward.issuer.live import Live, live_token
from doorward.issuer.request import Pairs, canonical
from doorward.issuer.tokens import ACCESS, BadToken
from doorward.model import App, AppGrant

TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"  # noqa: S105 - a name
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - a name
KINDS = frozenset((ACCESS_TOKEN, "urn:ietf:params:oauth:token-type:jwt"))  # our access tokens are both
DEEPEST = 4  # actors of one token: more than any chain of servers that somebody meant to build
# About the app that a person signed in to, and of no use to a server behind it.
_NOT_PASSED_ON = frozenset(("openid", "offline_access"))


async def exchange(desk: Desk, app: App, pairs: Pairs, binding: Binding) -> dict[str, Any]:
    """The answer. Raises TokenError."""
    if app.public:
        raise TokenError("unauthorized_client", "an app without a secret or a key exchanges no tokens")
    if one(pairs, "requested_token_type") == ID_JAG:
        return await vouch(desk, app, pairs)
    if one(pairs, "requested_token_type") not in {"", *KINDS}:
        raise TokenError("invalid_request", f"requested_token_type is {ACCESS_TOKEN} or {ID_JAG}")
    live = await _read(desk, pairs, "subject")
    if live.grant is None or live.who is None:
        raise TokenError("invalid_request", "the subject_token is of an app itself, and of no person")
    own = {canonical(each) for each in (app.client_id, *app.resources)}
    if not own & set(map(canonical, live.access.audience)) and not acts(app, live):
        raise TokenError("invalid_request", "the subject_token is for somebody else than this app")
    await _check_actor(desk, app, pairs)
    act: dict[str, Any] = {"sub": app.client_id}
    if "act" in live.access.claims:
        act["act"] = live.access.claims["act"]
    if _depth(act) > DEEPEST:
        raise TokenError("invalid_request", f"the token came through {DEEPEST} hands already")
    return await _issue(
        desk, app, pairs, live, live.grant, {"act": act, **binding.claims}, binding.token_type
    )


async def _issue(
    desk: Desk, app: App, pairs: Pairs, live: Live, grant: AppGrant, extra: dict[str, Any], token_type: str
) -> dict[str, Any]:
    target, who = await _target(desk, app, pairs, grant)
    held = dict.fromkeys([*live.access.scopes, *await _handed(desk, who, target)])
    wanted = narrowed(tuple(one(pairs, "scope").split()), tuple(held))
    if wanted is None:
        raise TokenError(
            "invalid_scope", "an exchange gives the token's scopes, and what the policy says of that server"
        )
    scopes = tuple(each for each in granted(wanted, who.entitlement) if each not in _NOT_PASSED_ON)
    now = desk.now()
    token = await access_token(
        desk,
        app,
        scopes=scopes,
        resources=(target,),
        grant=grant,
        extra={**of_access_token(who, scopes), **await may_act(desk, who), **extra},
        last=live.access.expires,
    )
    await desk.note(who.user, app, "app.exchange", grant=grant.id, of=live.app.name, to=target)
    ends = min(live.access.expires, int(now.timestamp()) + int(ACCESS.total_seconds()))
    return {
        "access_token": token,
        "issued_token_type": ACCESS_TOKEN,
        "token_type": token_type,
        "expires_in": ends - int(now.timestamp()),
        "scope": " ".join(scopes),
    }


async def _read(desk: Desk, pairs: Pairs, role: str) -> Live:
    """A token of the form. What is wrong with it is invalid_request (RFC 8693 section 2.2.2)."""
    text, kind = one(pairs, f"{role}_token"), one(pairs, f"{role}_token_type")
    if not text or kind not in KINDS:
        raise TokenError(
            "invalid_request", f"{role}_token is missing, or {role}_token_type is not {ACCESS_TOKEN}"
        )
    try:
        return await live_token(desk, text)
    except BadToken as error:
        raise TokenError("invalid_request", f"{role}_token: {error.message}") from None


async def _check_actor(desk: Desk, app: App, pairs: Pairs) -> None:
    """The actor is the app itself, which has shown who it is; a token that says the same may come along."""
    if not one(pairs, "actor_token") and not one(pairs, "actor_token_type"):
        return
    live = await _read(desk, pairs, "actor")
    if live.grant is not None or live.app.id != app.id:
        raise TokenError("invalid_request", "the actor_token is not of this app itself")


async def _target(desk: Desk, app: App, pairs: Pairs, grant: AppGrant) -> tuple[str, Standing]:
    """What the new token is for, where the policy has it so."""
    named = {value for name, value in pairs if name in {"resource", "audience"}}
    if len(named) != 1:
        raise TokenError("invalid_target", "one resource or audience says for whom the token is to be")
    (target,) = named
    who = standing(desk.registry.snapshot, app, grant.user_id, device_of(grant))
    known = {} if who is None else {canonical(each): each for each in who.entitlement.resources}
    if who is None or canonical(target) not in known:
        user = desk.registry.snapshot.users.get(grant.user_id)
        await desk.note(user, app, "app.refuse", why="no exchange", to=target[:200], grant=grant.id)
        raise TokenError("invalid_target", "the policy lets this app have no token of this person for that")
    return known[canonical(target)], who


async def _handed(desk: Desk, who: Standing, target: str) -> list[str]:
    """What the token may allow there and the first one does not: scopes of that server, which the policy names beside it.

    The person was asked about the first server's scopes, and those mean nothing there.
    """
    named = who.entitlement.handed.get(target, frozenset())
    return sorted(named & await desk.scopes_there([target])) if named else []


def _depth(act: dict[str, Any]) -> int:
    """How many hands."""
    count, at = 0, act
    while at:
        count, at = count + 1, at.get("act", {})
    return count
