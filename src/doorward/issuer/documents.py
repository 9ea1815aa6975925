"""Apps whose client id is the address of what they say of themselves: OAuth Client ID Metadata Documents (draft, revision 02).

::

    authorize ──▶ the address: may it be looked at, for whoever is there? ──▶ fetched, or known from before ──▶ the app
                                                                                            a first yes ──▶ kept

Nothing that such a document says is believed for more than it is: where answers may go, and what to show. That its host has said
it is all there is, so the page that asks names the host, and each person is asked until an administrator has said otherwise.
What is kept of it, so that tokens can be of it, is kept when the first person has said yes; it follows the document at every sign-in.
"""

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import msgspec

from doorward.errors import BadInput, DoorwardError, RemoteProtocolError
from doorward.issuer.described import Described, fields_of, read
from doorward.issuer.desk import Desk
from doorward.issuer.fetch import Fetch, Reach, check_address
from doorward.issuer.request import UnknownApp
from doorward.login.apps import name_of
from doorward.model import App, Brought
from doorward.store import Connection, apps, audit
from doorward.tailnet import secrets
from doorward.telemetry import log

LARGEST = 5120  # bytes of a document
ACTOR = "document"
_DOTS = re.compile(r"/(\.|%2e){1,2}(/|$)", re.IGNORECASE)
_SECRETS = ("client_secret", "client_secret_expires_at")

_log = log("issuer")


class Documents:
    """All of them.

    Args:
        desk: the issuer's.
        fetch: how others are asked.
    """

    def __init__(self, desk: Desk, fetch: Fetch) -> None:
        self._desk = desk
        self._fetch = fetch

    async def find(self, client_id: str, *, for_person: bool) -> App | None:
        """The app that calls itself so, as it describes itself now. One that is not kept yet has the id 0.

        ``for_person``: somebody is there whom we know. Raises UnknownApp for a document that is not looked at, or is not good.
        """
        desk = self._desk
        known = await desk.app(client_id)
        if not client_id.startswith("https:"):
            return known
        if not desk.trust.looks_at(client_id, for_person=for_person):
            raise _not_looked_at(desk, client_id, for_person=for_person)
        try:
            check_client_id(client_id)
            reach = Reach.GIVEN if desk.trust.knows(client_id) else Reach.OPEN
            said = await self._fetch.get(client_id, _Reader(client_id), limit=LARGEST, reach=reach)
        except DoorwardError as error:
            _log.info("what an app says of itself not read", url=client_id, reason=error.message)
            raise UnknownApp(
                f"what the app says of itself cannot be used: {error.message}",
                cure="Whoever runs the app mends it. Nobody was signed in.",
            ) from None
        app = _as_app(desk, client_id, said, known)
        if known is None:
            shared = await desk.database.read(apps.shared_resources)
            return msgspec.structs.replace(app, resources=shared)
        if app != known:
            draft = msgspec.structs.replace(app, resources=())
            await desk.database.run(_keep, draft, "app.change", desk.now())
        return app

    async def keep(self, app: App, actor: str) -> App:
        """The app with an id: a person has said yes to it, and what they give is of it from now on."""
        if app.id:
            return app
        draft = msgspec.structs.replace(app, resources=())
        kept = await self._desk.database.run(_keep, draft, "app.create", self._desk.now(), actor)
        return msgspec.structs.replace(kept, resources=app.resources)


@dataclass(frozen=True)
class _Reader:
    """What reads the document at one address."""

    url: str

    def __call__(self, body: bytes) -> Described:
        try:
            said = msgspec.json.decode(body, type=dict[str, Any])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise RemoteProtocolError("it is no JSON object") from None
        if said.get("client_id") != self.url:
            raise RemoteProtocolError("its client_id is not the address that it is at")
        if any(name in said for name in _SECRETS):
            raise RemoteProtocolError("there is a secret in it, which everybody can read")
        if not isinstance(said.get("client_name"), str) or not said["client_name"].strip():
            raise RemoteProtocolError("it does not say what the app is called (client_name)")
        found = read(body, usual="private_key_jwt" if "jwks" in said or "jwks_uri" in said else "none")
        if found.method not in {"none", "private_key_jwt"}:
            raise RemoteProtocolError("an app like this has no secret: it signs, or is a public one")
        return found


def check_client_id(url: str) -> None:
    """Raise BadInput for an address that is no client id (section 3 of the draft)."""
    check_address(url)
    path = urlsplit(url).path
    if path in {"", "/"} or _DOTS.search(path):
        raise BadInput("a client id that is an address has a path, without dots that mean another one")


def _as_app(desk: Desk, client_id: str, said: Described, known: App | None) -> App:
    signs = said.method == "private_key_jwt"
    unknown = secrets.digest(desk.random(32)) if signs else b""
    kept = known.secret_hash if known is not None and bool(known.secret_hash) is signs else unknown
    before = None if known is None else known.brought
    return App(
        id=0 if known is None else known.id,
        name=name_of(client_id) if known is None else known.name,
        client_id=client_id,
        secret_hash=kept,
        resources=() if known is None else known.resources,
        asks=True,
        actor=ACTOR if known is None else known.actor,
        created=desk.now() if known is None else known.created,
        **fields_of(said, before or Brought(title="")),
    )


def _keep(connection: Connection, app: App, action: str, now: Any, actor: str = ACTOR) -> App:
    found = apps.by_client_id(connection, app.client_id)
    if found is not None:
        # Somebody else has said yes meanwhile, or an administrator has approved of it: that word stays.
        approved = () if found.brought is None else found.brought.approved
        assert app.brought is not None
        brought = msgspec.structs.replace(app.brought, approved=approved)
        kept = apps.update(connection, msgspec.structs.replace(app, id=found.id, brought=brought))
        if action == "app.create":
            return kept
    else:
        kept = apps.insert(connection, app)
    details = {"client_id": app.client_id, "redirect_uris": list(app.redirect_uris), "public": app.public}
    audit.append(connection, actor, action, f"app:{app.name}", details, now)
    return kept


def _not_looked_at(desk: Desk, client_id: str, *, for_person: bool) -> UnknownApp:
    """Why not."""
    if for_person or desk.trust.blocks(client_id) or desk.trust.documents == "off":
        return UnknownApp(
            "apps of this address are not wanted here",
            cure="An administrator decides that, with the settings under apps.",
        )
    return UnknownApp(
        "nobody here knows this app yet",
        cure=f"Sign in first at {desk.issuer}/signin, and then try again from the app.",
    )
