"""Whether an access token is good at this moment: by its signature, by what it came of, and by what the policy says now."""

from typing import NamedTuple

from doorward.issuer.access import read_access
from doorward.issuer.claims import Standing, device_of, grant_standing, standing
from doorward.issuer.desk import Desk
from doorward.issuer.nodes import MEMBER, vouches
from doorward.issuer.tokens import Access, BadToken
from doorward.model import App, AppGrant
from doorward.store import apps


class Live(NamedTuple):
    """A good access token, with what it stands on; without grant and person the app's own."""

    access: Access
    app: App  # whose token it is
    grant: AppGrant | None
    who: Standing | None

    @property
    def jkt(self) -> str:
        """The thumbprint of the key that it is bound to; empty for none (RFC 9449 section 6.1)."""
        return str(self.access.claims.get("cnf", {}).get("jkt", ""))

    @property
    def node(self) -> str:
        """The stable id of the node that it is bound to; empty for none."""
        return str(self.access.claims.get("cnf", {}).get(MEMBER, ""))


async def live_token(desk: Desk, token: str) -> Live:
    """A token that is good now. Raises BadToken."""
    await desk.registry.catch_up()
    access = await read_access(desk, token)
    app = await desk.app(access.client_id)
    if app is None:
        raise BadToken("its app is gone")
    bound = access.claims.get("cnf", {}).get(MEMBER)
    if bound is not None and not vouches(desk, bound):
        raise BadToken("the node that it is bound to is gone, or shut out")
    if not access.grant_id:
        return Live(access, app, None, None)
    grant = await desk.database.find(apps.grants_by_id, access.grant_id)
    if grant is None or grant.ended is not None:
        raise BadToken("it was revoked")
    snapshot = desk.registry.snapshot
    origin = app if grant.app_id == app.id else await desk.database.read(apps.by_id, grant.app_id)
    who = None if origin is None else grant_standing(snapshot, origin, grant, desk.now())
    if who is not None and "act" in access.claims:
        # It came by exchange: good while what was exchanged would be, and while the policy lets this app have it.
        who = standing(snapshot, app, grant.user_id, device_of(grant))
        if who is not None and not set(access.audience) <= who.entitlement.resources:
            who = None
    if who is None:
        raise BadToken("its person may not use the app any more")
    return Live(access, app, grant, who)
