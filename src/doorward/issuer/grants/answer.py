"""The answer of a person's grant: what the scopes and the policy make of it at this moment (RFC 6749 section 5.1)."""

from typing import Any

from doorward.issuer.access import access_token
from doorward.issuer.acting import may_act
from doorward.issuer.claims import Standing, grant_standing, granted, of_access_token, of_id_token, of_wanted
from doorward.issuer.desk import Desk
from doorward.issuer.dpop import Binding
from doorward.issuer.tokens import ACCESS, id_token
from doorward.model import App, AppGrant


def still_stands(desk: Desk, app: App, grant: AppGrant) -> Standing | None:
    """The person who gave it, as they stand with the app now; None where they may not use it any more."""
    return grant_standing(desk.registry.snapshot, app, grant, desk.now())


async def tokens_of(
    desk: Desk,
    app: App,
    grant: AppGrant,
    who: Standing,
    binding: Binding,
    *,
    scopes: tuple[str, ...],
    resources: tuple[str, ...],
    refresh: str = "",
) -> dict[str, Any]:
    """The tokens. ``scopes`` and ``resources`` are within the grant's."""
    ring, now = await desk.keys.ring(), desk.now()
    allowed = granted(scopes, who.entitlement)
    if resources:
        # A matter between the app and us, and nothing that a resource could look at. MCP clients that read it here ask for it from
        # then on, and with it that their person is asked each time.
        allowed = tuple(one for one in allowed if one != "offline_access")
    access = await access_token(
        desk,
        app,
        scopes=allowed,
        resources=resources,
        grant=grant,
        extra={**of_access_token(who, allowed), **await may_act(desk, who), **binding.claims},
    )
    answer: dict[str, Any] = {
        "access_token": access,
        "token_type": binding.token_type,
        "expires_in": int(ACCESS.total_seconds()),
        "scope": " ".join(allowed),
    }
    if "openid" in allowed:
        told = of_wanted(desk.registry.snapshot, who, grant, "id_token") | of_id_token(who)
        answer["id_token"] = id_token(ring, desk.issuer, app, grant, access, now, told)
    if refresh:
        answer["refresh_token"] = refresh
    return answer


def narrowed(wanted: tuple[str, ...], held: tuple[str, ...]) -> tuple[str, ...] | None:
    """What is asked for, where all of it is held; all that is held, where nothing is asked for; None for more than that."""
    if not wanted:
        return held
    return wanted if set(wanted) <= set(held) else None
