"""``/me``: a person's own devices, apps, passkeys and browsers, and how to be rid of each.

To read it the connection from one's own device is enough. To end a session of one's own, or what an app was given, takes a session; to change what one signs
in with takes a proof made for it.
"""

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from doorward.asgi import RateLimit
from doorward.clock import Clock
from doorward.errors import Conflict, NotFound, NotPermitted, Unauthenticated
from doorward.login import pages
from doorward.login.asking import ADD, Askings, Proven, Question, as_page, go_on
from doorward.login.doors import asker
from doorward.login.entrance import CODES
from doorward.login.pages import Door
from doorward.login.sessions import SignedIn
from doorward.model import ApiToken, App, Passkey, Role, Session, User
from doorward.store import Connection, apps, audit, keys, signin
from doorward.tailnet.snapshot import Snapshot

FORGET = "passkey.delete"  # the act of forgetting a passkey
TOKEN = "token"  # noqa: S105 - the act of making a token of the API, and none itself
_TOKEN_LIFETIME = timedelta(days=90)
_DESCRIPTION = 100  # characters
_NUMBER = re.compile(r"[0-9]{1,18}")


class Me:
    """The pages.

    Args:
        askings: the flow that changes begin.
        clock: for rate limits.
        makes_tokens: whether a role may make tokens of the API: the table of roles says so.
    """

    def __init__(self, askings: Askings, clock: Clock, makes_tokens: Callable[[Role], bool]) -> None:
        self._askings = askings
        self._registry = askings.registry
        self._makes_tokens = makes_tokens
        self._looks = RateLimit(rate=5.0, burst=60.0, clock=clock)
        askings.acts |= {FORGET: self._forget, TOKEN: self._make_token}

    def routes(self) -> list[Route]:
        """Where they are."""
        table = (
            ("/me", self._show, "GET"),
            ("/me/passkeys", self._ask_to_add, "POST"),
            ("/me/passkeys/{number}/delete", self._ask_to_forget, "POST"),
            ("/me/codes", self._ask_for_codes, "POST"),
            ("/me/sessions/{number}/end", self._end, "POST"),
            ("/me/tokens", self._ask_for_token, "POST"),
            ("/me/tokens/{number}/revoke", self._revoke_token, "POST"),
            ("/me/apps/{number}/end", self._leave, "POST"),
            ("/me/consents/{number}/delete", self._take_back, "POST"),
        )
        return [
            Route(path, as_page(self._registry, endpoint), methods=[method])
            for path, endpoint, method in table
        ]

    async def _show(self, request: Request) -> Response:
        self._askings.doors.require(request)
        self._looks.take(asker(request))
        visitor = await self._askings.sessions.visitor(request)
        user = visitor.user
        if user is None:
            return go_on("/signin?next=/me")
        snapshot, now = self._registry.snapshot, self._registry.writer.now()
        found = await self._registry.writer.database.read(_of, user.id, now)
        session = None if visitor.signed_in is None else visitor.signed_in.session
        names = {one.id: one.name for one in found["providers"]}
        return pages.page(
            "me.html",
            tailnet=snapshot.settings.display_name or snapshot.settings.domain,
            door=Door.OPEN,
            label="inside",
            before=pages.person_side(
                user.name, user.id, "on " + visitor.node.name if visitor.node else "you"
            ),
            behind=pages.tailnet_side(snapshot.settings.display_name or snapshot.settings.domain),
            arch=pages.arch(user.name, user.id),
            user=user,
            here=visitor.node,
            session=session,
            known="" if session is None else _method(session.method),
            proven="" if session is None else pages.ago(session.proven, now),
            url=snapshot.settings.url,
            devices=sorted(
                (
                    one
                    for one in snapshot.nodes.values()
                    if one.user_id == user.id and not one.tags and one.tab is None
                ),
                key=lambda one: one.name,
            ),
            passkeys=[
                {
                    "id": one.id,
                    "name": one.name,
                    "place": one.place,
                    "used": one.used,
                    "ago": pages.ago(one.used or one.created, now),
                }
                for one in found["passkeys"]
            ],
            identities=[
                {"provider": names.get(one.provider_id, "?"), "email": one.email or one.subject}
                for one in found["identities"]
            ],
            apps=[_app(one, found, snapshot, now) for one in found["apps"]],
            codes=found["codes"],
            may_make_tokens=self._makes_tokens(user.role),
            tokens=[
                {
                    "id": one.id,
                    "prefix": one.prefix,
                    "description": one.description,
                    "left": ""
                    if one.expires is None
                    else pages.duration((one.expires - now).total_seconds()),
                }
                for one in found["tokens"]
            ],
            sessions=[
                {
                    "id": one.id,
                    "where": _browser(one.agent),
                    "address": one.address,
                    "ago": pages.ago(one.seen, now),
                    "this": session is not None and one.id == session.id,
                }
                for one in found["sessions"]
            ],
            error=None,
        )

    async def _signed_in(self, request: Request) -> SignedIn:
        """Who posts a form of this page. Raises Unauthenticated where nobody has signed in."""
        return (await self._posted(request))[0]

    async def _posted(self, request: Request) -> tuple[SignedIn, dict[str, str]]:
        self._askings.doors.require(request)
        form = await self._askings.form(request)
        found = await self._askings.sessions.of(request)
        if found is None:
            raise Unauthenticated("nobody is signed in in this browser", cure="Sign in, then try again.")
        return found, form

    async def _ask_for_token(self, request: Request) -> Response:
        found, form = await self._posted(request)
        if found.user.role is Role.MEMBER:
            raise NotPermitted(
                "the role member makes no tokens", cure="Ask an administrator for another role."
            )
        words = "".join(one for one in form.get("description", "") if one.isprintable()).strip()[
            :_DESCRIPTION
        ]
        question = Question(
            "Is it you?", "Before a token is made, which can do at the API what you can, show who you are."
        )
        return await self._askings.begin(request, TOKEN, {"description": words}, question, user=found.user)

    def _check_role(self, user: User) -> None:
        if not self._makes_tokens(user.role):
            raise NotPermitted(f"the role {user.role} makes no tokens", cure="Ask an owner or administrator.")

    async def _make_token(self, request: Request, proven: Proven, argument: Any) -> Response:
        del request
        user = proven.user
        if user.role is Role.MEMBER:
            raise NotPermitted(
                "the role member makes no tokens", cure="Ask an administrator for another role."
            )
        token, text = await self._registry.create_api_token(
            f"user:{user.name}",
            description=str(argument["description"]),
            role=user.role,
            expires_in=_TOKEN_LIFETIME,
            owner=user,
        )
        settings = self._registry.snapshot.settings
        tailnet = settings.display_name or settings.domain
        return pages.page(
            "token.html",
            tailnet=tailnet,
            door=Door.OPEN,
            label="inside",
            before=pages.person_side(user.name, user.id, "made it"),
            behind=pages.tailnet_side(tailnet),
            user=user,
            token=token,
            text=text,
            days=_TOKEN_LIFETIME.days,
        )

    async def _revoke_token(self, request: Request) -> Response:
        user, number = (await self._signed_in(request)).user, _number(request)
        theirs = await self._registry.writer.database.read(_tokens_of, user.id, self._registry.writer.now())
        if number not in {one.id for one in theirs}:
            raise NotFound("you have no such token", cure="Load the page again.")
        await self._registry.revoke_api_token(f"user:{user.name}", number)
        return go_on("/me")

    async def _ask_to_add(self, request: Request) -> Response:
        user = (await self._signed_in(request)).user
        question = Question("Is it you?", "Before another passkey is made, show who you are.")
        return await self._askings.begin(request, ADD, {}, question, user=user)

    async def _ask_for_codes(self, request: Request) -> Response:
        user = (await self._signed_in(request)).user
        question = Question("Is it you?", "Before new recovery codes are shown, show who you are.")
        return await self._askings.begin(request, CODES, {}, question, user=user)

    async def _ask_to_forget(self, request: Request) -> Response:
        user = (await self._signed_in(request)).user
        number = _number(request)
        theirs = await self._registry.writer.database.read(signin.passkeys_of, user.id)
        passkey = next((one for one in theirs if one.id == number), None)
        if passkey is None:
            raise NotFound("you have no such passkey", cure="Load the page again.")
        question = Question(
            f"Forget the passkey {passkey.name}?",
            "It no longer signs in. Show who you are, with this or another one.",
        )
        return await self._askings.begin(request, FORGET, {"id": number}, question, user=user)

    async def _forget(self, request: Request, proven: Proven, argument: Any) -> Response:
        del request
        now = self._registry.writer.now()
        await self._registry.writer.database.run(_forget_passkey, proven.user, int(argument["id"]), now)
        return go_on("/me")

    async def _end(self, request: Request) -> Response:
        found = await self._signed_in(request)
        await self._registry.writer.database.run(
            _end_own, found.user, _number(request), self._registry.writer.now()
        )
        return go_on("/me")

    async def _leave(self, request: Request) -> Response:
        found = await self._signed_in(request)
        await self._registry.writer.database.run(
            _leave_app, found.user, _number(request), self._registry.writer.now()
        )
        return go_on("/me")

    async def _take_back(self, request: Request) -> Response:
        found = await self._signed_in(request)
        await self._registry.writer.database.run(
            _forget_yes, found.user, _number(request), self._registry.writer.now()
        )
        return go_on("/me")


def _number(request: Request) -> int:
    text = request.path_params["number"]
    if not _NUMBER.fullmatch(text):
        raise NotFound("there is no such thing")
    return int(text)


def _method(method: str) -> str:
    """How somebody signed in, in words."""
    kind, _, name = method.partition(":")
    return {"passkey": "by a passkey", "recovery": "by a recovery code", "link": "by a one-time link"}.get(
        kind, f"by {name}"
    )


_BROWSERS = (("Edg/", "Edge"), ("Firefox/", "Firefox"), ("Chrome/", "Chrome"), ("Safari/", "Safari"))


def _browser(agent: str) -> str:
    """A browser's name for people; what it calls itself holds the names of all."""
    return next((name for mark, name in _BROWSERS if mark in agent), "a browser")


def _app(app: App, found: dict[str, Any], snapshot: Snapshot, now: datetime) -> dict[str, Any]:
    """What the page shows of an app: since when it knows the person, and what it need not ask again."""
    grants, nodes = [one for one in found["grants"] if one.app_id == app.id], snapshot.nodes
    return {
        "id": app.id,
        "name": app.title,
        "ago": pages.ago(max(one.created for one in grants), now) if grants else "",
        "places": sorted(
            {
                "in a browser" if one.node_id is None else f"on {nodes[one.node_id].name}"
                for one in grants
                if one.node_id is None or one.node_id in nodes
            }
        ),
        "consents": [
            {
                "id": one.id,
                "host": one.host,
                "node": getattr(snapshot.nodes.get(one.node_id), "name", "") if one.node_id else "",
            }
            for one in found["consents"]
            if one.app_id == app.id
        ],
    }


def _of(connection: Connection, user_id: int, now: datetime) -> dict[str, Any]:
    """All that the page shows of a person, from one moment."""
    passkeys: list[Passkey] = signin.passkeys_of(connection, user_id)
    sessions: list[Session] = signin.open_sessions(connection, now, user_id)
    grants = apps.live_grants(connection, now, user_id)
    consents = apps.consents_by(connection, user_id, now)
    known = {one.app_id for one in grants} | {one.app_id for one in consents}
    return {
        "passkeys": passkeys,
        "sessions": sessions,
        "identities": signin.identities_of(connection, user_id),
        "providers": signin.all_providers(connection),
        "grants": grants,
        "consents": consents,
        "apps": sorted(
            (one for one in apps.load_all(connection) if one.id in known), key=lambda one: one.name
        ),
        "codes": signin.recovery_codes_left(connection, user_id),
        "tokens": _tokens_of(connection, user_id, now),
    }


def _tokens_of(connection: Connection, user_id: int, now: datetime) -> list[ApiToken]:
    """A person's tokens of the API that are still good."""
    return [
        one
        for one in keys.all_api_tokens(connection)
        if one.user_id == user_id and one.revoked is None and (one.expires is None or one.expires > now)
    ]


def _forget_passkey(connection: Connection, user: User, passkey_id: int, now: datetime) -> None:
    """Forget one, unless there would be no way left to sign in."""
    if not signin.delete_passkey(connection, user.id, passkey_id):
        raise NotFound("you have no such passkey", cure="Load the page again.")
    if not signin.can_sign_in(connection, [user.id]):
        raise Conflict(
            "this is your last way to sign in", cure="Make another passkey first, then forget this one."
        )
    person = f"user:{user.name}"
    audit.append(connection, person, "user.passkey.delete", person, {"passkey": passkey_id}, now)


def _end_own(connection: Connection, user: User, session_id: int, now: datetime) -> None:
    session = signin.session_by_id(connection, session_id)
    if session is None or session.user_id != user.id:
        raise NotFound("you have no such session", cure="Load the page again.")
    if signin.end_sessions(connection, now, session_id=session_id):
        person = f"user:{user.name}"
        audit.append(connection, person, "user.signout", person, {"session": session_id}, now)


def _leave_app(connection: Connection, user: User, app_id: int, now: datetime) -> None:
    """End all that a person gave to an app: its tokens are worth nothing from now on, and it has to ask again."""
    app = apps.by_id(connection, app_id)
    grants = apps.end_grants(connection, now, user_id=user.id, app_id=app_id)
    consents = apps.delete_consents(connection, user.id, app_id=app_id)
    if app is None or not (grants or consents):
        raise NotFound("that app has nothing of yours", cure="Load the page again.")
    details = {"why": "the person took it back", "grants": grants, "consents": consents}
    audit.append(connection, f"user:{user.name}", "app.revoke", f"app:{app.name}", details, now)


def _forget_yes(connection: Connection, user: User, consent_id: int, now: datetime) -> None:
    said = next((one for one in apps.consents_by(connection, user.id, now) if one.id == consent_id), None)
    app = None if said is None else apps.by_id(connection, said.app_id)
    if said is None or app is None:
        raise NotFound("you have said no such yes", cure="Load the page again.")
    apps.delete_consents(connection, user.id, consent_id=consent_id)
    details = {"consent": consent_id, "host": said.host}
    audit.append(connection, f"user:{user.name}", "app.forget", f"app:{app.name}", details, now)
