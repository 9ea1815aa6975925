"""What the policy says about people and apps: the capability ``doorward.dev/cap/app`` in grants.

::

    {"src": ["group:ops"], "dst": ["*"], "app": {"doorward.dev/cap/app": [
        {"apps": ["grafana"], "roles": ["admin"], "scopes": ["groups"], "claims": {"team": "ops"}}]}}

``apps`` names apps, or ``*``; without it the entry is about every app. As soon as one entry of the policy stands there, apps are
for those alone whom an entry names; a policy that says nothing leaves every app to everybody. ``dst`` is of no account: it is
doorward that these capabilities are held out to, whatever its node is called. ``tailscale.com/cap/tsidp`` is understood as tsidp
does: its ``extraClaims`` are added, and it keeps nobody out.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, NamedTuple, TypeVar

import msgspec

from doorward.policy.compile import Policy
from doorward.policy.document import Document, Kind, Selector

APP = "doorward.dev/cap/app"
TSIDP = "tailscale.com/cap/tsidp"
REGISTER = "doorward.dev/cap/register-apps"  # who has it may have their programs register apps; its entries are empty
LARGEST = 4096  # bytes of JSON that extra claims of one token may have together

# What tokens say by themselves: no policy may have them say otherwise. All registered claims that a program may act on, and
# those by which it knows a person.
PROTECTED = frozenset(
    {
        *(
            "iss",
            "sub",
            "aud",
            "exp",
            "nbf",
            "iat",
            "jti",
            "azp",
            "nonce",
            "auth_time",
            "acr",
            "amr",
            "at_hash",
        ),
        *(
            "c_hash",
            "s_hash",
            "sid",
            "act",
            "may_act",
            "cnf",
            "client_id",
            "scope",
            "events",
            "txn",
            "username",
        ),
        *(
            "authorization_details",
            "name",
            "email",
            "email_verified",
            "preferred_username",
            "picture",
            "groups",
        ),
        *(
            "roles",
            "key",
            "addresses",
            "nid",
            "node",
            "tailnet",
            "tags",
            "user",
            "uid",
            "token_type",
            "active",
        ),
    }
)

T = TypeVar("T")

_Words = Annotated[tuple[str, ...], msgspec.Meta(max_length=200)]


class Elsewhere(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Another organization's server that an app may have our word for."""

    issuer: str  # of its authorization server
    resource: str = ""  # what the app wants to use there
    client_id: str = ""  # what the app is called there; its client id here, where it says nothing
    scopes: _Words | None = None  # what may be asked for there; None: any


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry of the capability."""

    apps: _Words = ("*",)
    scopes: _Words | None = None  # all that may be asked for; None: any
    roles: _Words = ()
    groups: _Words = ()
    claims: dict[str, Any] = {}
    resources: _Words = ()  # what the app may exchange a token of this person for
    may_act: str = ""  # the app that may exchange the app's tokens of this person, though they are not for it
    elsewhere: Annotated[tuple[Elsewhere, ...], msgspec.Meta(max_length=200)] = ()
    assertions: _Words = ()  # names of providers whose word about this person the app may bring


class _Tsidp(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of tsidp's capability; what it says of resources and of administration is not about signing in."""

    extraClaims: dict[str, Any] = {}  # noqa: N815 - its own word
    includeInUserInfo: bool = False  # noqa: N815 - its own word
    allow_dcr: bool = False


class _Register(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry of that capability: there is nothing to say."""


class Entitlement(NamedTuple):
    """What a person may do in an app, and what it is told of them."""

    allowed: bool
    scopes: frozenset[str] | None = None  # None: any
    roles: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    claims: Mapping[str, Any] = {}
    resources: frozenset[str] = frozenset()  # what the app may exchange a token of theirs for
    # By resource, the scopes in the entries that name it: an exchanged token may have them though the first one has not.
    handed: Mapping[str, frozenset[str]] = {}
    may_act: str = ""  # the app that may exchange the app's tokens of theirs, though they are not for it
    elsewhere: tuple[Elsewhere, ...] = ()  # servers of others for which the app may have our word about them
    assertions: frozenset[str] = frozenset()  # the providers whose word about them the app may bring
    userinfo: Mapping[str, Any] = {}  # those of the claims that userinfo tells too
    problems: tuple[str, ...] = ()  # entries and claims that were left out, in words


def entitlement(
    policy: Policy, app: str, user_id: int, node_id: int | None, client_id: str = ""
) -> Entitlement:
    """What the policy gives a person in an app.

    Args:
        policy: the one in force.
        app: the app's name.
        client_id: what it calls itself; a policy may name an app that comes by itself so.
        user_id: the person; one who is suspended or unknown gets nothing.
        node_id: the device they come from, if it is theirs and vouches for them. Without it rules count that name people, and
            none with a condition on devices.
    """
    people = policy.roster.people
    if user_id not in people.by_id or user_id in people.suspended:
        return Entitlement(allowed=False)
    names = {"*", app, client_id or app}
    problems: list[str] = []
    entries: list[Entry] = []
    extra: list[tuple[Mapping[str, Any], bool]] = []
    ruled = False
    for rule in policy.document.rules:
        ruled = ruled or APP in rule.app
        if APP not in rule.app and TSIDP not in rule.app:
            continue
        sources = policy.sources(rule.who)
        by_device = node_id is not None and node_id in sources.nodes
        if not by_device and (rule.postures or user_id not in sources.people):
            continue
        for value in rule.app.get(APP, ()):
            entry = _read(value, Entry, rule.origin, problems)
            if entry is not None and not names.isdisjoint(entry.apps):
                entries.append(entry)
                extra.append((entry.claims, True))
        for value in rule.app.get(TSIDP, ()):
            found = _read(value, _Tsidp, rule.origin, problems)
            if found is not None:
                extra.append((found.extraClaims, found.includeInUserInfo))
    if ruled and not entries:
        return Entitlement(allowed=False, problems=tuple(problems))
    limits = [frozenset(one.scopes) for one in entries if one.scopes is not None]
    everything = len(limits) < len(entries) or not entries
    claims = merged((one for one, _ in extra), problems)
    told = merged((one for one, also in extra if also), [])
    return Entitlement(
        allowed=True,
        scopes=None if everything else frozenset().union(*limits),
        roles=tuple(sorted({role for one in entries for role in one.roles})),
        groups=tuple(sorted({group for one in entries for group in one.groups})),
        claims=claims,
        resources=frozenset(resource for one in entries for resource in one.resources),
        handed=_handed(entries),
        may_act=_actor(entries, problems),
        elsewhere=tuple(dict.fromkeys(place for one in entries for place in one.elsewhere)),
        assertions=frozenset(name for one in entries for name in one.assertions),
        userinfo={name: value for name, value in claims.items() if name in told},
        problems=tuple(problems),
    )


def _actor(entries: Iterable[Entry], problems: list[str]) -> str:
    """The one that all who name any name; nobody, where they differ: a token has room for one (RFC 8693 section 4.4)."""
    named = {one.may_act for one in entries if one.may_act}
    if len(named) > 1:
        problems.append(f"may_act is several apps: {', '.join(sorted(named))}")
    return named.pop() if len(named) == 1 else ""


def _handed(entries: Iterable[Entry]) -> dict[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}
    for one in entries:
        for resource in one.resources if one.scopes is not None else ():
            found[resource] = found.get(resource, frozenset()).union(one.scopes or ())
    return found


def may_register(policy: Policy, user_id: int, node_id: int) -> bool:
    """True for a person whose device may register apps: by the policy's word alone.

    ``node_id``: the device; it is theirs.
    """
    people = policy.roster.people
    if user_id not in people.by_id or user_id in people.suspended:
        return False
    for rule in policy.document.rules:
        if REGISTER not in rule.app and TSIDP not in rule.app:
            continue
        sources = policy.sources(rule.who)
        if node_id not in sources.nodes and (rule.postures or user_id not in sources.people):
            continue
        known = (_read(value, _Tsidp, rule.origin, []) for value in rule.app.get(TSIDP, ()))
        plain = (_read(value, _Register, rule.origin, []) for value in rule.app.get(REGISTER, ()))
        if any(one is not None and one.allow_dcr for one in known) or any(one is not None for one in plain):
            return True
    return False


def problems_of(capability: str, values: Iterable[Any]) -> list[str]:
    """What is wrong with entries of a capability about apps, in words; nothing is said of any other capability."""
    problems: list[str] = []
    for value in values:
        if capability == APP:
            entry = _read(value, Entry, APP, problems)
            merged([{} if entry is None else entry.claims], problems)
        elif capability == REGISTER:
            _read(value, _Register, REGISTER, problems)
        elif capability == TSIDP:
            known = _read(value, _Tsidp, TSIDP, problems)
            merged([{} if known is None else known.extraClaims], problems)
    return problems


def groups_of(policy: Policy, user_id: int) -> tuple[str, ...]:
    """The policy's groups that a person is in, without ``group:``; sorted."""
    people, document = policy.roster.people, policy.document
    return tuple(
        sorted(
            name.removeprefix("group:")
            for name in document.groups
            if user_id in people.named(Selector(Kind.GROUP, name))
        )
    )


def names_apps(document: Document) -> bool:
    """True where a policy says who may use apps: then nobody else may."""
    return any(APP in rule.app for rule in document.rules)


def merged(given: Iterable[Mapping[str, Any]], problems: list[str]) -> dict[str, Any]:
    """Claims of several entries as one, the same in any order: lists are joined, and what contradicts itself is left out."""
    values: dict[str, dict[bytes, Any]] = {}
    for claims in given:
        for name, value in claims.items():
            key = msgspec.json.encode(value, order="deterministic")
            values.setdefault(name, {})[key] = value
    found: dict[str, Any] = {}
    for name, distinct in sorted(values.items()):
        if name in PROTECTED:
            problems.append(f"the claim {name!r} is doorward's own")
        elif all(isinstance(value, list) for value in distinct.values()):
            items = {
                msgspec.json.encode(one, order="deterministic"): one
                for each in distinct.values()
                for one in each
            }
            found[name] = [items[key] for key in sorted(items)]
        elif len(distinct) == 1:
            (found[name],) = distinct.values()
        else:
            problems.append(f"the claim {name!r} has several values")
    while found and len(msgspec.json.encode(found)) > LARGEST:
        name = max(found, key=lambda one: (len(msgspec.json.encode(found[one])), one))
        problems.append(f"the claim {name!r} is too large")
        del found[name]
    return found


def _read(value: Any, kind: type[T], origin: str, problems: list[str]) -> T | None:
    try:
        return msgspec.convert(value, type=kind)
    except msgspec.ValidationError as error:
        problems.append(f"{origin}: {error}")
        return None
