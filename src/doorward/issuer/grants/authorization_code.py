"""``authorization_code``: a code becomes tokens, once (RFC 6749 section 4.1.3, RFC 7636 section 4.6).

Everything is looked at before the code is used up, so that who stole a code but has neither the app's secret nor the verifier
cannot even spoil it. Using it up, the refresh token and the line in the audit log are one transaction: killed in between, it has
not happened; killed after, the code is spent. A second redemption by the same app ends all that came of the first.
"""

import hashlib
import hmac
import re
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import msgspec

from doorward.issuer.desk import REFRESH, Desk, one
from doorward.issuer.dpop import UNBOUND, Binding
from doorward.issuer.errors import AuthorizeError, TokenError
from doorward.issuer.grants.answer import narrowed, still_stands, tokens_of
from doorward.issuer.request import Pairs, resources_of
from doorward.model import App, AppGrant, RefreshToken
from doorward.store import Connection, apps, audit
from doorward.tailnet import secrets
from doorward.telemetry import ORIGIN, Origin

REFRESH_IDLE = timedelta(days=30)
_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")  # RFC 7636 section 4.1


async def redeem(desk: Desk, app: App, pairs: Pairs, binding: Binding) -> dict[str, Any]:
    """The answer. Raises TokenError."""
    code = one(pairs, "code")
    if not code:
        raise TokenError("invalid_request", "the parameter code is missing")
    grant = await desk.database.find(apps.grants_by_code, secrets.digest(code))
    if grant is None or grant.app_id != app.id:
        raise _bad_code()
    if one(pairs, "redirect_uri") != grant.redirect_uri:
        raise TokenError("invalid_grant", "redirect_uri is another than the code was sent to")
    _check_verifier(grant, one(pairs, "code_verifier"))
    if app.binds and app.public and binding.node != _given_on(desk, grant):
        # Whoever has only seen it on its way asks from somewhere else.
        await desk.note(None, app, "app.refuse", why="another node", grant=grant.id, node=binding.node)
        raise TokenError("invalid_grant", "the code is redeemed on the device that it was given on")
    if grant.jkt and grant.jkt != binding.jkt:
        await desk.note(None, app, "app.refuse", why="another key", grant=grant.id)
        raise TokenError(
            "invalid_grant", "the code is bound to a key (dpop_jkt), and no proof of it came along"
        )
    try:
        resources = narrowed(resources_of(pairs, desk.resources(app)), grant.resources)
    except AuthorizeError as error:
        raise TokenError(error.code, error.message) from None
    if resources is None:
        raise TokenError("invalid_target", "the code is not for this resource")
    who = still_stands(desk, app, grant)
    if who is None:
        await desk.database.run(end, app, grant, "app.end", "no longer allowed", desk.now())
        raise TokenError("invalid_grant", "this person may not use this app any more")
    refresh = desk.secret(REFRESH) if "offline_access" in grant.scopes else None
    redemption = Redemption(app, grant.id, refresh, desk.now(), ORIGIN.get(), binding.of_refresh(app))
    good = await desk.database.share(redeem_all, redemption)
    if not good:
        raise _bad_code()
    return await tokens_of(
        desk,
        app,
        grant,
        who,
        binding,
        scopes=grant.scopes,
        resources=resources,
        refresh="" if refresh is None else refresh.text,
    )


def _given_on(desk: Desk, grant: AppGrant) -> str | None:
    node = None if grant.node_id is None else desk.registry.snapshot.nodes.get(grant.node_id)
    return None if node is None else node.stable_id


def _check_verifier(grant: AppGrant, verifier: str) -> None:
    if not grant.challenge:
        if verifier:  # somebody took the challenge out on the way (RFC 9700 section 4.8.2)
            raise TokenError("invalid_grant", "there is a code_verifier, and there was no code_challenge")
        return
    digest = urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    if not _VERIFIER.fullmatch(verifier) or not hmac.compare_digest(digest, grant.challenge):
        raise TokenError(
            "invalid_grant", "code_verifier is missing, or is not what code_challenge was made of"
        )


def _bad_code() -> TokenError:
    return TokenError("invalid_grant", "the code is unknown, was used, or is over")


class Redemption(NamedTuple):
    """A code that is to be used up, and the refresh token that comes of it, if any."""

    app: App
    grant_id: int
    refresh: secrets.Secret | None
    now: datetime
    origin: Origin | None = None
    bound: Binding = UNBOUND  # what the refresh token is bound to


def redeem_all(connection: Connection, asked: Sequence[Redemption]) -> list[bool]:
    """Use codes up, or, where one was used before, end what came of it. It returns what it did: raising would undo it."""
    now = max(ask.now for ask in asked)
    known = apps.grants_by_id(connection, [ask.grant_id for ask in asked])
    fresh = apps.redeem_all(connection, list(known), now)
    outcomes: list[bool] = []
    kept: list[tuple[AppGrant, secrets.Secret, Binding]] = []
    for ask in asked:
        grant = known.get(ask.grant_id)
        good = ask.grant_id in fresh
        outcomes.append(good)
        if grant is None:
            continue
        if good:
            fresh.discard(ask.grant_id)  # for the first of those who bring it
            known[ask.grant_id] = grant = msgspec.structs.replace(grant, redeemed=now)
            if ask.refresh is not None:
                kept.append((grant, ask.refresh, ask.bound))
        elif grant.redeemed is not None:
            end(connection, ask.app, grant, "app.replay", "a code was used twice", now, ask.origin)
    keep_refresh_tokens(connection, kept, now)
    return outcomes


def keep_refresh_tokens(
    connection: Connection, made: Iterable[tuple[AppGrant, secrets.Secret, Binding]], now: datetime
) -> None:
    """Store refresh tokens of grants, each with what it is bound to."""
    drafts = [
        RefreshToken(
            id=0,
            grant_id=grant.id,
            secret_hash=secret.digest,
            created=now,
            expires=min(now + REFRESH_IDLE, grant.expires),
            jkt=bound.jkt,
            node=bound.node,
        )
        for grant, secret, bound in made
    ]
    apps.insert_refresh_tokens(connection, drafts)


def keep_refresh_token(
    connection: Connection,
    app: App,
    grant: AppGrant,
    secret: secrets.Secret,
    binding: Binding,
    now: datetime,
) -> None:
    """Store a refresh token of a grant."""
    keep_refresh_tokens(connection, [(grant, secret, binding.of_refresh(app))], now)


def end(
    connection: Connection,
    app: App,
    grant: AppGrant,
    action: str,
    why: str,
    now: datetime,
    origin: Origin | None = None,
    *,
    tell: bool = True,
) -> None:
    """End a grant, and note why; nothing where it had ended.

    ``origin``: of whose request, in a unit that several share. ``tell``: the app, where it listens, but for its own doing.
    """
    if apps.end_grants(connection, now, grant_id=grant.id, tell=tell):
        details = {"grant": grant.id, "user": grant.user_id, "why": why}
        entry = audit.Entry(f"app:{app.name}", action, f"app:{app.name}", details, now, origin)
        audit.append_all(connection, [entry])
