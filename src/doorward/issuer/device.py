"""Signing in on a device without a browser: RFC 8628, and the page where somebody says yes to it.

::

    program ──▶ /device_authorization ──▶ a code to show, and one to ask again with
    person  ──▶ /device: the code ──▶ who? ──▶ a page: which app, asked from where ──▶ a yes or a no, always
    program ──▶ /token, every five seconds (grants/device_code)

A browser outside the tailnet may wait in the same way (``elsewhere``): then the yes is for what it was asked.

Anybody can begin this and send the code to somebody else, who would sign in the sender. So nothing here is ever silent, the page
says where the program asks from and whose device that is, and whoever came by a link has to find the code that their device shows
among three: one who has no such device can only guess.
"""

import hashlib
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from doorward.asgi import RateExceeded, RateLimit, json_answer
from doorward.errors import DoorwardError, NotFound, NotPermitted, Unavailable
from doorward.issuer.claims import Standing, granted, in_words, standing
from doorward.issuer.clients import Clients
from doorward.issuer.consent import waiting
from doorward.issuer.decision import Arrival, Decision, Facts, Level, Verdict, arrival_of, decide
from doorward.issuer.desk import Desk, one, opened, read_pairs
from doorward.issuer.errors import AuthorizeError, TokenError
from doorward.issuer.request import Asked, levels_of, resources_of, scopes_of
from doorward.issuer.sessions import Given, Knowledge, ended, keep_grants, known_since
from doorward.issuer.who import Who, who_is
from doorward.login import pages
from doorward.login.asking import OverAsking, Proven, Question
from doorward.login.doors import asker
from doorward.login.pages import Door, Side
from doorward.login.redirects import is_loopback, shown_host
from doorward.model import App, AppGrant, DeviceRequest, Node, User
from doorward.store import Connection, apps, signin
from doorward.tailnet import secrets

SIGN_IN = "device"  # the act of showing who one is to a device's request
ASK = "device-asks"  # what the page that asks stands for
LETTERS = "BCDFGHJKLMNPQRSTVWXZ"  # no vowels, so no words (RFC 8628 section 6.1)
LENGTH = 8  # 34 bits, for ten minutes, with few guesses
LIFETIME = timedelta(minutes=10)
GRANT_LIFETIME = timedelta(days=90)
REMOTE_LIFETIME = timedelta(
    hours=12
)  # what a browser has that is on no device of the person's, as far as anybody knows
INTERVAL = 5  # seconds
_CHOICES = 3  # codes on the page of who came by a link
_GUESSES_PER_SECOND, _GUESSES = 0.05, 10.0
_BEGINS_PER_SECOND, _BEGINS = 1.0, 60.0  # each is a row


class Devices:
    """The endpoint, and the pages that belong to it.

    Args:
        desk: the issuer's.
        clients: how apps show who they are.
    """

    def __init__(self, desk: Desk, clients: Clients) -> None:
        self._desk = desk
        self._clients = clients
        self._guesses = RateLimit(rate=_GUESSES_PER_SECOND, burst=_GUESSES, clock=desk.clock)
        self._begins = RateLimit(rate=_BEGINS_PER_SECOND, burst=_BEGINS, clock=desk.clock)
        desk.askings.acts |= {SIGN_IN: self._proven, ASK: _not_by_proof}

    # The program ----------------------------------------------------------------------------------------------------

    async def begin(self, request: Request) -> Response:
        """``POST /device_authorization`` (section 3.1). Raises TokenError."""
        desk = self._desk
        desk.require_door(request)
        pairs = await read_pairs(request)
        app = await self._clients.authenticate(request, pairs)
        if not app.device:
            raise TokenError("unauthorized_client", "people do not sign in to this app from other devices")
        try:
            self._begins.take(asker(request))
        except RateExceeded as error:
            raise TokenError("temporarily_unavailable", error.message, status=429) from None
        try:
            resources = resources_of(pairs, desk.resources(app))
            scopes = scopes_of(one(pairs, "scope"), await desk.scopes_known(app, pairs))
        except AuthorizeError as error:
            raise TokenError(error.code, error.message) from None
        visitor = await desk.askings.sessions.visitor(request)  # for the page alone: it proves nothing
        secret, code, now = desk.secret("dwdevice"), self._code(), desk.now()
        draft = DeviceRequest(
            id=0,
            app_id=app.id,
            device_hash=secret.digest,
            user_hash=code_hash(code),
            scopes=scopes,
            resources=resources,
            levels=levels_of(one(pairs, "acr_values")),
            address="" if request.client is None else request.client.host,
            node_id=None if visitor.node is None else visitor.node.id,
            created=now,
            expires=now + LIFETIME,
            interval=INTERVAL,
        )
        await desk.database.run(apps.insert_device_request, draft)
        answer = {
            "device_code": secret.text,
            "user_code": code,
            "verification_uri": f"{desk.issuer}/device",
            "verification_uri_complete": f"{desk.issuer}/device?user_code={code}",
            "expires_in": int(LIFETIME.total_seconds()),
            "interval": INTERVAL,
        }
        return opened(json_answer(answer))

    def _code(self) -> str:
        return code_of(self._desk.registry.writer.entropy)

    # The person -----------------------------------------------------------------------------------------------------

    async def show(self, request: Request) -> Response:
        """``GET /device``: a place for the code, or what came with one in a link."""
        self._desk.require_door(request)
        if arrival_of(dict(request.headers)) in {Arrival.INSIDE, Arrival.AHEAD}:
            raise Unavailable("this page is opened by a person, as a whole")
        code = request.query_params.get("user_code", "")
        if not code:
            return self._type()
        return await self._consider(request, code, linked=True)

    async def typed(self, request: Request) -> Response:
        """``POST /device``: a code that somebody has typed."""
        self._desk.require_door(request)
        form = await self._desk.askings.form(request)
        return await self._consider(request, form.get("user_code", ""), linked=False)

    def _type(self, error: DoorwardError | None = None) -> Response:
        return self._page("type", Door.SHUT, "waits for a code", error=error)

    async def _consider(
        self, request: Request, code: str, *, linked: bool, proven: Proven | None = None
    ) -> Response:
        desk = self._desk
        self._guesses.check(asker(request))
        found = await desk.database.read(apps.waiting_device_request, desk.now(), user_hash=code_hash(code))
        if found is None:
            self._guesses.take(asker(request))
            error = NotFound(
                "no device waits with this code", cure="Look at it once more, or start anew on the device."
            )
            return self._type(error)
        app = await self._app(found)
        who = await who_is(desk, request, proven)
        stands, scopes, decision = self._decide(app, found, who, proven=proven is not None, clicked=False)
        if decision.verdict is Verdict.PROVE:
            question = Question(f"Sign in to {app.name} on another device", "Show who you are.")
            argument = {"code": code, "linked": linked}
            return await desk.askings.begin(request, SIGN_IN, argument, question, user=who.user)
        if decision.verdict is not Verdict.ASK:
            await self._refuse(app, who, decision)
        assert stands is not None
        asked = await self._asked(found)
        codes = [_plain(code), *(_plain(self._code()) for _ in range(_CHOICES - 1))] if linked else []
        argument = {
            "request": found.id,
            "session": who.key,
            "proven": proven is not None,
            "yes": _plain(code) if linked else "yes",
        }
        question = Question(f"Sign in to {app.name} on another device", "Show who you are.")
        asking, secret = await desk.askings.keep(request, ASK, argument, question, user=stands.user)
        snapshot = desk.registry.snapshot
        node = None if found.node_id is None else snapshot.nodes.get(found.node_id)
        response = self._page(
            "ask",
            Door.AJAR,
            "an app asks",
            before=pages.person_side(stands.user.name, stands.user.id, "to say yes or no"),
            behind=_device_side(app, node),
            user=stands.user,
            app=app,
            found=found,
            node=node,
            owner="" if node is None else snapshot.owner_name(node),
            own=node is not None and not node.tags and node.user_id == stands.user.id,
            asked=pages.ago(found.created, desk.now()),
            learns=in_words(scopes),
            codes=[f"{each[:4]}-{each[4:]}" for each in sorted(codes)],
            asking=asking.id,
            goes_to="" if asked is None else _goes_to(asked.redirect_uri),
        )
        desk.askings.hand_out(response, asking, secret)
        return response

    async def _proven(self, request: Request, proven: Proven, argument: Any) -> Response:
        """Somebody has shown who they are, for this very code."""
        return await self._consider(request, argument["code"], linked=argument["linked"], proven=proven)

    async def answer(self, request: Request) -> Response:
        """``POST /device/answer``: a button of the page that asks."""
        desk = self._desk
        desk.require_door(request)
        form = await desk.askings.form(request)
        asking = await desk.askings.current(request, form.get("asking", ""))
        if asking.act != ASK:
            raise OverAsking
        argument = waiting(asking)
        who = await who_is(desk, request)
        # The very person on the very device that was shown.
        if who.user is None or who.user.id != asking.user_id or who.key != argument["session"]:
            raise OverAsking
        if not await desk.database.run(signin.take_asking, asking.id, desk.now()):
            raise OverAsking
        found = await desk.database.read(
            apps.waiting_device_request, desk.now(), request_id=argument["request"]
        )
        if found is None:
            raise OverAsking
        app = await self._app(found)
        good = _plain(form.get("answer", "")) == _plain(argument["yes"])
        if good:
            await self._give(app, found, who, proven=argument["proven"])
        else:
            # A wrong code too: who guesses is somebody to whom a link was sent.
            await desk.database.run(apps.answer_device_request, found.id, desk.now(), None)
            await desk.note(who.user, app, "app.deny", node=who.node_id, by="device")
        door, label = (Door.OPEN, "signed in") if good else (Door.BARRED, "turned away")
        response = self._page("done", door, label, app=app, good=good)
        desk.askings.take_back(response, asking)
        return response

    async def _give(self, app: App, found: DeviceRequest, who: Who, *, proven: bool) -> None:
        desk, now = self._desk, self._desk.now()
        stands, scopes, decision = self._decide(app, found, who, proven=proven, clicked=True)
        if decision.verdict is not Verdict.SILENT or stands is None:
            await self._refuse(app, who, decision)
            raise OverAsking
        asked = await self._asked(found)
        # A browser elsewhere has a session of its own with apps, which ends by itself.
        key, since = (who.key, who.since) if asked is None else (f"remote:{found.id}", now)
        known = await known_since(desk, key, stands.user, since)
        draft = AppGrant(
            id=0,
            app_id=app.id,
            user_id=stands.user.id,
            node_id=who.vouching,
            sid=known.sid,
            key=known.key,
            code_hash=secrets.digest(
                desk.random()
            ),  # nobody has such a code: what redeems it is the device's request
            redirect_uri="",
            challenge="",
            nonce="",
            scopes=scopes,
            resources=found.resources,
            auth_time=now,
            acr=who.level_now(clicked=True).value,
            amr=who.amr_now(clicked=True),
            created=now,
            code_expires=found.expires,
            expires=now + GRANT_LIFETIME,
        )
        if asked is not None:
            draft = _for_browser(draft, asked)
        details = {
            "how": "device" if asked is None else "remote",
            "by": who.known.value,
            "node": who.node_id,
            "scopes": list(scopes),
            "from": found.address if found.node_id is None else f"node:{found.node_id}",
        }
        await desk.database.run(_give, found.id, draft, known, f"user:{stands.user.name}", app.name, details)

    # Between --------------------------------------------------------------------------------------------------------

    def _decide(
        self, app: App, found: DeviceRequest, who: Who, *, proven: bool, clicked: bool
    ) -> tuple[Standing | None, tuple[str, ...], Decision]:
        """As for any app, but for an app that asks, so that nothing is silent."""
        stands = None
        if who.user is not None:
            # A browser elsewhere is not on this device: what the policy says of devices is not about it.
            node_id = who.node_id if found.asking_id is None else None
            stands = standing(self._desk.registry.snapshot, app, who.user.id, node_id)
        scopes = () if stands is None else granted(found.scopes, stands.entitlement)
        facts = Facts(
            known=who.known,
            arrival=Arrival.PAGE,
            allowed=bool(scopes),
            level=who.level_now(clicked=clicked),
            wanted=levels_of(" ".join(found.levels)),
            asks=True,
            proven=proven,
            clicked=clicked,
        )
        return stands, scopes, decide(facts)

    async def _refuse(self, app: App, who: Who, decision: Decision) -> None:
        """Raise why not."""
        if who.user is not None:
            await self._desk.note(who.user, app, "app.refuse", why=decision.reason.value, node=who.node_id)
        if decision.verdict is Verdict.BAR:
            raise NotPermitted(
                "this device carries the traffic of others, so it cannot say who you are",
                cure=f"Sign in first at {self._desk.issuer}/signin, and try again.",
            )
        raise NotPermitted(decision.reason.value, cure="Ask an administrator.")

    async def _asked(self, found: DeviceRequest) -> Asked | None:
        """What the browser that waits was asked; None for a program. Raises OverAsking where nobody waits any more."""
        if found.asking_id is None:
            return None
        asking = await self._desk.database.read(signin.asking_by_id, found.asking_id, self._desk.now())
        if asking is None:
            raise OverAsking
        return msgspec.convert(waiting(asking)["asked"], type=Asked)

    async def _app(self, found: DeviceRequest) -> App:
        app = await self._desk.database.read(apps.by_id, found.app_id)
        if app is None or not app.device:
            raise OverAsking
        return app

    def _page(
        self,
        state: str,
        door: Door,
        label: str,
        *,
        before: Side | None = None,
        behind: Side | None = None,
        error: DoorwardError | None = None,
        user: User | None = None,
        **values: Any,
    ) -> Response:
        settings = self._desk.registry.snapshot.settings
        return pages.page(
            "device.html",
            tailnet=settings.display_name or settings.domain,
            door=door,
            label=label,
            status=200 if error is None else error.status,
            before=before,
            behind=behind,
            script="steady.js" if state == "ask" else "",
            state=state,
            error=error,
            user=user,
            **values,
        )


def _device_side(app: App, node: Node | None) -> Side:
    name, system = ("elsewhere", "") if node is None else (node.name, node.observed.hostinfo.OS)
    return pages.device_side(name, system, f"for {app.name}")


def _goes_to(uri: str) -> str:
    """Where a browser elsewhere goes on to: "this device" would be another one to whoever reads it here."""
    return "a program on the device that asks" if is_loopback(uri) else shown_host(uri)


def _for_browser(draft: AppGrant, asked: Asked) -> AppGrant:
    """The same for a browser, which will have a code of its own (``elsewhere``)."""
    return msgspec.structs.replace(
        draft,
        redirect_uri=asked.redirect_uri,
        challenge=asked.challenge,
        jkt=asked.jkt,
        nonce=asked.nonce,
        acr=Level.REMOTE.value,
        amr=(*draft.amr, "mca"),  # RFC 8176: over more than one channel
        expires=draft.created + REMOTE_LIFETIME,
    )


def _plain(code: str) -> str:
    """A code as it is compared, however it was typed."""
    return "".join(mark for mark in code.upper() if mark.isalpha())


def code_of(entropy: Callable[[int], bytes]) -> str:
    """A code that a person can type, made of random bytes."""
    found = ""
    while len(found) < LENGTH:
        # Without the last few values every letter is as likely as any other.
        found += "".join(LETTERS[byte % len(LETTERS)] for byte in entropy(LENGTH) if byte < 240)
    return f"{found[:4]}-{found[4:LENGTH]}"


def code_hash(code: str) -> bytes:
    """What is kept of a code that a person types."""
    return hashlib.sha256(f"device code {_plain(code)}".encode()).digest()


def _give(
    connection: Connection,
    request_id: int,
    draft: AppGrant,
    known: Knowledge,
    actor: str,
    app: str,
    details: dict[str, Any],
) -> None:
    """The yes: with the grant and the line in the audit log, or none of them. Raises OverAsking for the second of two."""
    now: datetime = draft.created
    (grant,) = keep_grants(connection, [Given(draft, known, now, actor, app, details)])
    if grant is None:
        raise ended(app)
    if not apps.answer_device_request(connection, request_id, now, grant.id):
        raise OverAsking


async def _not_by_proof(request: Request, proven: Proven, argument: Any) -> Response:
    """The page that asks is answered by its buttons."""
    del request, proven, argument
    raise OverAsking
