"""Asking who sits before a browser, and doing what waited for the answer.

::

    a page's POST ──▶ begin ──▶ "prove.html" ──▶ a passkey, a provider or a recovery code
                        │ row and cookie                │
                        └────────── taken once ◀────────┘──▶ session, audit, and then the act

Everything that needs a proof goes this way, signing in too. The network's word is never enough here: a device says whose it
is, not who holds it. An *asking* is a row that says what for, who has to answer and where, and whose secret is in a cookie of the
one browser that began it: an answer from another browser, another place, a second time or too late proves nothing, and a proof
for one thing is none for another.
"""

import asyncio
import functools
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import msgspec
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from doorward.asgi import RateLimit, WrongMediaType, read_body, refuse_cross_origin
from doorward.clock import Clock
from doorward.errors import BadInput, Conflict, DoorwardError, NotFound, NotPermitted
from doorward.login import pages, passkeys
from doorward.login.doors import Doors, Place, asker
from doorward.login.pages import Door
from doorward.login.sessions import LIFETIME as SESSION_LIFETIME
from doorward.login.sessions import Sessions, cookie_name, set_cookie
from doorward.model import Asking, Passkey, Session, User
from doorward.store import Connection, audit, signin
from doorward.tailnet import secrets
from doorward.tailnet.registry import Registry
from doorward.telemetry import counter

LIFETIME = timedelta(minutes=10)
SIGN_IN = "signin"  # the act of signing in: a session and nothing more
LINK = "link"  # a one-time link that signs in (``login.links``)
ENROL = "enrol"  # the act of making a passkey, for whom a proof or an invitation was taken
ADD = "passkey"  # the act of showing who one is before making another passkey
RECOVERABLE = frozenset((SIGN_IN, ADD))  # what a recovery code is enough for
_MOST_ASKINGS = 20  # of one browser that are looked at
_FORM_LIMIT = 32_768  # bytes
# A person mistypes; a program that tries codes (100 random bits) gets nowhere and is told so.
_FAILURES_PER_SECOND, _FAILURES = 0.2, 20.0
_BEGINS_PER_SECOND, _BEGINS = 2.0, 60.0  # a whole office behind one address
_POSTS_PER_SECOND, _POSTS = 5.0, 100.0

_proofs = counter(
    "login_proofs_total", "Answers to who sits before a browser, by method and outcome", "method", "outcome"
)


class OverAsking(NotFound):
    """The question that this answers was answered, is too old, or was another browser's."""

    problem = "over"

    def __init__(self) -> None:
        super().__init__(
            "this question is over",
            cure="Go back to the page where you began, load it again, and answer the new one within ten minutes.",
        )


class Proven(NamedTuple):
    """Who sits there, and how that was shown a moment ago."""

    user: User
    session: Session
    method: str  # "passkey:ID", "provider:NAME", "recovery", "link"


class Question(NamedTuple):
    """What a person is asked, in words."""

    title: str
    text: str
    elsewhere: str = ""  # where it may be answered from another device; for whoever answers


Act = Callable[[Request, Proven, Any], Awaitable[Response]]


class Waiting(msgspec.Struct, frozen=True):
    """What ``Asking.argument`` holds: the act's own argument, and what the page says."""

    of: Any
    title: str
    text: str
    elsewhere: str = ""


class Answer(NamedTuple):
    """Something that was shown: by whom, and what is to be noted of it in the same transaction."""

    user: User
    method: str
    proven: datetime
    note: Callable[[Connection], object] = lambda _connection: None


class Askings:
    """The flow.

    Args:
        registry: the tailnet, and the store.
        sessions: who has signed in.
        doors: where people come in.
        clock: for rate limits.

    Attributes:
        acts: what is done once somebody has shown who they are; each service adds its own before the first request.
    """

    def __init__(self, registry: Registry, sessions: Sessions, doors: Doors, clock: Clock) -> None:
        self.registry = registry
        self.sessions = sessions
        self.doors = doors
        self.acts: dict[str, Act] = {}
        # What else there is to answer with: buttons of the page, by name.
        self.providers: Callable[[], Awaitable[list[str]]] = _none
        self._failures = RateLimit(rate=_FAILURES_PER_SECOND, burst=_FAILURES, clock=clock)
        self._posts = RateLimit(rate=_POSTS_PER_SECOND, burst=_POSTS, clock=clock)
        self._begins = RateLimit(rate=_BEGINS_PER_SECOND, burst=_BEGINS, clock=clock)

    # Asking ---------------------------------------------------------------------------------------------------------

    async def begin(
        self, request: Request, act: str, argument: Any, question: Question, *, user: User | None = None
    ) -> Response:
        """Ask; the page to answer with.

        Args:
            request: where the browser is; raises WrongDoor under a name that is not ours.
            act: what to do then, one of ``acts``.
            argument: for the act; JSON.
            question: in words.
            user: who has to answer; None for whoever can.

        Raises:
            RateExceeded: this address has asked for too many.
        """
        asking, secret = await self.keep(request, act, argument, question, user=user)
        response = await self.page(asking)
        self.hand_out(response, asking, secret)
        return response

    async def keep(
        self, request: Request, act: str, argument: Any, question: Question, *, user: User | None = None
    ) -> tuple[Asking, str]:
        """As ``begin``, without a page: the asking, and the secret for ``hand_out``."""
        place = self.doors.require(request)
        self._begins.take(asker(request))
        writer = self.registry.writer
        now, secret = writer.now(), secrets.base32(writer.entropy(20))
        draft = Asking(
            id=0,
            secret_hash=secrets.digest(secret),
            act=act,
            argument=msgspec.json.encode(Waiting(argument, *question)).decode(),
            user_id=None if user is None else user.id,
            origin=place.origin,
            challenge=writer.entropy(32),
            created=now,
            expires=now + LIFETIME,
        )
        return await writer.database.run(signin.insert_asking, draft), secret

    def hand_out(self, response: Response, asking: Asking, secret: str) -> None:
        """Give the browser what shows that it is the one that was asked."""
        place = self._place(asking)
        set_cookie(response, place, _cookie(place, asking.id), secret, LIFETIME)

    def take_back(self, response: Response, asking: Asking) -> None:
        """Have the browser forget that it was asked."""
        place = self._place(asking)
        set_cookie(response, place, _cookie(place, asking.id), "", LIFETIME)

    async def page(self, asking: Asking, error: DoorwardError | None = None) -> Response:
        """The page to answer with; with an error, what was wrong with the last answer."""
        snapshot, place = self.registry.snapshot, self._place(asking)
        waiting = msgspec.json.decode(asking.argument, type=Waiting)
        user = None if asking.user_id is None else snapshot.users.get(asking.user_id)
        known = await self._passkeys(asking)
        here = [one for one in known if one.place == place.host]
        providers = await self.providers()
        return pages.page(
            "prove.html",
            tailnet=snapshot.settings.display_name or snapshot.settings.domain,
            door=Door.SHUT if asking.act == SIGN_IN else Door.AJAR,
            label="sign in" if asking.act == SIGN_IN else "asks who you are",
            status=200 if error is None else error.status,
            before=None if user is None else pages.person_side(user.name, user.id, "to show it"),
            script="passkey.js",
            title=waiting.title,
            text=waiting.text,
            asking=asking.id,
            # Somebody without a passkey here cannot use one; who it is may not be known yet.
            passkey=user is None or bool(here),
            options=msgspec.json.encode(
                passkeys.asked_to_sign(place, asking.challenge, tuple(here))
            ).decode(),
            at_once=error is None and asking.act != SIGN_IN,
            elsewhere=sorted({one.place for one in known} - {place.host}),
            providers=providers,
            recovery=asking.act in RECOVERABLE,
            elsewhere_at=waiting.elsewhere if user is None else "",
            user=user,
            error=error,
        )

    async def _passkeys(self, asking: Asking) -> list[Passkey]:
        if asking.user_id is None:
            return []
        return await self.registry.writer.database.read(signin.passkeys_of, asking.user_id)

    def _place(self, asking: Asking) -> Place:
        known = (self.doors.main, self.doors.local)
        return next(
            (one for one in known if one is not None and one.origin == asking.origin), self.doors.main
        )

    # Answering ------------------------------------------------------------------------------------------------------

    async def current(self, request: Request, number: str) -> Asking:
        """The asking with this number, if this browser is the one that was asked, at this place. Raises OverAsking."""
        place = self.doors.require(request)
        if not (number.isascii() and number.isdecimal() and len(number) < 19):
            raise OverAsking
        secret = request.cookies.get(_cookie(place, int(number)), "")
        writer = self.registry.writer
        found = await writer.database.read(signin.asking_by_hash, secrets.digest(secret), writer.now())
        if found is None or str(found.id) != number or found.origin != place.origin:
            raise OverAsking
        return found

    def held(self, request: Request, asking: Asking) -> str:
        """The secret of the browser that was asked; of another one, something else."""
        return request.cookies.get(_cookie(self._place(asking), asking.id), "")

    def numbers(self, request: Request) -> list[str]:
        """The askings that this browser says it holds, newest first."""
        prefix = _cookie(self.doors.require(request), 0).removesuffix("0")
        found = [name.removeprefix(prefix) for name in request.cookies if name.startswith(prefix)]
        return sorted(found, key=lambda one: (len(one), one), reverse=True)[:_MOST_ASKINGS]

    async def answer(self, request: Request, asking: Asking, answer: Answer) -> Response:
        """Take an answer that holds, and do what waited for it.

        Raises:
            NotPermitted: it is somebody's who may not answer.
            OverAsking: it was answered already.
        """
        user, writer = answer.user, self.registry.writer
        if user.suspended:
            raise NotPermitted(f"{user.name} is suspended", cure="Ask an administrator.")
        if asking.user_id not in {None, user.id}:
            other = self.registry.snapshot.users.get(asking.user_id or 0)
            raise NotPermitted(
                f"that is {user.name}, and {'somebody else' if other is None else other.name} is asked",
                cure="Sign out, and in again as the one who is asked."
                if other is None
                else f"{other.name} has to answer.",
            )
        place = self._place(asking)
        before = await self.sessions.of(request)
        draft, secret = self.sessions.draft(request, place, user, answer.method, answer.proven)
        session = await writer.database.run(
            _take, asking, answer, draft, None if before is None else before.session, writer.now()
        )
        _proofs.labels(answer.method.partition(":")[0], "good").inc()
        response = await self.act(request, asking, Proven(user, session, answer.method))
        # A second request with the old cookie, on its way already, finds nobody signed in and asks again.
        set_cookie(response, place, cookie_name(place), secret, SESSION_LIFETIME)
        self.take_back(response, asking)
        return response

    async def act(self, request: Request, asking: Asking, proven: Proven) -> Response:
        """Do what an asking was for. A refusal is a page, since the proof itself has been taken."""
        try:
            argument = msgspec.json.decode(asking.argument, type=Waiting).of
            return await self.acts[asking.act](request, proven, argument)
        except DoorwardError as error:
            return refused(self.registry, error)

    async def by_passkey(self, request: Request) -> Response:
        """``POST /signin/passkey``: the answer of a passkey."""
        return await self._by(request, "passkey", self._passkey_answer)

    async def by_recovery_code(self, request: Request) -> Response:
        """``POST /signin/recovery``: one of the codes that a person has kept for this."""
        return await self._by(request, "recovery", self._recovery_answer)

    async def _by(
        self,
        request: Request,
        method: str,
        read: Callable[[Asking, Mapping[str, str]], Awaitable[Answer]],
    ) -> Response:
        form = await self.form(request)
        self._failures.check(asker(request))
        asking = await self.current(request, form.get("asking", ""))
        try:
            return await self.answer(request, asking, await read(asking, form))
        except NotPermitted as error:
            self._failures.take(asker(request))
            _proofs.labels(method, "refused").inc()
            return await self.page(asking, error)

    async def _passkey_answer(self, asking: Asking, form: Mapping[str, str]) -> Answer:
        writer, given = self.registry.writer, form.get("answer", "")
        found = await writer.database.read(signin.passkey_by_credential, passkeys.credential_of(given))
        user = None if found is None else self.registry.snapshot.users.get(found.user_id)
        if found is None or user is None:
            raise passkeys.BadPasskey(
                "this passkey is not known here",
                cure="Use another one, or ask an administrator for an invitation.",
            )
        place = self._place(asking)
        count = await asyncio.to_thread(passkeys.check_signature, given, place, asking.challenge, found)
        now = writer.now()
        note = functools.partial(_passkey_used, passkey=found, count=count, now=now)
        return Answer(user, f"passkey:{found.id}", now, note)

    async def _recovery_answer(self, asking: Asking, form: Mapping[str, str]) -> Answer:
        writer = self.registry.writer
        if asking.act not in RECOVERABLE:
            raise NotPermitted("a recovery code is not enough for this", cure="Use a passkey.")
        digest = recovery_digest(form.get("code", ""))
        owner = await writer.database.read(signin.recovery_code_owner, digest)
        user = None if owner is None else self.registry.snapshot.users.get(owner)
        if user is None:
            raise NotPermitted(
                "this recovery code is not known, or was used", cure="Each code is good once. Try another."
            )
        now = writer.now()
        return Answer(user, "recovery", now, functools.partial(_code_used, digest=digest, now=now))

    async def form(self, request: Request) -> dict[str, str]:
        """The fields that a page of ours has posted. Raises NotPermitted for another's page, RateExceeded for too many."""
        refuse_cross_origin(request.method, request.headers)
        self._posts.take(asker(request))
        return await read_form(request)


async def read_form(request: Request) -> dict[str, str]:
    """The fields of a posted form, each once. Raises BadInput."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise WrongMediaType("this is not a form that a page of ours sends")
    return parse_form(await read_body(request, _FORM_LIMIT))


def parse_form(raw: bytes) -> dict[str, str]:
    """The fields of a urlencoded form, each once. Raises BadInput."""
    pairs = parse_pairs(raw)
    if len({name for name, _ in pairs}) != len(pairs):
        raise BadInput("a field of the form is given twice")
    return dict(pairs)


def parse_pairs(raw: bytes, most: int = 20) -> list[tuple[str, str]]:
    """The fields of a urlencoded form or query, in order. Raises BadInput."""
    try:
        return parse_qsl(raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=most)
    except ValueError as error:
        raise BadInput(f"the form cannot be read: {error}") from None


def refused(registry: Registry, error: DoorwardError) -> Response:
    """An error as a page."""
    settings = registry.snapshot.settings
    door = Door.BARRED if isinstance(error, NotPermitted) else Door.SHUT
    return pages.refusal(error, tailnet=settings.display_name or settings.domain, door=door)


def as_page(
    registry: Registry, endpoint: Callable[[Request], Awaitable[Response]]
) -> Callable[[Request], Awaitable[Response]]:
    """An endpoint whose errors are pages."""

    @functools.wraps(endpoint)
    async def guarded(request: Request) -> Response:
        try:
            return await endpoint(request)
        except DoorwardError as error:
            return refused(registry, error)

    return guarded


def go_on(path: str) -> Response:
    """Where to look next, after a POST (RFC 9110 section 15.4.4)."""
    return RedirectResponse(path, 303, {"Cache-Control": "no-store"})


def new_recovery_codes(entropy: Callable[[int], bytes], count: int = 10) -> list[str]:
    """Codes to be kept on paper: 100 random bits each, in fives of four letters and digits."""
    texts = (secrets.base32(entropy(13))[:20] for _ in range(count))
    return ["-".join(text[start : start + 4] for start in range(0, 20, 4)) for text in texts]


def recovery_digest(code: str) -> bytes:
    """What is stored of a code, however it was typed."""
    return secrets.digest("".join(one for one in code.lower() if one.isalnum()))


def _cookie(place: Place, number: int) -> str:
    """One for each asking, so that two tabs do not answer each other's."""
    return f"{cookie_name(place)}-asking-{number}"


def _take(
    connection: Connection,
    asking: Asking,
    answer: Answer,
    draft: Session,
    before: Session | None,
    now: datetime,
) -> Session:
    """One answer, once: with what is to be noted of it, the session, and the line in the audit log."""
    if not signin.take_asking(connection, asking.id, now):
        raise OverAsking
    answer.note(connection)
    session = None
    if before is not None and before.user_id == draft.user_id:
        session = signin.renew_session(connection, before.id, draft)
    elif before is not None:
        signin.end_sessions(connection, now, session_id=before.id)
    session = session or signin.insert_session(connection, draft)
    person = f"user:{answer.user.name}"
    details = {"by": answer.method, "at": asking.origin, "from": draft.address, "session": session.id}
    if asking.act in {SIGN_IN, LINK}:
        audit.append(connection, person, "user.signin", person, details, now)
    else:
        audit.append(connection, person, "user.prove", person, {"for": asking.act, **details}, now)
    return session


def _passkey_used(connection: Connection, *, passkey: Passkey, count: int, now: datetime) -> None:
    known = signin.passkey_by_credential(connection, passkey.credential)
    if known is None or (known.count and known.count != passkey.count):
        raise Conflict("this passkey has changed meanwhile", cure="Try once more.")
    signin.passkey_used(connection, known, count, now)


def _code_used(connection: Connection, *, digest: bytes, now: datetime) -> None:
    if signin.take_recovery_code(connection, digest, now) is None:
        raise NotPermitted("this recovery code was used already", cure="Each code is good once. Try another.")


async def _none() -> list[str]:
    return []
