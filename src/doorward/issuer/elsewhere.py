"""A browser outside the tailnet waits for a yes from a device that is inside.

::

    browser ──▶ /authorize ──▶ nobody is known ──▶ "on another device of mine" ──▶ a page with a code, which looks again
    person  ──▶ /device on a device inside: types the code ──▶ which app, asked from where ──▶ a yes or a no
    browser ──▶ the page looks again ──▶ a code for the app (RFC 6749), for twelve hours at the most

It is the device grant (``device``) with a browser in the program's place, and as much can go wrong: whoever begins it can have
somebody else type the code. So it is for apps alone that were made for devices (``--device``), the page inside says where the
browser is and where it goes on to, nothing is silent, and the app sees ``acr`` "remote". What the browser waits with is the cookie of
its asking: the code alone is worth nothing to it.
"""

import hashlib
from datetime import datetime

import msgspec
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from doorward.asgi import RateLimit
from doorward.errors import Conflict, NotPermitted, Unavailable
from doorward.issuer.authorize import CODE_LIFETIME, ELSEWHERE, SIGN_IN, Authorize
from doorward.issuer.consent import waiting
from doorward.issuer.decision import Arrival, arrival_of
from doorward.issuer.desk import CODE, Desk
from doorward.issuer.device import code_hash, code_of
from doorward.issuer.request import Asked
from doorward.login import pages
from doorward.login.asking import OverAsking
from doorward.login.doors import asker
from doorward.login.pages import Door
from doorward.model import App, Asking, DeviceRequest
from doorward.store import Connection, apps, signin

REFRESH = 5  # seconds after which the page looks again
_BEGINS_PER_SECOND, _BEGINS = 1.0, 60.0  # each is a row
_LOOKS_PER_SECOND, _LOOKS = 2.0, 120.0


class Elsewhere:
    """The pages outside.

    Args:
        desk: the issuer's.
        authorize: sends the browser back to the app.
    """

    def __init__(self, desk: Desk, authorize: Authorize) -> None:
        self._desk = desk
        self._authorize = authorize
        self._begins = RateLimit(rate=_BEGINS_PER_SECOND, burst=_BEGINS, clock=desk.clock)
        self._looks = RateLimit(rate=_LOOKS_PER_SECOND, burst=_LOOKS, clock=desk.clock)

    async def begin(self, request: Request) -> Response:
        """``POST /authorize/elsewhere``: the button of the page that asks for a passkey."""
        desk = self._desk
        desk.require_door(request)
        form = await desk.askings.form(request)
        asking, asked, app = await self._waiting(request, form.get("asking", ""))
        self._begins.take(asker(request))
        draft = DeviceRequest(
            id=0,
            app_id=app.id,
            device_hash=_of(asking),
            user_hash=code_hash(self._code(request, asking)),
            scopes=asked.scopes,
            resources=asked.resources,
            levels=(),
            address="" if request.client is None else request.client.host,
            node_id=None,
            created=desk.now(),
            expires=asking.expires,
            asking_id=asking.id,
        )
        try:
            await desk.database.run(apps.insert_device_request, draft)
        except Conflict:  # the button was pressed twice: the first time counts
            if await desk.database.read(apps.device_request, _of(asking)) is None:
                raise
        return RedirectResponse(f"{ELSEWHERE}/{asking.id}", 303, {"Cache-Control": "no-store"})

    async def show(self, request: Request) -> Response:
        """``GET /authorize/elsewhere/{asking}``: the code, until somebody has answered; then on to the app."""
        desk = self._desk
        desk.require_door(request)
        if arrival_of(dict(request.headers)) in {Arrival.INSIDE, Arrival.AHEAD}:
            raise Unavailable("this page is opened by a person, as a whole")
        self._looks.take(asker(request))
        asking, asked, app = await self._waiting(request, request.path_params["asking"])
        found = await desk.database.read(apps.device_request, _of(asking))
        if found is None:
            raise OverAsking
        if not found.denied and found.grant_id is None:
            return self._page(request, asking, app, found)
        secret = desk.secret(CODE)
        if not await desk.database.run(_hand_over, asking.id, found, secret.digest, desk.now()):
            raise OverAsking
        answer = [("code", secret.text)]
        if found.denied:
            answer = [("error", "access_denied"), ("error_description", "the person said no")]
        response = await self._authorize.go_on(asked, answer)
        desk.askings.take_back(response, asking)
        return response

    async def _waiting(self, request: Request, number: str) -> tuple[Asking, Asked, App]:
        """What this very browser was asked. Raises OverAsking, and NotPermitted for what needs a sign-in."""
        asking = await self._desk.askings.current(request, number)
        if asking.act != SIGN_IN:
            raise OverAsking
        asked = msgspec.convert(waiting(asking)["asked"], type=Asked)
        app = await self._desk.app(asked.client_id)
        if app is None or not app.device or not asked.from_elsewhere or asking.user_id is not None:
            raise NotPermitted("this app wants people to show themselves who they are", cure="Use a passkey.")
        return asking, asked, app

    def _code(self, request: Request, asking: Asking) -> str:
        """The code, each time the same, and known to nobody but this browser: it is made of what is in its cookie."""
        held, count = self._desk.askings.held(request, asking), 0

        def stream(size: int) -> bytes:
            nonlocal count
            count += 1
            return hashlib.shake_256(f"elsewhere {count} {held}".encode()).digest(size)

        return code_of(stream)

    def _page(self, request: Request, asking: Asking, app: App, found: DeviceRequest) -> Response:
        settings = self._desk.registry.snapshot.settings
        return pages.page(
            "elsewhere.html",
            tailnet=settings.display_name or settings.domain,
            door=Door.SHUT,
            label="waits for a yes from elsewhere",
            refresh=0 if request.query_params.get("refresh") == "no" else REFRESH,
            app=app,
            code=self._code(request, asking),
            address=f"{self._desk.issuer}/device",
            left=pages.duration((found.expires - self._desk.now()).total_seconds()),
            until=found.expires,
        )


def _of(asking: Asking) -> bytes:
    """By what a browser's request is found: from its asking alone."""
    return hashlib.sha256(b"elsewhere " + asking.secret_hash).digest()


def _hand_over(
    connection: Connection, asking_id: int, found: DeviceRequest, code_digest: bytes, now: datetime
) -> bool:
    """Use up what waited, and with a yes give its grant the code: true once."""
    if not signin.take_asking(connection, asking_id, now):
        return False
    apps.delete_device_request(connection, found.id)
    if found.grant_id is None:
        return True
    return apps.give_code(connection, found.grant_id, code_digest, now + CODE_LIFETIME)
