"""``/end_session``: an app has a person sign out (OpenID Connect RP-Initiated Logout 1.0).

::

    request ──▶ read ──▶ an ID token of ours, of who is here ──▶ signed out ──▶ back to the app, or a page
                  │                                                 ▲
                  └────▶ anything else: a page that asks ──▶ yes ───┘ (a link leads back, where the address is the app's)

Any page can send a browser here, so what ends without a question is what an ID token names that we have signed, however old it is:
only its app has it. A session that is over is told to its apps (``backchannel``), and whoever left by a device is asked by the
next app (``login.leaving``).
"""

from datetime import datetime
from typing import Any, NamedTuple
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from doorward.asgi import RateLimit, WrongMediaType, WrongMethod, read_body
from doorward.errors import BadInput, NotPermitted, Unavailable
from doorward.issuer.consent import asks, waiting
from doorward.issuer.decision import Arrival, arrival_of
from doorward.issuer.desk import FORM, MOST, Desk
from doorward.issuer.request import LARGEST, Pairs, single, with_answer
from doorward.issuer.tokens import ID_TYPE, BadToken
from doorward.issuer.tokens import read as read_token
from doorward.login import pages
from doorward.login.asking import OverAsking, Proven, Question, parse_pairs
from doorward.login.doors import asker
from doorward.login.leaving import Leaver, leaver, sign_out
from doorward.login.pages import Door, Side
from doorward.login.sessions import LIFETIME as SESSION_LIFETIME
from doorward.login.sessions import Visitor, cookie_name, set_cookie
from doorward.model import App, User
from doorward.store import Connection, apps, audit, signin

PATH = "/end_session"
ASK = "logout-asks"  # what the page that asks stands for
_LONGEST = 2000  # characters of a state
_PER_SECOND, _BURST = 1.0, 60.0


class Wanted(NamedTuple):
    """What an app wants, as far as it may."""

    app: App | None
    subject: str  # of the ID token; empty without a good one
    sid: str
    uri: str  # where people are sent back to; empty where that is not the app's
    state: str
    is_whole: bool  # there is a good ID token, and everything else fits


class Logout:
    """The endpoint, and the page that belongs to it."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._requests = RateLimit(rate=_PER_SECOND, burst=_BURST, clock=desk.clock)
        desk.askings.acts |= {ASK: _not_by_proof}

    async def end(self, request: Request) -> Response:
        """``GET`` and ``POST /end_session`` (section 2)."""
        desk = self._desk
        desk.require_door(request)
        if request.method == "HEAD":  # Starlette's own addition to GET
            raise WrongMethod("HEAD", ("GET", "POST"))
        self._requests.take(asker(request))
        arrival = arrival_of(dict(request.headers))
        if arrival is Arrival.AHEAD:
            raise Unavailable("nobody is signed out ahead of time")
        if arrival is Arrival.INSIDE:
            raise NotPermitted("people sign out on a page of its own, never inside another one")
        if request.method == "POST":
            return await self._again(request)
        query: bytes = request.scope["query_string"]
        if len(query) > LARGEST:
            raise BadInput("the request is too long")
        wanted = await self._read(parse_pairs(query, MOST))
        await desk.registry.catch_up()
        visitor = await desk.askings.sessions.visitor(request)
        user = visitor.user
        ring = await desk.keys.ring()
        is_theirs = user is None or wanted.subject == ring.subject(user.id)
        if user is not None and not (wanted.is_whole and is_theirs):
            return await self._ask(request, wanted, visitor, user, is_theirs=is_theirs and bool(wanted.sid))
        if user is not None:
            await self._sign_out(visitor, user, wanted.app, wanted.sid)
        elif wanted.is_whole:
            await self._sign_out_by_number(wanted)
        return self._forget(request, self._left(wanted, user, by_itself=wanted.is_whole))

    async def _again(self, request: Request) -> Response:
        """The same as GET: with what another site posts no browser sends the cookie that says who it is."""
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM:
            raise WrongMediaType("the request is no form")
        pairs = parse_pairs(await read_body(request, LARGEST), MOST)
        return RedirectResponse(
            f"{PATH}?{urlencode(pairs)}",
            303,
            {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"},
        )

    # What is wanted -------------------------------------------------------------------------------------------------

    async def _read(self, pairs: Pairs) -> Wanted:
        """Raises BadInput for a parameter that is given twice, and for a state that is too long."""
        desk = self._desk
        hint, client_id, uri, state, _, _ = (
            single(pairs, name)
            for name in (
                "id_token_hint",
                "client_id",
                "post_logout_redirect_uri",
                "state",
                "logout_hint",
                "ui_locales",
            )
        )
        if len(state) > _LONGEST:
            raise BadInput(f"a state has {_LONGEST} characters at most")
        said = await self._hint(hint, client_id)
        app = await desk.app(str(said["aud"]) if said else client_id)
        fits = app is not None and uri in app.signed_out_uris
        return Wanted(
            app=app,
            subject=str(said["sub"]) if said and app is not None else "",
            sid=str(said["sid"]) if said and app is not None else "",
            uri=uri if fits else "",
            state=state,
            is_whole=bool(said) and app is not None and (fits or not uri),
        )

    async def _hint(self, text: str, client_id: str) -> dict[str, Any]:
        """What an ID token of ours says, of whatever age (section 4); nothing where it is none, or another app's."""
        if not text:
            return {}
        try:
            said = read_token(await self._desk.keys.ring(), text, ID_TYPE)
        except BadToken:
            return {}
        good = said.get("iss") == self._desk.issuer and client_id in {"", said.get("aud")}
        return said if good else {}

    # Signing out ----------------------------------------------------------------------------------------------------

    async def _sign_out(self, visitor: Visitor, user: User, app: App | None, sid: str) -> None:
        desk = self._desk
        who = leaver(visitor, user, desk.random(15))
        await desk.database.run(
            _sign_out, who, "" if app is None else app.name, (sid,) if sid else (), desk.now()
        )

    async def _sign_out_by_number(self, wanted: Wanted) -> None:
        """Nobody is known here, and the app says who it was: what was given under that number ends."""
        assert wanted.app is not None
        desk = self._desk
        await desk.database.run(_sign_out_by_number, wanted.app, wanted.sid, desk.now())

    async def _ask(
        self, request: Request, wanted: Wanted, visitor: Visitor, user: User, *, is_theirs: bool
    ) -> Response:
        desk = self._desk
        argument = {
            "client_id": "" if wanted.app is None else wanted.app.client_id,
            "uri": wanted.uri,
            "state": wanted.state,
            "sid": wanted.sid if is_theirs else "",
        }
        question = Question("Sign out", "Show who you are.")
        asking, secret = await desk.askings.keep(request, ASK, argument, question, user=user)
        response = self._page(
            "ask",
            Door.AJAR,
            "asks whether you leave",
            before=pages.person_side(user.name, user.id, f"on {visitor.node.name}" if visitor.node else ""),
            user=user,
            app=wanted.app,
            other=bool(wanted.subject) and not is_theirs,
            asking=asking.id,
        )
        desk.askings.hand_out(response, asking, secret)
        return response

    async def answer(self, request: Request) -> Response:
        """``POST /end_session/answer``: a button of the page that asks."""
        desk = self._desk
        desk.require_door(request)
        form = await desk.askings.form(request)
        asking = await desk.askings.current(request, form.get("asking", ""))
        if asking.act != ASK:
            raise OverAsking
        visitor = await desk.askings.sessions.visitor(request)
        user = visitor.user
        if user is None or user.id != asking.user_id:
            raise OverAsking
        if not await desk.database.run(signin.take_asking, asking.id, desk.now()):
            raise OverAsking
        if form.get("answer", "") != "yes":
            response = self._page("stays", Door.OPEN, "still signed in", user=user)
            desk.askings.take_back(response, asking)
            return response
        argument = waiting(asking)
        app = await desk.app(argument["client_id"])
        await self._sign_out(visitor, user, app, argument["sid"])
        # As the app is now: an address that was taken from it meanwhile is nobody's.
        uri = argument["uri"] if app is not None and argument["uri"] in app.signed_out_uris else ""
        wanted = Wanted(app, "", "", uri, argument["state"], is_whole=False)
        response = self._forget(request, self._left(wanted, user, by_itself=False))
        desk.askings.take_back(response, asking)
        return response

    # The answer -----------------------------------------------------------------------------------------------------

    def _left(self, wanted: Wanted, user: User | None, *, by_itself: bool) -> Response:
        """Back to the app where it has asked in full; else a page, with a link where there is somewhere to go.

        ``by_itself`` is not for what comes of a form of ours: browsers hold the form's policy against where a redirect leads. Nor is an
        app sent to that came by itself, and of which nobody has approved: no link to us leads where a stranger wants.
        """
        url = wanted.uri
        if url and wanted.state:
            url = with_answer(url, [("state", wanted.state)])
        known_app = wanted.app is not None and (
            wanted.app.brought is None or not asks(wanted.app, wanted.uri)
        )
        if by_itself and url and known_app:
            return RedirectResponse(url, 303, {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"})
        return self._page("left", Door.SHUT, "signed out", app=wanted.app, url=url, known=user is not None)

    def _forget(self, request: Request, response: Response) -> Response:
        place = self._desk.askings.doors.require(request)
        set_cookie(response, place, cookie_name(place), "", SESSION_LIFETIME)
        return response

    def _page(
        self,
        state: str,
        door: Door,
        label: str,
        *,
        before: Side | None = None,
        user: User | None = None,
        **values: Any,
    ) -> Response:
        settings = self._desk.registry.snapshot.settings
        tailnet = settings.display_name or settings.domain
        return pages.page(
            "logout.html",
            tailnet=tailnet,
            door=door,
            label=label,
            before=before,
            behind=pages.tailnet_side(tailnet),
            state=state,
            user=user,
            **values,
        )


def _sign_out(connection: Connection, who: Leaver, app: str, sids: tuple[str, ...], now: datetime) -> None:
    ended = sign_out(connection, who, now, sids)
    person = f"user:{who.user.name}"
    details = {"app": app, "session": who.session, "node": who.node, "grants": len(ended)}
    audit.append(connection, person, "user.signout", person, details, now)


def _sign_out_by_number(connection: Connection, app: App, sid: str, now: datetime) -> None:
    owner = apps.owner_of_sid(connection, app.id, sid)
    if owner is None:
        return  # it was forgotten long ago
    if ended := apps.sign_out(connection, now, owner, (), (sid,)):
        details = {"user": owner, "grants": len(ended)}
        audit.append(connection, f"app:{app.name}", "app.signout", f"app:{app.name}", details, now)


async def _not_by_proof(request: Request, proven: Proven, argument: Any) -> Response:
    """The page that asks is answered by its buttons."""
    del request, proven, argument
    raise OverAsking
