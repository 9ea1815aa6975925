"""Who may act for a person with a token that is for somebody else: ``may_act`` (RFC 8693 section 4.4).

The policy names one app, which has to be one of an administrator's; tokens carry its client id, so that whoever holds one sees who may
take it further. A token says what was so when it was made: the policy is asked again when somebody acts.
"""

from typing import Any

from doorward.issuer.claims import Standing
from doorward.issuer.desk import Desk
from doorward.issuer.live import Live
from doorward.model import App
from doorward.store import apps


async def may_act(desk: Desk, who: Standing) -> dict[str, Any]:
    """What an access token says of it, beside its other claims."""
    name = who.entitlement.may_act
    actor = await desk.database.read(apps.by_name, name) if name else None
    # Apps that come by themselves choose what they are called.
    return {} if actor is None or actor.brought is not None else {"may_act": {"sub": actor.client_id}}


def acts(app: App, live: Live) -> bool:
    """True for an app that may act with this token: the token says so, and so does the policy now."""
    said = live.access.claims.get("may_act")
    named = live.who is not None and live.who.entitlement.may_act == app.name
    return named and app.brought is None and said == {"sub": app.client_id}
