"""``/register``: apps that register themselves, and change that (RFC 7591, RFC 7592, OpenID Connect Dynamic Client Registration).

::

    who may                                          what it gets
    a program with an invitation                     an app, and a key to change it with
    a program on a device whose person the policy    the same; it goes when the person does
      lets (``doorward.dev/cap/register-apps``)
    anybody, for hosts that the settings name        an app that nobody can change; the same one for the same words

Whatever registers is asked about, for each person, until an administrator approves of it. A device is used by every page on it: so
who may by their device may only where no browser had a hand in it, as any page could register in the name of who looks at it.
"""

import hmac
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from doorward.asgi import RateExceeded, RateLimit, json_answer, read_body
from doorward.errors import BadInput
from doorward.issuer.decision import Known
from doorward.issuer.described import LARGEST, Described, fields_of, read
from doorward.issuer.desk import Desk, opened
from doorward.issuer.errors import OAuthError, TokenError
from doorward.issuer.who import who_is
from doorward.login.apps import CLIENT, SECRET
from doorward.login.doors import asker
from doorward.model import App, AppInvitation, Brought
from doorward.policy.apps import may_register
from doorward.store import Connection, apps, audit, comers
from doorward.tailnet import secrets

KEY = "dwappkey"  # how the key begins with which an app changes what it said
ANYBODY = "anybody"
_MOST_OF_ONE, _MOST_OF_ANYBODY = 20, 200  # apps that somebody's programs have registered, and strangers
_PER_SECOND, _BURST = 1 / 30, 20.0
_FAILURES_PER_SECOND, _FAILURES = 0.5, 30.0
_OURS = ("registration_access_token", "registration_client_uri", "client_id_issued_at")

# A browser sends Origin with every POST of a page, and Sec-Fetch-Site with everything. Node.js sends Sec-Fetch-Mode from any program.
_BY_BROWSERS = frozenset(("origin", "sec-fetch-site", "sec-fetch-dest", "sec-fetch-user"))


class _Registrar(NamedTuple):
    """At whose word an app is registered."""

    actor: str
    owner_id: int | None = None
    invitation: AppInvitation | None = None

    @property
    def anybody(self) -> bool:
        """True where it is nobody's."""
        return self.actor == ANYBODY


class Registration:
    """The endpoints.

    Args:
        desk: the issuer's.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._rate = RateLimit(rate=_PER_SECOND, burst=_BURST, clock=desk.clock)
        self._failures = RateLimit(rate=_FAILURES_PER_SECOND, burst=_FAILURES, clock=desk.clock)

    # To register -----------------------------------------------------------------------------------------------------

    async def offered(self, request: Request) -> bool:
        """True where whoever asks may register something, or could with what an administrator has given them."""
        if self._desk.trust.callbacks:
            return True
        if await self._desk.database.read(comers.any_invitation, self._desk.now()):
            return True
        return await self._person(request) is not None

    async def register(self, request: Request) -> Response:
        """``POST /register`` (RFC 7591 section 3). Raises TokenError."""
        self._desk.require_door(request)
        self._limit(self._failures.check, asker(request))
        registrar = await self._registrar(request)
        if registrar.invitation is None:
            self._limit(self._rate.take, asker(request))
        said = _described(await _body(request))
        if registrar.anybody and not all(map(self._desk.trust.answers, said.redirect_uris)):
            raise TokenError("invalid_redirect_uri", "apps that are answered there may not register here")
        secret = self._desk.secret(SECRET) if said.method != "none" else None
        key = None if registrar.anybody else self._desk.secret(KEY)
        number = self._desk.random(15)
        draft = self._app(said, registrar, f"{CLIENT}-{number}", secret, key)
        made = await self._desk.database.run(_register, draft, registrar, self._desk.now())
        if isinstance(made, str):
            raise TokenError("access_denied", made, status=403)
        shown = None if made.signs or secret is None or made.client_id != draft.client_id else secret.text
        return _answer(self._desk.issuer, made, 201, secret=shown, key="" if key is None else key.text)

    async def _registrar(self, request: Request) -> _Registrar:
        """Raises TokenError for who may not."""
        token = _bearer(request)
        if token:
            found = await self._desk.database.read(comers.invitation, secrets.digest(token), self._desk.now())
            if found is None:
                self._failures.take(asker(request))
                raise _unknown("this invitation is not good, or not good any more")
            return _Registrar(f"invitation:{found.id}", invitation=found)
        if any(name in _BY_BROWSERS for name in request.headers):
            raise _unknown("a page may register an app with an invitation and in no other way")
        registrar = await self._person(request)
        if registrar is not None:
            return registrar
        if self._desk.trust.callbacks:
            return _Registrar(ANYBODY)
        raise _unknown("apps register here with an invitation: doorward apps invite")

    async def _person(self, request: Request) -> _Registrar | None:
        """Who is at the other end, by their device, where the policy lets their programs register."""
        who = await who_is(self._desk, request)
        if who.known is not Known.DEVICE or who.user is None or who.node_id is None:
            return None
        if not may_register(self._desk.registry.snapshot.policy, who.user.id, who.node_id):
            return None
        return _Registrar(f"user:{who.user.name}", who.user.id)

    def _app(
        self,
        said: Described,
        registrar: _Registrar,
        client_id: str,
        secret: secrets.Secret | None,
        key: secrets.Secret | None,
    ) -> App:
        before = Brought(title="", key_hash=b"" if key is None else key.digest)
        return App(
            id=0,
            # Never a name that an administrator can have given to an app.
            name=f"registered~{client_id.removeprefix(CLIENT + '-')[:12].lower()}",
            client_id=client_id,
            secret_hash=b"" if secret is None else secret.digest,
            asks=True,
            owner_id=registrar.owner_id,
            actor=registrar.actor,
            created=self._desk.now(),
            **fields_of(said, before),
        )

    # To change it ----------------------------------------------------------------------------------------------------

    async def manage(self, request: Request) -> Response:
        """``GET``, ``PUT`` and ``DELETE /register/ID`` (RFC 7592 section 2). Raises TokenError."""
        desk = self._desk
        desk.require_door(request)
        app = await self._own(request)
        if request.method == "DELETE":
            await desk.database.run(_delete, app, desk.now())
            return opened(Response(status_code=204, headers={"Cache-Control": "no-store"}))
        if request.method == "GET":
            return _answer(desk.issuer, app, 200)
        body = await _body(request)
        said = _described(body)
        _check_change(body, app, said)
        changed = await desk.database.run(_change, app.id, said, desk.now())
        if changed is None:
            raise _unknown()
        return _answer(desk.issuer, changed, 200)

    async def _own(self, request: Request) -> App:
        self._limit(self._failures.check, asker(request))
        app = await self._desk.app(request.path_params["client_id"])
        wanted = b"" if app is None or app.brought is None else app.brought.key_hash
        if app is None or not wanted or not hmac.compare_digest(secrets.digest(_bearer(request)), wanted):
            self._failures.take(asker(request))
            raise _unknown()
        return app

    @staticmethod
    def _limit(spend: Any, key: str) -> None:
        try:
            spend(key)
        except RateExceeded as error:
            raise TokenError("temporarily_unavailable", error.message, status=429) from None


def _register(connection: Connection, draft: App, registrar: _Registrar, now: datetime) -> App | str:
    """The app; one that is there already, for the same words of a public one. Text says why not."""
    if registrar.invitation is not None and not comers.use_invitation(
        connection, registrar.invitation.id, now
    ):
        return "this invitation is not good, or not good any more"
    there = comers.registered_by(connection, registrar.actor)
    if draft.public:
        same = next((one for one in there if _same(one, draft)), None)
        if same is not None:
            return apps.update(connection, msgspec.structs.replace(same, brought=_rekeyed(same, draft)))
    most = _MOST_OF_ANYBODY if registrar.anybody else _MOST_OF_ONE
    if registrar.invitation is None and len(there) >= most:
        return f"{len(there)} apps were registered so already, and no more may be"
    made = apps.insert(connection, draft)
    _note(connection, registrar.actor, "app.create", made, now)
    return made


def _same(one: App, draft: App) -> bool:
    """True for apps that have said the same."""
    there = msgspec.structs.replace(
        one,
        id=0,
        name=draft.name,
        client_id=draft.client_id,
        created=draft.created,
        brought=_rekeyed(one, draft, approved=()),
    )
    return there == draft


def _rekeyed(one: App, draft: App, **changes: Any) -> Brought:
    """What an app has said, with the key of another registration: who registers last may change it."""
    assert one.brought is not None
    assert draft.brought is not None
    return msgspec.structs.replace(one.brought, key_hash=draft.brought.key_hash, **changes)


def _change(connection: Connection, app_id: int, said: Described, now: datetime) -> App | None:
    app = apps.by_id(connection, app_id)
    if app is None or app.brought is None:
        return None
    changed = apps.update(connection, msgspec.structs.replace(app, **fields_of(said, app.brought)))
    _note(connection, f"app:{app.name}", "app.change", changed, now)
    return changed


def _delete(connection: Connection, app: App, now: datetime) -> None:
    if apps.by_id(connection, app.id) is not None:
        apps.delete(connection, app.id, now)
        _note(connection, f"app:{app.name}", "app.delete", app, now)


def _note(connection: Connection, actor: str, action: str, app: App, now: datetime) -> None:
    details = {
        "client_id": app.client_id,
        "redirect_uris": list(app.redirect_uris),
        "title": app.title,
        "public": app.public,
        "signed_out_uris": list(app.signed_out_uris),
        "logout_url": app.logout_url,
    }
    audit.append(connection, actor, action, f"app:{app.name}", details, now)


async def _body(request: Request) -> bytes:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise TokenError("invalid_client_metadata", "what an app says of itself is application/json")
    try:
        return await read_body(request, LARGEST)
    except BadInput as error:
        raise TokenError("invalid_client_metadata", error.message, status=error.status) from None


def _described(body: bytes) -> Described:
    try:
        return read(body, usual="client_secret_basic")
    except OAuthError as error:
        raise TokenError(error.code, error.message) from None


def _check_change(body: bytes, app: App, said: Described) -> None:
    """RFC 7592 section 2.2."""
    found = msgspec.json.decode(body)  # it was read as an object before
    if found.get("client_id") != app.client_id:
        raise TokenError("invalid_client_metadata", "client_id is the app's own")
    if any(name in found for name in _OURS):
        raise TokenError("invalid_client_metadata", f"{', '.join(_OURS)} are not sent back")
    given = found.get("client_secret")
    if given is not None and (
        not isinstance(given, str) or not hmac.compare_digest(secrets.digest(given), app.secret_hash)
    ):
        raise TokenError("invalid_client_metadata", "client_secret is the app's own")
    assert app.brought is not None
    if said.method != app.brought.method:
        raise TokenError(
            "invalid_client_metadata", "how an app shows who it is stays as it is: register another one"
        )


def _bearer(request: Request) -> str:
    scheme, _, text = request.headers.get("authorization", "").partition(" ")
    return text.strip() if scheme.lower() == "bearer" else ""


def _unknown(why: str = "this app is not known, or the key is not its own") -> TokenError:
    challenge = f'Bearer realm="doorward", error="invalid_token", error_description="{why}"'
    return TokenError("invalid_token", why, status=401, challenge=challenge)


def _answer(issuer: str, app: App, status: int, *, secret: str | None = None, key: str = "") -> Response:
    """What is kept of an app, as it would say it (RFC 7591 section 3.2.1)."""
    brought = app.brought
    assert brought is not None
    told: dict[str, Any] = {
        "client_id": app.client_id,
        "client_id_issued_at": int(app.created.timestamp()),
        "client_name": brought.title,
        "redirect_uris": list(app.redirect_uris),
        "response_types": ["code"],
        "grant_types": ["authorization_code", *(["refresh_token"] if brought.refreshes else [])],
        "token_endpoint_auth_method": brought.method,
        "application_type": "native" if brought.native else "web",
        "subject_type": "public",
        "id_token_signed_response_alg": app.algorithm,
        "require_pushed_authorization_requests": app.pushed_only,
        "dpop_bound_access_tokens": app.dpop,
    }
    if app.logout_url:
        told["backchannel_logout_session_required"] = True  # both sub and sid are always told
    more = {
        "client_uri": brought.site,
        "policy_uri": brought.policy,
        "tos_uri": brought.terms,
        "initiate_login_uri": brought.login_uri,
        "post_logout_redirect_uris": list(app.signed_out_uris),
        "backchannel_logout_uri": app.logout_url,
        "jwks_uri": app.keys_url,
        "jwks": {"keys": list(app.keys)} if app.keys else None,
    }
    told |= {name: value for name, value in more.items() if value}
    if secret is not None:
        told |= {"client_secret": secret, "client_secret_expires_at": 0}
    if brought.key_hash:
        told["registration_client_uri"] = f"{issuer}/register/{app.client_id}"
    if key:
        told["registration_access_token"] = key
    response = opened(json_answer(told, status))
    response.headers["Cache-Control"] = "no-store"
    return response
