"""What every part of the issuer works with: the tailnet, the keys, the door, and who is asking."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from doorward.asgi import read_body
from doorward.clock import Clock
from doorward.errors import BadInput
from doorward.issuer.claims import SCOPES
from doorward.issuer.errors import TokenError
from doorward.issuer.keys import Keys
from doorward.issuer.request import LARGEST, Pairs, canonical
from doorward.issuer.trust import Trust
from doorward.login.asking import Askings, parse_pairs
from doorward.login.doors import WrongDoor
from doorward.login.idtoken import Keys as ProviderKeySet
from doorward.model import App, Provider, User
from doorward.store import Connection, Database, apps, audit
from doorward.tailnet import secrets
from doorward.tailnet.registry import Registry
from doorward.telemetry import ORIGIN

FORM = "application/x-www-form-urlencoded"
MOST = 60  # fields of a request
CODE = "dwcode"
REFRESH = "dwrefresh"

# Anybody's page may read these: nothing that a browser sends by itself counts there.
OPEN = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Expose-Headers": "WWW-Authenticate, DPoP-Nonce",
    "Cross-Origin-Resource-Policy": "cross-origin",
}
PREFLIGHT = {
    **OPEN,
    "Access-Control-Allow-Methods": "GET, POST, PUT, DELETE, OPTIONS",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, DPoP",
    "Access-Control-Max-Age": "3600",
}

ProviderKeys = Callable[[Provider, bool], Awaitable[ProviderKeySet]]


class Desk:
    """One for each process.

    Args:
        askings: who sits before a browser, and where the door is.
        keys: what tokens are signed with.
        clock: for rate limits.
        provider_keys: what an outside provider signs with; it is told whether to look again.
        trust: whose apps may come by themselves.
    """

    def __init__(
        self,
        askings: Askings,
        keys: Keys,
        clock: Clock,
        provider_keys: ProviderKeys | None = None,
        trust: Trust | None = None,
    ) -> None:
        self.trust = trust or Trust()
        self.askings = askings
        self.keys = keys
        self.clock = clock
        self.provider_keys = provider_keys or _none_known
        self.issuer = askings.doors.main.base

    @property
    def registry(self) -> Registry:
        """The tailnet."""
        return self.askings.registry

    @property
    def database(self) -> Database:
        """The store."""
        return self.registry.writer.database

    def now(self) -> datetime:
        """The time."""
        return self.registry.writer.now()

    def random(self, size: int = 20) -> str:
        """So many random bytes as text."""
        return secrets.base32(self.registry.writer.entropy(size))

    def secret(self, kind: str) -> secrets.Secret:
        """A new secret of this kind."""
        return secrets.make(kind, self.registry.writer.entropy(secrets.ENTROPY))

    def require_door(self, request: Request) -> None:
        """Raise WrongDoor for a request under another name than the issuer's: what it would say would be of another issuer."""
        if self.askings.doors.of(request) != self.askings.doors.main:
            raise WrongDoor("apps sign people in at the door alone", cure=f"The issuer is {self.issuer}.")

    async def app(self, client_id: str) -> App | None:
        """The app that calls itself so, as it may be used now."""
        found = await self.database.find(apps.by_client_ids, client_id) if client_id else None
        return found if found is None or found.brought is None else await self._brought(found)

    async def _brought(self, app: App) -> App | None:
        """One that came by itself: with what such apps may have tokens for. None where it is not wanted any more."""
        if app.is_document and self.trust.blocks(app.client_id):
            return None
        if app.owner_id is not None:
            owner = self.registry.snapshot.users.get(app.owner_id)
            if owner is None or owner.suspended:
                return None
        return msgspec.structs.replace(app, resources=await self.database.read(apps.shared_resources))

    @property
    def userinfo(self) -> str:
        """Where apps ask about people, which tokens may be for by name (RFC 9728 section 2)."""
        return f"{self.issuer}/userinfo"

    def resources(self, app: App) -> tuple[str, ...]:
        """What a person's tokens may be for in an app: what is its own, and our own word about the person."""
        return (*app.resources, self.userinfo)

    async def scopes_known(self, app: App, pairs: Pairs) -> frozenset[str]:
        """The scopes that an app may ask for: those about people, its own, and those of the resources that it names.

        Whoever a resource belongs to has said what may be done there; only an administrator makes apps that say so.
        """
        named = {canonical(value) for name, value in pairs if name == "resource"}
        wanted = named & set(map(canonical, app.resources))
        return frozenset(SCOPES).union(app.scopes, await self.scopes_there(wanted))

    async def scopes_there(self, resources: Iterable[str]) -> frozenset[str]:
        """The scopes that these resources have of their own."""
        wanted = set(map(canonical, resources))
        owners = await self.database.read(apps.with_scopes) if wanted else []
        found = (each.scopes for each in owners if wanted & set(map(canonical, each.resources)))
        return frozenset().union(*found)

    async def note(self, user: User | None, app: App, action: str, **details: Any) -> None:
        """Put something on record."""
        actor = f"app:{app.name}" if user is None else f"user:{user.name}"
        entry = audit.Entry(actor, action, f"app:{app.name}", details, self.now(), ORIGIN.get())
        await self.database.share(_note_all, entry)


async def _none_known(provider: Provider, anew: bool) -> ProviderKeySet:
    """Without anybody to ask, no signature is good."""
    del provider, anew
    return ()


def _note_all(connection: Connection, entries: Sequence[audit.Entry]) -> list[None]:
    audit.append_all(connection, entries)
    return [None] * len(entries)


async def read_pairs(request: Request) -> Pairs:
    """The fields of a form that an app sends. Raises TokenError for what is none."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != FORM:
        raise TokenError("invalid_request", f"the request is a form of the type {FORM}")
    try:
        return parse_pairs(await read_body(request, LARGEST), MOST)
    except BadInput as error:
        raise TokenError("invalid_request", error.message, status=error.status) from None


def one(pairs: Pairs, name: str) -> str:
    """A field's value; empty where it is missing. Raises TokenError for one given twice."""
    found = [value for key, value in pairs if key == name]
    if len(found) > 1:
        raise TokenError("invalid_request", f"the parameter {name} is given twice")
    return found[0] if found else ""


def opened(response: Response, extra: Mapping[str, str] = OPEN) -> Response:
    """A response that a page of any origin may read."""
    for name, value in extra.items():
        response.headers[name] = value
    return response
