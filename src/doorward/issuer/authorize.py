"""``/authorize``: from an app's request to a code, silently where that is safe.

::

    request ──▶ target ──▶ read ──▶ who? ──▶ decide ──▶ SILENT ──▶ code ──▶ back to the app
                  │          │                  ├─────▶ ASK ────▶ a page; its POST ──▶ decide again, "clicked"
                  │          │                  ├─────▶ PROVE ──▶ an asking; its answer ──▶ decide again, "proven"
                  ▼          ▼                  ├─────▶ REFUSE ─▶ back to the app, with an error
               a page    the app is told        └─────▶ BAR ────▶ a page

What waits meanwhile is an *asking* (``login.asking``): a row with the request in it and a secret in a cookie of this browser, taken
once. So nobody answers for another browser, for another request, a second time or after ten minutes.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from doorward.asgi import RateExceeded, RateLimit, WrongMethod, read_body
from doorward.errors import BadInput, NotPermitted, Unavailable
from doorward.issuer import consent
from doorward.issuer.claims import Standing, granted, posture_met, standing
from doorward.issuer.decision import (
    Arrival,
    Decision,
    Facts,
    Known,
    Reason,
    Verdict,
    age,
    arrival_of,
    decide,
    said_level,
)
from doorward.issuer.desk import CODE, FORM, MOST, Desk
from doorward.issuer.documents import Documents
from doorward.issuer.errors import AuthorizeError
from doorward.issuer.pushed import is_pushed, take
from doorward.issuer.request import LARGEST, Asked, Pairs, find_target, read, single, with_answer
from doorward.issuer.sessions import Given, Knowledge, ended, keep_grants, known_since
from doorward.issuer.tokens import ID_TYPE, BadToken
from doorward.issuer.tokens import read as read_token
from doorward.issuer.who import Who, who_is
from doorward.login import pages
from doorward.login.asking import OverAsking, Proven, Question, parse_pairs
from doorward.login.doors import asker
from doorward.login.pages import Door
from doorward.login.redirects import is_local, shown_host
from doorward.model import App, AppGrant, Asking, Consent, User
from doorward.store import apps, signin
from doorward.telemetry import ORIGIN, counter

ELSEWHERE = "/authorize/elsewhere"
SIGN_IN = "app"  # the act of showing who one is to an app
OFFLINE = "offline_access"
ASK = "app-asks"  # what the page that asks stands for
CODE_LIFETIME = timedelta(seconds=60)
GRANT_LIFETIME = timedelta(days=90)
REMEMBERED, REMEMBERED_LOCAL = timedelta(days=90), timedelta(days=30)  # how long a yes is
_REQUESTS_PER_SECOND, _REQUESTS = 2.0, 100.0  # each may leave a line in the audit log
_SILENT_PER_SECOND, _SILENT = 0.5, 30.0  # of one device; more of them in a row takes a click each

_decisions = counter("app_decisions_total", "Requests of apps to sign somebody in, by outcome", "outcome")


class Authorize:
    """The endpoint, and the pages that belong to it.

    Args:
        desk: the issuer's.
        documents: apps that describe themselves.
    """

    def __init__(self, desk: Desk, documents: Documents) -> None:
        self._desk = desk
        self._documents = documents
        self._requests = RateLimit(rate=_REQUESTS_PER_SECOND, burst=_REQUESTS, clock=desk.clock)
        self._often = RateLimit(rate=_SILENT_PER_SECOND, burst=_SILENT, clock=desk.clock)
        desk.askings.acts |= {SIGN_IN: self._proven, ASK: self._proven}

    # The endpoint ---------------------------------------------------------------------------------------------------

    async def authorize(self, request: Request) -> Response:
        """``GET`` and ``POST /authorize`` (Core section 3.1.2.1). What it raises belongs on a page."""
        self._desk.require_door(request)
        if (
            request.method == "HEAD"
        ):  # Starlette's own addition to GET: an answer that nobody reads would hold a code
            raise WrongMethod("HEAD", ("GET", "POST"))
        self._requests.take(asker(request))
        arrival = arrival_of(dict(request.headers))
        if arrival in {Arrival.INSIDE, Arrival.AHEAD}:  # before the app is even looked up
            return self._bar(decide(Facts(known=Known.NOBODY, arrival=arrival)))
        pairs = await self._pairs(request)
        app = await self._app(request, single(pairs, "client_id"))
        pushed = is_pushed(name := single(pairs, "request_uri"))
        if app is not None and pushed:
            # Nothing else in the address counts: anybody may have changed it (RFC 9126 section 4).
            pairs = await take(self._desk, app, name)
        target = find_target(pairs, app)
        try:
            _check_way(target.app, pushed=pushed)
            known = await self._desk.scopes_known(target.app, pairs)
            asked = read(pairs, target, known, self._desk.resources(target.app))
        except AuthorizeError as error:
            return self._fail(target.app, target.redirect_uri, target.mode, _error(error, target.state))
        return await self._go_on(request, target.app, _staying(target.app, asked), arrival=arrival)

    async def _app(self, request: Request, client_id: str, *, for_person: bool = False) -> App | None:
        if client_id.startswith("https:") and not for_person:
            for_person = (await who_is(self._desk, request)).user is not None
        return await self._documents.find(client_id, for_person=for_person)

    async def _pairs(self, request: Request) -> Pairs:
        if request.method != "POST":
            query: bytes = request.scope["query_string"]
            if len(query) > LARGEST:
                raise BadInput("the request is too long")
            return parse_pairs(query, MOST)
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM:
            raise BadInput("the request is no form")
        return parse_pairs(await read_body(request, LARGEST), MOST)

    async def _go_on(
        self,
        request: Request,
        app: App,
        asked: Asked,
        *,
        arrival: Arrival = Arrival.PAGE,
        proven: Proven | None = None,
        was_proven: bool = False,
        clicked: bool = False,
    ) -> Response:
        """Decide, and do it. ``was_proven``: they had shown who they are before they were asked for a yes."""
        desk = self._desk
        await desk.registry.catch_up()  # another process may have taken away what this one still knows
        who = await who_is(desk, request, proven)
        stands = None
        if who.user is not None:
            stands = standing(desk.registry.snapshot, app, who.user.id, who.node_id)
        scopes = () if stands is None else granted(asked.scopes, stands.entitlement)
        knowledge = None
        if who.user is not None and stands is not None:
            knowledge = await known_since(desk, who.key, who.user, who.since)
        shown = () if stands is None else granted(asked.shown, stands.entitlement)
        agreed = False
        if who.user is not None:
            agreed = await self._agreed(app, asked, who.user, who.node_id, shown)
        facts = Facts(
            known=who.known,
            arrival=arrival,
            allowed=stands is not None and bool(scopes),
            level=who.level_now(clicked=clicked),
            wanted=asked.levels,
            postures=asked.postures,
            posture=posture_met(desk.registry.snapshot, asked.postures, who.node_id),
            essential=asked.wanted.essential,
            stranger=await self._is_stranger(asked, who.user),
            prompt=asked.prompt,
            age=timedelta(0) if knowledge is None else age(knowledge.acted, desk.now()),
            max_age=asked.oldest,
            other_person=await self._names_another(asked, app, who.user),
            asks=consent.asks(app, asked.redirect_uri),
            local=is_local(asked.redirect_uri),
            signed_out=knowledge is not None and knowledge.signed_out,
            agreed=agreed,
            proven=proven is not None or was_proven,
            clicked=clicked,
            often=not clicked and proven is None and self._is_often(request),
        )
        decision = decide(facts)
        _decisions.labels(decision.verdict.value).inc()
        if decision.verdict is Verdict.SILENT:
            assert stands is not None
            assert knowledge is not None
            return await self._give(app, asked, who, stands, knowledge, scopes, facts)
        if decision.verdict is Verdict.ASK:
            assert stands is not None
            return await self._ask(request, app, asked, who, stands, shown, decision, facts.proven)
        if decision.verdict is Verdict.PROVE:
            return await self._prove(request, app, asked, who, decision)
        if who.user is not None:
            await desk.note(who.user, app, "app.refuse", why=decision.reason.value, node=who.node_id)
        if decision.verdict is Verdict.BAR:
            return self._bar(decision)
        error = AuthorizeError(decision.error, decision.reason.value)
        told = _error(error, asked.state)
        return self._fail(app, asked.redirect_uri, asked.mode, told, form=request.method == "POST")

    # Who --------------------------------------------------------------------------------------------------------------

    def _is_often(self, request: Request) -> bool:
        try:
            self._often.take(asker(request))
        except RateExceeded:
            return True
        return False

    async def _is_stranger(self, asked: Asked, user: User | None) -> bool:
        if user is None or not asked.wanted.subjects:
            return False
        return (await self._desk.keys.ring()).subject(user.id) not in asked.wanted.subjects

    async def _names_another(self, asked: Asked, app: App, user: User | None) -> bool:
        if user is None:
            return False
        hint = asked.login_hint.strip().lower()
        if hint and hint not in {user.name.lower(), user.email.lower(), user.name.partition("@")[0].lower()}:
            return True
        if not asked.id_token_hint:
            return False
        ring = await self._desk.keys.ring()
        try:
            said = read_token(ring, asked.id_token_hint, ID_TYPE)
        except BadToken:
            return True
        return said.get("sub") != ring.subject(user.id) or said.get("aud") != app.client_id

    # A yes ----------------------------------------------------------------------------------------------------------

    async def _agreed(
        self, app: App, asked: Asked, user: User, node_id: int | None, scopes: tuple[str, ...]
    ) -> bool:
        found = await self._desk.database.find(apps.consents_of_all, user.id) or []
        now = self._desk.now()
        host, local = shown_host(asked.redirect_uri), is_local(asked.redirect_uri)
        return any(
            one.app_id == app.id
            and one.expires > now
            and one.host == host
            and set(scopes) <= set(one.scopes)
            and set(asked.resources) <= set(one.resources)
            and (not local or (one.node_id is not None and one.node_id == node_id))
            for one in found
        )

    async def _ask(
        self,
        request: Request,
        app: App,
        asked: Asked,
        who: Who,
        stands: Standing,
        scopes: tuple[str, ...],
        decision: Decision,
        proven: bool,
    ) -> Response:
        question = Question(f"Sign in to {app.title}", "Show who you are.")
        argument = {"asked": msgspec.to_builtins(asked), "session": who.key, "proven": proven}
        asking, secret = await self._desk.askings.keep(request, ASK, argument, question, user=stands.user)
        snapshot = self._desk.registry.snapshot
        response = consent.page(
            tailnet=snapshot.settings.display_name or snapshot.settings.domain,
            app=app,
            asked=asked,
            user=stands.user,
            node=None if who.node_id is None else snapshot.nodes.get(who.node_id),
            scopes=scopes,
            asking=asking.id,
            reason=decision.reason,
            doubtful=app.brought is not None and consent.asks(app, asked.redirect_uri),
            owner="" if app.owner_id is None else snapshot.users[app.owner_id].name,
        )
        self._desk.askings.hand_out(response, asking, secret)
        return response

    async def answer(self, request: Request) -> Response:
        """``POST /authorize/answer``: a button of the page that asks."""
        desk = self._desk
        desk.require_door(request)
        form = await desk.askings.form(request)
        asking = await desk.askings.current(request, form.get("asking", ""))
        if asking.act != ASK:
            raise OverAsking
        argument = consent.waiting(asking)
        asked = msgspec.convert(argument["asked"], type=Asked)
        who = await who_is(desk, request)
        app = await self._same_app(request, asked, for_person=who.user is not None)
        # The very person on the very device that was shown: a node that changed hands, or another session, answers nothing.
        if who.user is None or who.user.id != asking.user_id or who.key != argument["session"]:
            raise OverAsking
        if not await desk.database.run(signin.take_asking, asking.id, desk.now()):
            raise OverAsking
        choice = form.get("answer", "")
        if choice not in {"yes", "once"}:
            await desk.note(who.user, app, "app.deny", node=who.node_id)
            error = AuthorizeError("access_denied", "the person said no")
            return self._left(
                asking, self._tell(asked.redirect_uri, asked.mode, _error(error, asked.state), form=True)
            )
        app = await self._documents.keep(app, f"user:{who.user.name}")
        if choice == "yes":
            await self._remember(app, asked, who)
        response = await self._go_on(request, app, asked, was_proven=bool(argument["proven"]), clicked=True)
        return self._left(asking, response)

    def _left(self, asking: Asking, response: Response) -> Response:
        self._desk.askings.take_back(response, asking)
        return response

    async def _remember(self, app: App, asked: Asked, who: Who) -> None:
        assert who.user is not None
        stands = standing(self._desk.registry.snapshot, app, who.user.id, who.node_id)
        if stands is None:
            return  # what follows refuses it
        local = is_local(asked.redirect_uri)
        draft = Consent(
            id=0,
            app_id=app.id,
            user_id=who.user.id,
            node_id=who.node_id if local else None,
            host=shown_host(asked.redirect_uri),
            scopes=granted(asked.shown, stands.entitlement),
            resources=asked.resources,
            expires=self._desk.now() + (REMEMBERED_LOCAL if local else REMEMBERED),
        )
        if not local or who.node_id is not None:
            await self._desk.database.run(apps.insert_consent, draft)

    async def _same_app(self, request: Request, asked: Asked, *, for_person: bool) -> App:
        """The app, as it is now: what waited was for it, at an address that it still has."""
        app = await self._app(request, asked.client_id, for_person=for_person)
        find_target([("redirect_uri", asked.redirect_uri)], app)
        assert app is not None
        return app

    # A proof --------------------------------------------------------------------------------------------------------

    async def _prove(
        self, request: Request, app: App, asked: Asked, who: Who, decision: Decision
    ) -> Response:
        texts = {
            Reason.NOBODY: "A passkey on this device is enough.",
            Reason.LEVEL: "It asks for more than what your device says.",
        }
        text = texts.get(decision.reason, "It asks that you show once more who you are.")
        offered = app.device and asked.from_elsewhere and decision.reason is Reason.NOBODY
        elsewhere = ELSEWHERE if offered else ""
        question = Question(f"Sign in to {app.title}", text, elsewhere)
        argument = {"asked": msgspec.to_builtins(asked)}
        return await self._desk.askings.begin(request, SIGN_IN, argument, question, user=who.user)

    async def _proven(self, request: Request, proven: Proven, argument: Any) -> Response:
        """Somebody has shown who they are, for this very request."""
        asked = msgspec.convert(argument["asked"], type=Asked)
        app = await self._same_app(request, asked, for_person=True)
        return await self._go_on(request, app, asked, proven=proven)

    # The answer -----------------------------------------------------------------------------------------------------

    async def _give(
        self,
        app: App,
        asked: Asked,
        who: Who,
        stands: Standing,
        knowledge: Knowledge,
        scopes: tuple[str, ...],
        facts: Facts,
    ) -> Response:
        desk, now = self._desk, self._desk.now()
        code = desk.secret(CODE)
        acted = now if facts.clicked else knowledge.acted
        draft = AppGrant(
            id=0,
            app_id=app.id,
            user_id=stands.user.id,
            node_id=who.node_id,
            sid=knowledge.sid,
            key=knowledge.key,
            code_hash=code.digest,
            redirect_uri=asked.redirect_uri,
            challenge=asked.challenge,
            jkt=asked.jkt,
            nonce=asked.nonce,
            scopes=scopes,
            claims=(
                *(f"id_token:{one}" for one in asked.wanted.id_token),
                *(f"userinfo:{one}" for one in asked.wanted.userinfo),
            ),
            resources=asked.resources,
            auth_time=acted,
            acr=said_level(facts),
            amr=who.amr_now(clicked=facts.clicked),
            created=now,
            code_expires=now + CODE_LIFETIME,
            expires=now + GRANT_LIFETIME,
        )
        how = "click" if facts.clicked else "proof" if facts.proven else "silent"
        details = {
            "how": how,
            "by": who.known.value,
            "node": who.node_id,
            "scopes": list(scopes),
            "to": shown_host(asked.redirect_uri),
        }
        actor = f"user:{stands.user.name}"
        given = Given(draft, knowledge, acted, actor, app.name, details, ORIGIN.get())
        if await desk.database.share(keep_grants, given) is None:
            raise ended(app.name)
        answer = [
            ("code", code.text),
            *([("state", asked.state)] if asked.state else []),
            ("iss", desk.issuer),
        ]
        return self._tell(
            asked.redirect_uri, asked.mode, answer, form=facts.clicked or facts.proven, app=app.title
        )

    def _fail(
        self, app: App, uri: str, mode: str, told: list[tuple[str, str]], *, form: bool = False
    ) -> Response:
        """Tell the app that it does not get what it asked for.

        One that came by itself, and of which nobody has approved, is not told until the person goes there: else a link to us would
        lead to wherever a stranger wants (RFC 9700 section 4.11), and a page could find out who is at home here.
        """
        if not consent.asks(app, uri) or app.brought is None:
            return self._tell(uri, mode, told, form=form)
        named = {**dict(told), "iss": self._desk.issuer}
        settings = self._desk.registry.snapshot.settings
        if mode == "form_post":
            tailnet = settings.display_name or settings.domain
            return consent.form_post(tailnet, uri, list(named.items()), by_itself=False)
        return pages.page(
            "back.html",
            tailnet=settings.display_name or settings.domain,
            door=Door.BARRED,
            label="not signed in",
            status=400,
            host=shown_host(uri),
            app=app,
            error=named.get("error_description", ""),
            url=with_answer(uri, named.items()),
        )

    async def go_on(self, asked: Asked, answer: Sequence[tuple[str, str]]) -> Response:
        """Send a browser back to the app that waited for a yes from elsewhere. Raises UnknownApp for one that is gone."""
        target = find_target([("redirect_uri", asked.redirect_uri)], await self._desk.app(asked.client_id))
        state = [("state", asked.state)] if asked.state else []
        return self._tell(asked.redirect_uri, asked.mode, [*answer, *state], app=target.app.title)

    def _tell(
        self,
        uri: str,
        mode: str,
        answer: list[tuple[str, str]],
        *,
        form: bool = False,
        app: str = "",
    ) -> Response:
        """Send the browser back to the app (RFC 6749 section 4.1.2; RFC 9207 for ``iss``).

        ``form``: it comes from a form of ours. Then the redirect is a page that goes on by itself, because browsers hold the
        policy of the form's page (``form-action 'self'``) against wherever a redirect leads.
        """
        named = dict(answer)
        named.setdefault("iss", self._desk.issuer)
        settings = self._desk.registry.snapshot.settings
        tailnet = settings.display_name or settings.domain
        if mode == "form_post":
            return consent.form_post(tailnet, uri, list(named.items()))
        url = with_answer(uri, named.items())
        if not form:
            return RedirectResponse(url, 303, {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"})
        return pages.page(
            "leave.html",
            tailnet=tailnet,
            door=Door.OPEN if "code" in named else Door.BARRED,
            label="signed in" if "code" in named else "not signed in",
            provider=app or shown_host(uri),
            url=url,
            comes_back=False,
            headers={"Refresh": f"0; url={url}"},
        )

    def _bar(self, decision: Decision) -> Response:
        if decision.reason is Reason.AHEAD:
            error: BadInput | NotPermitted | Unavailable = Unavailable("nobody is signed in ahead of time")
        elif decision.reason is Reason.INSIDE:
            error = NotPermitted(
                "apps sign people in on a page of its own, never inside another one",
                cure="Whoever runs the app has it go to the sign-in page as a whole.",
            )
        else:
            error = NotPermitted(
                "this device carries the traffic of others, so it cannot say who you are",
                cure=f"Sign in first at {self._desk.issuer}/signin, and try again.",
            )
        settings = self._desk.registry.snapshot.settings
        return pages.refusal(error, tailnet=settings.display_name or settings.domain, door=Door.BARRED)


def _check_way(app: App, *, pushed: bool) -> None:
    """RFC 9126 section 6."""
    if app.pushed_only and not pushed:
        raise AuthorizeError("invalid_request", "this app leaves its requests at /par first")


def _staying(app: App, asked: Asked) -> Asked:
    """The request, with refresh tokens for who uses them and asks in no other way.

    That is an app that has said so of itself, and one that wants tokens for a resource: such programs look for offline_access in
    OAuth's metadata, where it is not, because they would then have a page ask each time. Without refresh tokens they would send
    their person to a browser every five minutes.
    """
    uses = bool(asked.resources) if app.brought is None else app.brought.refreshes
    if not uses or OFFLINE in asked.scopes:
        return asked
    return msgspec.structs.replace(asked, scopes=(*asked.scopes, OFFLINE))


def _error(error: AuthorizeError, state: str) -> list[tuple[str, str]]:
    told = [("error", error.code), ("error_description", error.description)]
    return [*told, ("state", state)] if state else told
