"""The apps in which people may sign in: made, shown, given another secret and deleted by an administrator.

Nothing here signs anybody in. A secret is shown once, to whoever asked for it; its SHA-256 stays.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

import msgspec

from doorward.clock import Clock
from doorward.errors import BadInput, Conflict, DoorwardError, NotFound
from doorward.login.idtoken import read_keys
from doorward.login.redirects import check_redirect, shown_host
from doorward.model import App, AppInvitation, Brought, User
from doorward.store import Connection, Database, app_uses, apps, audit, comers
from doorward.store.app_uses import Use
from doorward.tailnet import secrets

CLIENT = "app"  # how client ids begin: never confused with a person's subject (RFC 9700 section 4.15)
INVITATION = "dwappinvite"
MOST_USES, LONGEST_INVITATION = 1000, timedelta(days=365)
SECRET = "dwapp"  # noqa: S105 - the kind of a secret, not one
ALGORITHMS = ("RS256", "ES256", "EdDSA")
MOST_ADDRESSES = 20
# Scopes that mean the same for all apps (OpenID Connect Core section 5.4), and those that may yet.
OURS = frozenset(("openid", "profile", "email", "address", "phone", "groups", "device", "offline_access"))
_MOST_SCOPES = 50
_MOST_KEYS = 10
_SECRET_PARTS = frozenset(("d", "p", "q", "dp", "dq", "qi", "oth", "k"))  # RFC 7518 section 6
_PUBLIC_PARTS = frozenset(("kty", "n", "e", "crv", "x", "y", "kid", "alg", "use"))
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,40}[a-z0-9])?")
# A part of what RFC 6749 section 3.3 has: nothing that means something on a page, in a header or in a policy.
_SCOPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,99}")
_NODE = re.compile(r"tag:[A-Za-z][A-Za-z0-9-]{0,62}|n[A-Za-z0-9]{8,40}")
_RESOURCE = re.compile(r"[A-Za-z0-9._~:/?\[\]@!$&()*+,;=%-]{1,500}")


class _KeySet(msgspec.Struct, frozen=True):
    """A JWK Set."""

    keys: tuple[dict[str, Any], ...]


class Wanted(NamedTuple):
    """An app that is to be made."""

    name: str
    redirect_uris: Sequence[str] = ()
    resources: Sequence[str] = ()
    scopes: Sequence[str] = ()  # of its own
    public: bool = False
    asks: bool = False
    service: bool = False
    algorithm: str = "RS256"
    keys: str = ""  # a JWK Set (RFC 7517) with the public keys that it signs with, in place of a secret
    keys_url: str = ""  # or where it publishes them
    device: bool = False
    nodes: Sequence[str] = ()  # tags and stable ids of nodes that it is known by, in place of a secret
    opaque: bool = False  # its access tokens say nothing by themselves
    binds: bool = False  # its tokens are bound to the node that asks for them
    dpop: bool = False  # its tokens are bound to a key, always (RFC 9449)
    pushed_only: bool = False  # what it asks for it leaves here first (RFC 9126)
    shared: bool = False  # apps that come by themselves may have tokens for its resources, too
    signed_out_uris: Sequence[str] = ()
    logout_url: str = ""


class Moving(NamedTuple):
    """An app of another server's that is to be one here, under the client id and with the secret that it has."""

    client_id: str
    title: str  # what it was called there
    secret: str  # empty for a public one
    wanted: Wanted | None = None  # its name is a wish: another app may have it
    why: str = ""  # why it cannot be one here, where nothing is wanted

    def __repr__(self) -> str:
        return f"Moving(client_id={self.client_id!r}, title={self.title!r})"


class Moved(NamedTuple):
    """What became of it."""

    client_id: str
    name: str  # here; what it was called there, where it is none
    outcome: Literal["imported", "there", "refused"]
    reason: str = ""
    asks: bool = False


class Apps:
    """All of them.

    Args:
        database: the store.
        clock: the time of every event.
        entropy: random bytes.
    """

    def __init__(self, database: Database, clock: Clock, entropy: Callable[[int], bytes]) -> None:
        self._database = database
        self._clock = clock
        self._entropy = entropy

    async def list(self) -> list[App]:
        """Every app, oldest first."""
        return await self._database.read(apps.load_all)

    async def find(self, name: str) -> App:
        """The app with this name or client id. Raises NotFound."""
        return await self._database.read(_find, name)

    async def create(self, actor: str, wanted: Wanted) -> tuple[App, str]:
        """Make an app; with it its secret, which is empty for a public one and for one that signs with a key.

        Raises BadInput for what cannot be one, and Conflict for a name that is taken.
        """
        _check(wanted)
        keys = read_public_keys(wanted.keys) if wanted.keys else ()
        secret = None if wanted.public else secrets.make(SECRET, self._entropy(secrets.ENTROPY))
        draft = App(
            id=0,
            name=wanted.name,
            client_id=f"{CLIENT}-{secrets.base32(self._entropy(15))}",
            secret_hash=b"" if secret is None else secret.digest,
            redirect_uris=tuple(wanted.redirect_uris),
            resources=tuple(wanted.resources),
            scopes=tuple(dict.fromkeys(wanted.scopes)),
            asks=wanted.asks,
            service=wanted.service,
            algorithm=wanted.algorithm,
            actor=actor,
            created=self._clock.now(),
            keys=keys,
            keys_url=wanted.keys_url,
            device=wanted.device,
            dpop=wanted.dpop,
            pushed_only=wanted.pushed_only,
            shared=wanted.shared,
            nodes=tuple(wanted.nodes),
            opaque=wanted.opaque,
            binds=wanted.binds,
            signed_out_uris=tuple(wanted.signed_out_uris),
            logout_url=wanted.logout_url,
        )
        made = await self._database.run(_create, actor, draft)
        return made, "" if secret is None or made.signs or made.nodes else secret.text

    async def bring(self, actor: str, moving: Sequence[Moving], *, dry_run: bool = False) -> Sequence[Moved]:
        """Make apps of another server's, all of them that can be at once; what became of each, in order.

        One whose client id is here stays as it is. ``dry_run`` says the same and changes nothing.
        """
        now = self._clock.now()
        if dry_run:
            return await self._database.read(_bring, actor, moving, now, False)
        return await self._database.run(_bring, actor, moving, now, True)

    async def rotate(self, actor: str, name: str) -> tuple[App, str]:
        """Give an app another secret; the one before is worth nothing. Raises NotFound, and Conflict for a public one."""
        secret = secrets.make(SECRET, self._entropy(secrets.ENTROPY))
        app = await self._database.run(_rotate, actor, name, secret, self._clock.now())
        return app, secret.text

    async def invite(self, actor: str, uses: int, lifetime: timedelta) -> tuple[AppInvitation, str]:
        """Let programs register so many apps, for so long; with the secret that they show. Raises BadInput."""
        if not 1 <= uses <= MOST_USES or not timedelta(0) < lifetime <= LONGEST_INVITATION:
            raise BadInput(
                f"an invitation is for 1 to {MOST_USES} apps, and for {LONGEST_INVITATION.days} days at most"
            )
        secret, now = secrets.make(INVITATION, self._entropy(secrets.ENTROPY)), self._clock.now()
        draft = AppInvitation(
            id=0, secret_hash=secret.digest, uses=uses, actor=actor, created=now, expires=now + lifetime
        )
        return await self._database.run(_invite, draft), secret.text

    async def end_invitations(self, actor: str) -> int:
        """Make all that are good worth nothing; how many those were."""
        return await self._database.run(_end_invitations, actor, self._clock.now())

    async def approve(self, actor: str, name: str, *, approved: bool = True) -> App:
        """Say of an app that came by itself that nobody need be asked where it is answered now, or take that back.

        One that describes itself at an address may be approved of before it has come, for the host of that address. Raises NotFound,
        BadInput for what is no such address, and Conflict for an app that an administrator has made.
        """
        return await self._database.run(_approve, actor, name, approved, self._clock.now())

    async def delete(self, actor: str, name: str) -> App:
        """Delete an app: nobody signs in there any more, and what it was given is worth nothing. Raises NotFound."""
        return await self._database.run(_delete, actor, name, self._clock.now())

    async def uses(self, app: str | None = None, user_id: int | None = None) -> Sequence[tuple[App, Use]]:
        """Who is signed in where, perhaps in one app or of one person alone. Raises NotFound for an app that is not there."""
        return await self._database.read(_uses, app, user_id, self._clock.now())

    async def end_use(self, actor: str, user: User, number: int) -> App:
        """Sign a person out of an app, by the number of the use; the app is told. Raises NotFound where there is none of theirs."""
        return await self._database.run(_end_use, actor, user, number, self._clock.now())


def _check(wanted: Wanted) -> None:
    if not _NAME.fullmatch(wanted.name):
        raise BadInput(
            f"{wanted.name[:60]!r} is no name for an app",
            cure='Use lower-case letters, digits and "-", 42 at most: grafana.',
        )
    if wanted.algorithm not in ALGORITHMS:
        raise BadInput(f"tokens are signed with one of {', '.join(ALGORITHMS)}")
    if not (wanted.redirect_uris or wanted.service or wanted.device):
        raise BadInput("an app without a redirect address signs nobody in", cure="Give --redirect ADDRESS.")
    if wanted.service and wanted.public:
        raise BadInput("an app without a secret cannot have tokens of its own")
    counted = (wanted.redirect_uris, wanted.resources, wanted.nodes, wanted.signed_out_uris)
    if max(map(len, counted)) > MOST_ADDRESSES:
        raise BadInput(f"an app has {MOST_ADDRESSES} addresses at most")
    _check_scopes(wanted.scopes)
    if wanted.keys_url:
        _check_keys_url(wanted.keys_url)
    if (wanted.keys or wanted.keys_url) and wanted.public:
        raise BadInput("a public app has no key to sign with: whoever has the program has the key")
    if wanted.nodes and (wanted.public or wanted.keys or wanted.keys_url):
        raise BadInput("an app that is known by its node has no key, and is not public")
    if unknown := [one for one in wanted.nodes if not _NODE.fullmatch(one)]:
        raise BadInput(
            f"{unknown[0][:60]!r} is neither a tag nor the id of a node",
            cure="Give tag:NAME, or the id that `doorward nodes show --json` has.",
        )
    if wanted.keys and wanted.keys_url:
        raise BadInput("the app's keys are given, or fetched from an address, not both")
    for uri in (*wanted.redirect_uris, *wanted.signed_out_uris):
        check_redirect(uri, public=wanted.public)
    for resource in wanted.resources:
        _check_resource(resource)
    if wanted.logout_url:
        check_logout_url(wanted.logout_url, (*wanted.redirect_uris, *wanted.resources))


def _check_resource(resource: str) -> None:
    """RFC 8707 section 2: an absolute URI without a fragment."""
    try:
        parts = urlsplit(resource)
    except ValueError:
        parts = urlsplit("")
    if not _RESOURCE.fullmatch(resource) or not parts.scheme or not (parts.netloc or parts.path):
        raise BadInput(
            f"the resource {resource[:100]!r} is no absolute address",
            cure="Give what the server calls itself: https://mcp.example.com/mcp.",
        )


def _check_scopes(scopes: Sequence[str]) -> None:
    if len(scopes) > _MOST_SCOPES:
        raise BadInput(f"an app has {_MOST_SCOPES} scopes of its own at most")
    for one in scopes:
        if not _SCOPE.fullmatch(one):
            raise BadInput(
                f"{one[:100]!r} is no name of a scope",
                cure='Use letters, digits and ".:/_-", 100 at most: files:read.',
            )
        if one in OURS:
            raise BadInput(f"every app may ask for the scope {one}; it cannot be one app's own")


def _is_https(url: str) -> bool:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return False
    good = parts.scheme == "https" and bool(parts.hostname) and parts.username is None and not parts.fragment
    return good and _RESOURCE.fullmatch(url) is not None


def check_logout_url(url: str, others: Iterable[str]) -> None:
    """Raise BadInput for an address at which an app cannot be told that somebody has signed out.

    Where we send something by ourselves has to be the app's own host, as its ``others`` name it: nobody has us knock elsewhere.
    """
    if not _is_https(url):
        raise BadInput(
            f"the logout address {url[:100]!r} is no https address",
            cure="Give where the app takes logout tokens: https://app.example.com/oidc/backchannel-logout.",
        )
    host = urlsplit(url).hostname
    if host not in {urlsplit(uri).hostname for uri in others}:
        raise BadInput(
            f"the logout address is at {host}, where the app has no other address",
            cure="An app is told at a host of its redirect addresses or resources.",
        )


def _check_keys_url(url: str, what: str = "the address of keys") -> None:
    if not _is_https(url):
        raise BadInput(
            f"{what} {url[:100]!r} is no https address",
            cure="Give where the app publishes its JWK Set: https://app.example.com/jwks.json.",
        )


def read_public_keys(text: str) -> tuple[dict[str, Any], ...]:
    """The keys of a JWK Set, each with its public half alone. Raises BadInput for what is none, or can be none of an app."""
    try:
        found = read_keys("the app", text.encode())
        listed = msgspec.json.decode(text, type=_KeySet).keys
    except (DoorwardError, msgspec.MsgspecError, UnicodeError):
        raise BadInput(
            "the app's keys are no JWK Set", cure='Give a file of the form {"keys": [...]} (RFC 7517).'
        ) from None
    if any(_SECRET_PARTS & one.keys() for one in listed):
        raise BadInput(
            "there is a secret key among the app's keys",
            cure="Give the public half of each, and make new ones.",
        )
    if not 0 < len(found) == len(listed) <= _MOST_KEYS:
        raise BadInput(
            f"of {len(listed)} keys {len(found)} can be used, and an app has 1 to {_MOST_KEYS}",
            cure="Use RSA keys of 2048 bits or more, P-256 or Ed25519, for signatures.",
        )
    return tuple({name: value for name, value in one.items() if name in _PUBLIC_PARTS} for one in listed)


def _find(connection: Connection, name: str) -> App:
    found = apps.by_name(connection, name) or apps.by_client_id(connection, name)
    if found is None:
        raise NotFound(f"there is no app {name[:60]!r}", cure="`doorward apps list` shows those there are.")
    return found


def _bring(
    connection: Connection, actor: str, moving: Sequence[Moving], now: datetime, really: bool
) -> list[Moved]:
    known = {app.client_id: app.name for app in apps.load_all(connection)}
    taken = {*known.values(), *known, *(one.client_id for one in moving)}
    done: list[Moved] = []
    for one in moving:
        wanted = one.wanted
        if one.client_id in known:
            done.append(Moved(one.client_id, known[one.client_id], "there"))
            continue
        why = one.why if wanted is None else _why_not(wanted)
        if wanted is None or why:
            done.append(Moved(one.client_id, one.title, "refused", why))
            continue
        name = _free(wanted.name, taken)
        taken.add(name)
        if really:
            draft = App(
                id=0,
                name=name,
                client_id=one.client_id,
                secret_hash=b"" if wanted.public else secrets.digest(one.secret),
                redirect_uris=tuple(wanted.redirect_uris),
                asks=wanted.asks,
                actor=actor,
                created=now,
            )
            _store(connection, actor, draft, "app.import")
        done.append(Moved(one.client_id, name, "imported", asks=wanted.asks))
    return done


def _why_not(wanted: Wanted) -> str:
    """Why this cannot be an app, and what to do; empty if it can."""
    try:
        _check(wanted)
    except BadInput as error:
        return error.sentence()
    return ""


def _free(name: str, taken: set[str]) -> str:
    """This name, or with the first number that nobody has."""
    if name not in taken:
        return name
    number = 2
    while (other := f"{name[:36].rstrip('-')}-{number}") in taken:
        number += 1
    return other


def _create(connection: Connection, actor: str, draft: App) -> App:
    if apps.by_name(connection, draft.name) is not None:
        raise Conflict(
            f"there is an app {draft.name!r} already", cure="Choose another name, or delete that one."
        )
    return _store(connection, actor, draft, "app.create")


def _store(connection: Connection, actor: str, draft: App, action: str) -> App:
    app = apps.insert(connection, draft)
    details = {
        "client_id": app.client_id,
        "redirect_uris": list(app.redirect_uris),
        "resources": list(app.resources),
        "scopes": list(app.scopes),
        "public": app.public,
        "asks": app.asks,
        "service": app.service,
        "device": app.device,
        "dpop": app.dpop,
        "pushed_only": app.pushed_only,
        "shared": app.shared,
        "nodes": list(app.nodes),
        "opaque": app.opaque,
        "binds": app.binds,
        "signed_out_uris": list(app.signed_out_uris),
        "logout_url": app.logout_url,
        "keys": [one.get("kid", "") for one in app.keys],
        "keys_url": app.keys_url,
    }
    audit.append(connection, actor, action, f"app:{app.name}", details, app.created)
    return app


def _rotate(connection: Connection, actor: str, name: str, secret: secrets.Secret, now: datetime) -> App:
    app = _find(connection, name)
    if app.public or app.signs or app.nodes:
        why = (
            "is a public app" if app.public else "signs with its key" if app.signs else "is known by its node"
        )
        raise Conflict(f"{app.name} has no secret: it {why}")
    changed = apps.update(connection, msgspec.structs.replace(app, secret_hash=secret.digest))
    audit.append(connection, actor, "app.rotate", f"app:{app.name}", {"client_id": app.client_id}, now)
    return changed


def _invite(connection: Connection, draft: AppInvitation) -> AppInvitation:
    made = comers.insert_invitation(connection, draft)
    details = {"id": made.id, "uses": made.uses, "expires": made.expires.isoformat()}
    audit.append(connection, made.actor, "app.invite", "apps", details, made.created)
    return made


def _end_invitations(connection: Connection, actor: str, now: datetime) -> int:
    count = comers.end_invitations(connection, now)
    audit.append(connection, actor, "app.uninvite", "apps", {"count": count}, now)
    return count


def came_by_itself(name: str) -> bool:
    """True for the name of an app that no administrator has made: it has a sign that no name has which one can be given."""
    return "~" in name


def name_of(url: str) -> str:
    """What the policy and commands call the app at an address: no administrator can have named one so, and no other has the name."""
    return f"{urlsplit(url).hostname}~{hashlib.sha256(url.encode()).hexdigest()[:12]}"


def _approve(connection: Connection, actor: str, name: str, approved: bool, now: datetime) -> App:
    found = apps.by_name(connection, name) or apps.by_client_id(connection, name)
    hosts: tuple[str, ...] = ()
    if found is None and approved and name.startswith("https:"):
        _check_keys_url(name, "the client id")
        host = shown_host(name)
        hosts = (host,)
        draft = App(
            id=0,
            name=name_of(name),
            client_id=name,
            asks=True,
            actor=actor,
            created=now,
            brought=Brought(title=host),
        )
        found = apps.insert(connection, draft)
    app = found or _find(connection, name)
    if app.brought is None:
        raise Conflict(
            f"{app.name} did not come by itself",
            cure="Whether an app asks people is said where it is made: `doorward apps create --ask`.",
        )
    if approved:
        hosts = tuple(dict.fromkeys((*hosts, *map(shown_host, app.redirect_uris))))
    brought = msgspec.structs.replace(app.brought, approved=hosts)
    changed = apps.update(connection, msgspec.structs.replace(app, brought=brought))
    action = "app.approve" if approved else "app.doubt"
    audit.append(
        connection, actor, action, f"app:{app.name}", {"client_id": app.client_id, "hosts": list(hosts)}, now
    )
    return changed


def _uses(
    connection: Connection, name: str | None, user_id: int | None, now: datetime
) -> list[tuple[App, Use]]:
    wanted = None if name is None else _find(connection, name).id
    known = {app.id: app for app in apps.load_all(connection)}
    return [
        (known[one.app_id], one) for one in app_uses.load(connection, now, app_id=wanted, user_id=user_id)
    ]


def _end_use(connection: Connection, actor: str, user: User, number: int, now: datetime) -> App:
    found = [one for one in app_uses.load(connection, now, user_id=user.id) if one.id == number]
    app = apps.by_id(connection, found[0].app_id) if found else None
    if app is None:
        raise NotFound(
            f"there is no session {number} in an app", cure="`doorward apps sessions` lists those there are."
        )
    ended = app_uses.end(connection, now, number)
    details = {"user": user.id, "why": "signed out by an administrator", "grants": ended}
    audit.append(connection, actor, "app.end", f"app:{app.name}", details, now)
    return app


def _delete(connection: Connection, actor: str, name: str, now: datetime) -> App:
    app = _find(connection, name)
    grants = apps.delete(connection, app.id, now)
    details = {"client_id": app.client_id, "grants": grants}
    audit.append(connection, actor, "app.delete", f"app:{app.name}", details, now)
    return app
