"""Where people come in: sign-in, invitations, their first passkey, and leaving.

=========================  ======================================================================================
``GET /signin?next=PATH``  who are you? then PATH
``POST /signin/passkey``   the answer of a passkey, for whatever was asked
``POST /signin/recovery``  a recovery code
``POST /signout``          ends this browser's session
``GET /invite/CODE``       shows an invitation, and uses nothing up
``POST /invite/CODE``      takes it, and asks the browser to make a passkey
``POST /signin/enrol``     the passkey that was made
=========================  ======================================================================================
"""

import asyncio
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from doorward.asgi import RateLimit
from doorward.clock import Clock
from doorward.errors import BadInput, DoorwardError, NotPermitted
from doorward.login import pages, passkeys
from doorward.login.asking import (
    ADD,
    ENROL,
    SIGN_IN,
    Askings,
    OverAsking,
    Proven,
    Question,
    as_page,
    go_on,
    new_recovery_codes,
    recovery_digest,
)
from doorward.login.doors import Place, asker, safe_path
from doorward.login.invitations import Invitations, not_good
from doorward.login.leaving import Leaver, leaver, sign_out
from doorward.login.pages import Door
from doorward.login.sessions import LIFETIME as SESSION_LIFETIME
from doorward.login.sessions import cookie_name, set_cookie
from doorward.model import Asking, Invitation, Passkey, Role, Session, User
from doorward.store import Connection, audit, signin
from doorward.tailnet import secrets
from doorward.tailnet.names import user_name

CODES = "codes"  # the act before being given new recovery codes
_NAME_LIMIT = 60  # characters of a passkey's name


class Entrance:
    """The pages.

    Args:
        askings: the flow that they begin.
        invitations: who was invited.
        clock: for rate limits.
    """

    def __init__(self, askings: Askings, invitations: Invitations, clock: Clock) -> None:
        self._askings = askings
        self._registry = askings.registry
        self._sessions = askings.sessions
        self._invitations = invitations
        self._looks = RateLimit(rate=2.0, burst=60.0, clock=clock)
        askings.acts |= {SIGN_IN: self._signed_in, ENROL: _linked, ADD: self._add, CODES: self._codes}

    def routes(self) -> list[Route]:
        """Where they are."""
        table = (
            ("/signin", self._sign_in, "GET"),
            ("/signin/passkey", self._askings.by_passkey, "POST"),
            ("/signin/recovery", self._askings.by_recovery_code, "POST"),
            ("/signin/enrol", self._enrol, "POST"),
            ("/signout", self._sign_out, "POST"),
            ("/invite/{code}", self._show_invitation, "GET"),
            ("/invite/{code}", self._take_invitation, "POST"),
        )
        return [
            Route(path, as_page(self._registry, endpoint), methods=[method])
            for path, endpoint, method in table
        ]

    @property
    def _tailnet(self) -> str:
        settings = self._registry.snapshot.settings
        return settings.display_name or settings.domain

    async def _sign_in(self, request: Request) -> Response:
        path = safe_path(request.query_params.get("next", "/me"))
        question = Question(f"Sign in to {self._tailnet}", "A passkey on this device is enough.")
        return await self._askings.begin(request, SIGN_IN, {"next": path}, question)

    async def _sign_out(self, request: Request) -> Response:
        place = self._askings.doors.require(request)
        await self._askings.form(request)
        visitor = await self._sessions.visitor(request)
        if visitor.signed_in is not None:
            writer = self._registry.writer
            who = leaver(visitor, visitor.signed_in.user, secrets.base32(writer.entropy(15)))
            await writer.database.run(_sign_out, who, writer.now())
        response = go_on("/signin")
        set_cookie(response, place, cookie_name(place), "", SESSION_LIFETIME)
        return response

    async def _signed_in(self, request: Request, proven: Proven, argument: Any) -> Response:
        if proven.method == "recovery":  # whoever needs a code has lost their passkeys
            return await self._ask_to_make(request, proven.user)
        return go_on(safe_path(str(argument["next"])))

    # Invitations ----------------------------------------------------------------------------------------------------

    async def _show_invitation(self, request: Request) -> Response:
        place = self._askings.doors.require(request)
        self._looks.take(asker(request))
        invitation = await self._invitations.look(request.path_params["code"])
        if invitation is None:
            raise not_good()
        return self._invited(place, invitation)

    def _invited(self, place: Place, invitation: Invitation, error: DoorwardError | None = None) -> Response:
        user = self._invited_user(invitation)
        return pages.page(
            "invite.html",
            tailnet=self._tailnet,
            door=Door.AJAR,
            label="you are invited",
            status=200 if error is None else error.status,
            before=None if user is None else pages.person_side(user.name, user.id, "invited"),
            behind=pages.tailnet_side(self._tailnet),
            user=user,
            place=place,
            left=pages.duration((invitation.expires - self._registry.writer.now()).total_seconds()),
            error=error,
        )

    def _invited_user(self, invitation: Invitation) -> User | None:
        """Whom it is for; None for the first owner. Raises NotFound for somebody who was deleted meanwhile."""
        if invitation.user_id is None:
            return None
        user = self._registry.snapshot.users.get(invitation.user_id)
        if user is None:
            raise not_good()
        return user

    async def _take_invitation(self, request: Request) -> Response:
        form = await self._askings.form(request)
        place, code = self._askings.doors.require(request), request.path_params["code"]
        invitation = await self._invitations.look(code)
        if invitation is None:
            raise not_good()
        user = self._invited_user(invitation)
        if user is None:
            try:  # before the link is spent: a name that cannot be one costs nothing
                name = user_name(form.get("name", ""))
            except BadInput as error:
                return self._invited(place, invitation, error)
            user = self._registry.snapshot.user_by_name(name)
            if user is not None and user.suspended:
                refusal = BadInput(f"{name} is suspended", cure="Choose another name.")
                return self._invited(place, invitation, refusal)
            await self._invitations.take(code)
            if user is None:
                user = await self._registry.create_user("invitation", name, role=Role.OWNER)
            elif user.role is not Role.OWNER:
                user = await self._registry.set_role("invitation", name, Role.OWNER)
        else:
            await self._invitations.take(code)
        return await self._ask_to_make(request, user)

    # Passkeys -------------------------------------------------------------------------------------------------------

    async def _ask_to_make(self, request: Request, user: User) -> Response:
        question = Question("Make a passkey", "")
        asking, secret = await self._askings.keep(request, ENROL, {}, question, user=user)
        response = await self._making(request, asking, user)
        self._askings.hand_out(response, asking, secret)
        return response

    async def _making(
        self, request: Request, asking: Asking, user: User, error: NotPermitted | None = None
    ) -> Response:
        place = self._askings.doors.require(request)
        known = await self._registry.writer.database.read(signin.passkeys_of, user.id)
        options = passkeys.asked_to_make(place, asking.challenge, user, self._tailnet, tuple(known))
        return pages.page(
            "enrol.html",
            tailnet=self._tailnet,
            door=Door.AJAR,
            label="needs a passkey",
            status=200 if error is None else error.status,
            before=pages.person_side(user.name, user.id, "signs in with it"),
            behind=pages.tailnet_side(self._tailnet),
            script="passkey.js",
            asking=asking.id,
            options=msgspec.json.encode(options).decode(),
            place=place,
            user=user,
            name=_device_of(request.headers.get("user-agent", "")),
            providers=await self._askings.providers(),
            error=error,
        )

    async def _enrol(self, request: Request) -> Response:
        form = await self._askings.form(request)
        asking = await self._askings.current(request, form.get("asking", ""))
        user = self._registry.snapshot.users.get(asking.user_id or 0)
        if asking.act != ENROL or user is None:
            raise OverAsking
        if user.suspended:
            raise NotPermitted(f"{user.name} is suspended", cure="Ask an administrator.")
        place, writer = self._askings.doors.require(request), self._registry.writer
        try:
            made = await asyncio.to_thread(
                passkeys.check_made, form.get("answer", ""), place, asking.challenge
            )
        except NotPermitted as error:
            return await self._making(request, asking, user, error)
        now = writer.now()
        name = "".join(one for one in form.get("name", "") if one.isprintable()).strip()[:_NAME_LIMIT]
        passkey = Passkey(
            id=0,
            user_id=user.id,
            credential=made.credential,
            public_key=made.public_key,
            count=made.signatures,
            name=name or _device_of(request.headers.get("user-agent", "")),
            place=place.host,
            transports=made.transports,
            created=now,
        )
        before = await self._sessions.of(request)
        draft, secret = self._sessions.draft(request, place, user, "passkey", now)
        codes = new_recovery_codes(writer.entropy)
        first = await writer.database.run(
            _keep_passkey,
            user,
            asking,
            passkey,
            draft,
            None if before is None else before.session,
            [recovery_digest(code) for code in codes],
            now,
        )
        response = self._show_codes(user, codes) if first else go_on("/me")
        set_cookie(response, place, cookie_name(place), secret, SESSION_LIFETIME)
        self._askings.take_back(response, asking)
        return response

    async def _add(self, request: Request, proven: Proven, _: Any) -> Response:
        return await self._ask_to_make(request, proven.user)

    # Recovery codes -------------------------------------------------------------------------------------------------

    async def _codes(self, request: Request, proven: Proven, _: Any) -> Response:
        del request
        codes = new_recovery_codes(self._registry.writer.entropy)
        await self._registry.writer.database.run(
            _keep_codes, proven.user, [recovery_digest(code) for code in codes], self._registry.writer.now()
        )
        return self._show_codes(proven.user, codes)

    def _show_codes(self, user: User, codes: list[str]) -> Response:
        return pages.page(
            "codes.html",
            tailnet=self._tailnet,
            door=Door.OPEN,
            label="signed in",
            before=pages.person_side(user.name, user.id, "signed in"),
            behind=pages.tailnet_side(self._tailnet),
            codes=codes,
            user=user,
        )


async def _linked(request: Request, proven: Proven, _: Any) -> Response:
    """Somebody who was invited signs in at a provider instead of making a passkey."""
    del request, proven
    return go_on("/me")


_SYSTEMS = (
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Android", "Android"),
    ("Macintosh", "Mac"),
    ("Windows", "Windows"),
    ("Linux", "Linux"),
)


def _device_of(agent: str) -> str:
    """A name to begin with, from what the browser calls itself."""
    return next((name for mark, name in _SYSTEMS if mark in agent), "passkey")


def _sign_out(connection: Connection, who: Leaver, now: Any) -> None:
    person, details = (
        f"user:{who.user.name}",
        {"session": who.session, "grants": sign_out(connection, who, now)},
    )
    audit.append(connection, person, "user.signout", person, details, now)


def _keep_codes(connection: Connection, user: User, digests: list[bytes], now: Any) -> None:
    signin.replace_recovery_codes(connection, user.id, digests)
    person = f"user:{user.name}"
    audit.append(connection, person, "user.codes", person, {"count": len(digests)}, now)


def _keep_passkey(
    connection: Connection,
    user: User,
    asking: Asking,
    draft: Passkey,
    session: Session,
    before: Session | None,
    digests: list[bytes],
    now: Any,
) -> bool:
    """Store a passkey and sign in with it; true if recovery codes came with it, as they do with the first."""
    if not signin.take_asking(connection, asking.id, now):
        raise OverAsking
    first = not signin.recovery_codes_left(connection, user.id)
    kept = signin.insert_passkey(connection, draft)
    session = msgspec.structs.replace(session, method=f"passkey:{kept.id}")
    kept_session = None
    if before is not None and before.user_id == user.id:
        kept_session = signin.renew_session(connection, before.id, session)  # apps know them by it
    elif before is not None:
        signin.end_sessions(connection, now, session_id=before.id)
    if kept_session is None:
        signin.insert_session(connection, session)
    person = f"user:{user.name}"
    details = {"passkey": kept.id, "name": kept.name, "at": session.origin, "from": session.address}
    audit.append(connection, person, "user.passkey.add", person, details, now)
    if first:
        _keep_codes(connection, user, digests, now)
    return first
