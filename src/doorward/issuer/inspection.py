"""What a token says and that it is over: userinfo (Core section 5.3), introspection (RFC 7662), revocation (RFC 7009).

An access token is signed, and yet it is good only while the grant that it came of is, and its person stands as they stood: these
three look at the tailnet of now. An app learns of its own tokens, and of those that are for a resource of its own.
"""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from doorward.asgi import json_answer
from doorward.issuer.access import read_access
from doorward.issuer.claims import of_device, of_userinfo, of_wanted
from doorward.issuer.clients import Clients
from doorward.issuer.desk import FORM, Desk, one, opened, read_pairs
from doorward.issuer.dpop import HEADER, Proofs
from doorward.issuer.errors import TokenError, bad_token
from doorward.issuer.grants.authorization_code import end
from doorward.issuer.live import Live, live_token
from doorward.issuer.metadata import describe_userinfo
from doorward.issuer.nodes import node_of
from doorward.issuer.request import canonical
from doorward.issuer.tokens import BadToken
from doorward.login.proofs import PROOF_ALGORITHMS
from doorward.model import App, AppGrant
from doorward.store import apps
from doorward.tailnet import secrets

DESCRIBED = "/.well-known/oauth-protected-resource/userinfo"
_DPOP_CHALLENGE = f'DPoP realm="doorward", algs="{" ".join(PROOF_ALGORITHMS)}"'  # RFC 9449 section 7.1


class Inspection:
    """The three endpoints, and what the first says of itself.

    Args:
        desk: the issuer's.
        clients: how apps show who they are.
        proofs: of the keys that tokens are bound to.
    """

    def __init__(self, desk: Desk, clients: Clients, proofs: Proofs) -> None:
        self._desk = desk
        self._clients = clients
        self._proofs = proofs

    # Userinfo -------------------------------------------------------------------------------------------------------

    async def userinfo(self, request: Request) -> Response:
        """``GET`` and ``POST /userinfo``."""
        try:
            return await self._userinfo(request)
        except TokenError as error:
            if (
                error.challenge
            ):  # it says where to read what a token for this has to be (RFC 9728 section 5.1)
                door = self._desk.askings.doors.main
                described = f"{door.origin}{DESCRIBED.replace('/userinfo', f'{door.path}/userinfo')}"
                error.challenge += f', resource_metadata="{described}"'
            raise

    async def described(self, request: Request) -> Response:
        """Of userinfo, as a resource."""
        self._desk.require_door(request)
        return opened(json_answer(describe_userinfo(self._desk.issuer)))

    async def _userinfo(self, request: Request) -> Response:
        self._desk.require_door(request)
        token, scheme = await _presented(request)
        try:
            live = await live_token(self._desk, token)
        except BadToken as error:
            raise bad_token(error.message, scheme=scheme) from None
        await self._check_holder(request, live, token, scheme)
        if live.who is None or "openid" not in live.access.scopes:
            raise TokenError(
                "insufficient_scope",
                "the token is for no person, or not for who they are",
                status=403,
                challenge='Bearer realm="doorward", error="insufficient_scope", scope="openid"',
            )
        scopes, node_id = live.access.scopes, None if live.grant is None else live.grant.node_id
        # What one app has asked for by name another does not get that has exchanged its token.
        own = live.grant is not None and live.grant.app_id == live.app.id
        snapshot = self._desk.registry.snapshot
        told = {
            **(of_wanted(snapshot, live.who, live.grant, "userinfo") if own and live.grant else {}),
            "sub": live.access.subject,
            **of_userinfo(live.who, scopes),
            **of_device(snapshot, node_id, scopes),
        }
        response = opened(json_answer(told))
        if live.app.dpop:
            response.headers[HEADER] = self._proofs.nonce()
        return response

    async def _check_holder(self, request: Request, live: Live, token: str, scheme: str) -> None:
        """Whether who shows a token is who it was made for (RFC 9449 section 7). Raises TokenError."""
        if live.node:
            node = await node_of(self._desk, request)
            if node is None or node.stable_id != live.node:
                raise bad_token("it is bound to another node", scheme=scheme)
        if not live.jkt:
            if scheme == "DPoP":
                raise bad_token("it is bound to no key", scheme="DPoP")
            return
        if scheme != "DPoP":  # who took it from somebody would show it so (section 7.2)
            raise bad_token("it is bound to a key, and is shown with a proof of it", scheme="DPoP")
        try:
            binding = await self._proofs.binding(request, needed=live.app.dpop, token=token)
        except TokenError as error:
            challenge = f'{_DPOP_CHALLENGE}, error="{error.code}", error_description="{error.description}"'
            raise TokenError(
                error.code, error.message, status=401, challenge=challenge, headers=error.headers
            ) from None
        if binding.jkt != live.jkt:
            raise bad_token("it is bound to another key", scheme="DPoP")

    async def _asked(self, request: Request) -> tuple[App, str]:
        """Who asks about which token."""
        self._desk.require_door(request)
        pairs = await read_pairs(request)
        app = await self._clients.authenticate(request, pairs)
        token = one(pairs, "token")
        if not token:
            raise TokenError("invalid_request", "the parameter token is missing")
        return app, token

    # Introspection --------------------------------------------------------------------------------------------------

    async def introspect(self, request: Request) -> Response:
        """``POST /introspect``."""
        app, token = await self._asked(request)
        if app.public:
            raise TokenError("invalid_client", "only an app with a secret may ask about tokens", status=401)
        return opened(json_answer(await self._said(app, token)))

    async def _said(self, app: App, token: str) -> dict[str, Any]:
        try:
            live = await live_token(self._desk, token)
        except BadToken:
            return {"active": False}
        own = set(map(canonical, app.resources)) & set(map(canonical, live.access.audience))
        if app.client_id != live.access.client_id and not own:
            return {"active": False}
        said: dict[str, Any] = {
            **live.access.claims,
            "active": True,
            "token_type": "DPoP" if live.jkt else "Bearer",
        }
        return said if live.who is None else said | {"username": live.who.user.name}

    # Revocation -----------------------------------------------------------------------------------------------------

    async def revoke(self, request: Request) -> Response:
        """``POST /revoke``: of either kind of token, and with it all that came of the same grant. Unknown ones are no error."""
        app, token = await self._asked(request)
        grant = await self._grant_of(token)
        if grant is not None and grant.app_id == app.id:
            await self._desk.database.run(
                end, app, grant, "app.revoke", "the app gave it back", self._desk.now(), tell=False
            )
        return opened(Response(status_code=200, headers={"Cache-Control": "no-store"}))

    async def _grant_of(self, token: str) -> AppGrant | None:
        desk = self._desk
        known = await desk.database.read(apps.refresh_token, secrets.digest(token))
        if known is not None:
            return await desk.database.read(apps.grant_by_id, known.grant_id)
        try:
            access = await read_access(desk, token)
        except BadToken:
            return None
        if not access.grant_id:
            raise TokenError("unsupported_token_type", "an app's own tokens end by themselves")
        return await desk.database.read(apps.grant_by_id, access.grant_id)


async def _presented(request: Request) -> tuple[str, str]:
    """The access token of a request, and by which scheme it came (RFC 6750 section 2). Raises TokenError for none, or two."""
    header = request.headers.get("authorization", "")
    said, _, text = header.partition(" ")
    scheme = "DPoP" if said.lower() == "dpop" else "Bearer"
    found = [text.strip()] if said.lower() in {"bearer", "dpop"} and text.strip() else []
    is_form = request.headers.get("content-type", "").partition(";")[0].strip().lower() == FORM
    if request.method == "POST" and is_form and (posted := one(await read_pairs(request), "access_token")):
        found.append(posted)
    if len(found) > 1:
        raise TokenError("invalid_request", "the access token is given in two ways")
    if not found:
        raise TokenError(
            "invalid_token", "no access token came with this", status=401, challenge='Bearer realm="doorward"'
        )
    return found[0], scheme
