"""Reads the entries of ``acls`` and ``grants``."""

from collections.abc import Iterable
from typing import Any

from doorward.policy.apps import problems_of
from doorward.policy.document import Flow, Kind, Place, Rule, Selector, Text
from doorward.policy.reader import Scope
from doorward.policy.selectors import (
    PEOPLE,
    check_ports_of,
    check_source,
    check_target,
    parse_ports,
    parse_protocol,
    parse_service,
    split_target,
)
from doorward.policy.words import WordError, did_you_mean
from doorward.protocol.hujson import Value, plain
from doorward.protocol.tailcfg.filter import PortRange

_ACL = ("action", "src", "users", "dst", "ports", "proto", "srcPosture")
_GRANT = ("src", "dst", "ip", "app", "via", "srcPosture")

# How many destinations (a target with a range of ports) one rule may come to: a file of a few kilobytes could otherwise
# stand for packet filters of gigabytes.
MAX_EXPANSION = 50_000

# What a policy may hand out in the hosted service's own domain; the rest of that domain is control's to give.
TAILSCALE_CAPABILITIES = frozenset(
    f"tailscale.com/cap/{name}"
    for name in ("drive", "golink", "kubernetes", "relay", "secrets", "tsidp", "webui")
)


def parse_acl(scope: Scope, value: Value, origin: str) -> Rule | None:
    """Read one entry of ``acls``; the old names ``users`` and ``ports`` serve for ``src`` and ``dst``."""
    reader = scope.reader
    section = reader.section(value, origin, _ACL)
    members = section.members
    action = reader.text(members.get("action"), f'"action" in {origin}')
    if action is None or not action.value:
        reader.complain(section.place, "action must be specified", 'Add "action": "accept".')
    elif action.value != "accept":
        cure = 'Write "accept". Access that no rule accepts is denied.'
        reader.complain(action.place, f'"{action.value}" is not a valid action', cure)
    sources = _sources(scope, members.get("src", members.get("users")), f'"src" in {origin}')
    protocols = _protocols(scope, members.get("proto"), origin)
    flows: list[Flow] = []
    for text in reader.texts(members.get("dst", members.get("ports")), f'"dst" in {origin}'):
        flow = _acl_flow(scope, text, protocols)
        if flow is not None:
            _check_self(scope, flow.target, text.place, sources, everyone=True)
            flows.append(flow)
    rule = Rule(
        origin,
        section.place,
        sources,
        tuple(flows),
        postures=scope.source_postures(members.get("srcPosture"), origin),
    )
    return _bounded(scope, rule)


def _acl_flow(scope: Scope, text: Text, protocols: tuple[int, ...]) -> Flow | None:
    reader = scope.reader
    cut = reader.attempt(text.place, split_target, text.value)
    target = None if cut is None else scope.selector(Text(cut[0], text.place), role="dst=")
    target = None if target is None else reader.attempt(text.place, check_target, target)
    ports = None if cut is None else reader.attempt(text.place, _ports_for, cut[1], protocols)
    return None if target is None or ports is None else Flow(target, ports, protocols)


def _ports_for(text: str, protocols: tuple[int, ...]) -> tuple[PortRange, ...]:
    ports = parse_ports(text)
    check_ports_of(protocols, ports)
    return ports


def parse_grant(scope: Scope, value: Value, origin: str) -> Rule | None:
    """Read one entry of ``grants``."""
    reader = scope.reader
    section = reader.section(value, origin, _GRANT)
    members = section.members
    sources = _sources(scope, members.get("src"), f'"src" in {origin}')
    targets = _targets(scope, members.get("dst"), origin, sources)
    services = _services(scope, members.get("ip"), origin)
    app = _app(scope, members.get("app"), origin)
    if not services and not app and not _given(members, "ip", "app"):
        reader.complain(section.place, "ip and app can not both be empty", 'Add "ip": ["*"].')
    if app and any(target.is_autogroup("internet") for target in targets):
        reader.complain(
            section.place,
            "cannot use app grants with autogroup:internet",
            "Name the nodes that offer the app.",
        )
    via = _via(scope, members.get("via"), origin, targets)
    flows = tuple(Flow(target, ports, protocols) for protocols, ports in services for target in targets)
    postures = scope.source_postures(members.get("srcPosture"), origin)
    return _bounded(
        scope, Rule(origin, section.place, sources, flows, app, targets if app else (), via, postures)
    )


def _bounded(scope: Scope, rule: Rule) -> Rule:
    size = sum(len(flow.ports) * max(1, len(flow.target.ranges)) for flow in rule.flows)
    if size > MAX_EXPANSION:
        scope.reader.complain(
            rule.place,
            f"{rule.origin} comes to {size} destinations with ports; the limit is {MAX_EXPANSION}",
            "Name larger ranges of ports or addresses, or split the rule.",
        )
    return rule


def _given(members: dict[str, Value], *keys: str) -> bool:
    """True where a key holds something, even if all of it was refused: one complaint is enough."""
    return any(plain(members[key]) for key in keys if key in members)


def _sources(scope: Scope, value: Value | None, origin: str) -> tuple[Selector, ...]:
    return scope.selectors(value, origin, role="src=", check=check_source)


def _targets(
    scope: Scope, value: Value | None, origin: str, sources: tuple[Selector, ...]
) -> tuple[Selector, ...]:
    found: list[Selector] = []
    for text in scope.reader.texts(value, f'"dst" in {origin}'):
        target = scope.selector(text, role="dst=")
        target = None if target is None else scope.reader.attempt(text.place, check_target, target)
        if target is not None:
            _check_self(scope, target, text.place, sources, everyone=False)
            found.append(target)
    return tuple(found)


def _check_self(
    scope: Scope, target: Selector, place: Place, sources: Iterable[Selector], *, everyone: bool
) -> None:
    """Complain unless all sources are people: nobody else has a "self". In acls, ``*`` counts as everybody."""
    if not target.is_autogroup("self"):
        return
    for source in sources:
        people = source.kind in {Kind.USER, Kind.GROUP, Kind.DOMAIN}
        people = people or (source.kind is Kind.AUTOGROUP and source.value in PEOPLE)
        if not people and not (everyone and source.kind is Kind.EVERYONE):
            scope.reader.complain(
                place,
                "autogroup:self can only be used with users, groups, or supported autogroups"
                f'; src has "{source.text}"',
                'Use "autogroup:member" as src.',
            )
            return


def _protocols(scope: Scope, value: Value | None, origin: str) -> tuple[int, ...]:
    text = scope.reader.text(value, f'"proto" in {origin}')
    if text is None or not text.value:
        return ()
    number = scope.reader.attempt(text.place, parse_protocol, text.value)
    return () if number is None else (number,)


def _services(
    scope: Scope, value: Value | None, origin: str
) -> list[tuple[tuple[int, ...], tuple[PortRange, ...]]]:
    """Ports by protocol, in the order in which the protocols first appear."""
    found: dict[tuple[int, ...], list[PortRange]] = {}
    for text in scope.reader.texts(value, f'"ip" in {origin}'):
        service = scope.reader.attempt(text.place, parse_service, text.value)
        if service is not None:
            found.setdefault(service[0], []).extend(service[1])
    return [(protocols, tuple(ports)) for protocols, ports in found.items()]


def _app(scope: Scope, value: Value | None, origin: str) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for name, item in scope.reader.members(value, f'"app" in {origin}'):
        place = scope.reader.place(item)
        if scope.reader.attempt(place, _check_capability, name) is None:
            continue
        values = plain(item)
        if not isinstance(values, list):
            scope.reader.complain(
                place, f'"{name}" in {origin} must be a list', "Write [{}] where it has no values."
            )
            continue
        found[name] = values
        for problem in problems_of(name, values):
            scope.remark(
                place, f"{origin}: {problem}", "It is left out as it stands; see docs/guide/apps.md."
            )
    return found


def _check_capability(name: str) -> str:
    domain, slash, path = name.partition("/")
    if not slash or not path or "." not in domain or ":" in domain:
        raise WordError(
            f'"{name}": capability name must have the form {{domain}}/{{path}}',
            'Write it like "example.com/cap/name".',
        )
    if (
        domain == "tailscale.com" or domain.endswith(".tailscale.com")
    ) and name not in TAILSCALE_CAPABILITIES:
        raise WordError(
            f'"{name}": capability name must not be in the tailscale.com domain', "Use a domain of your own."
        )
    return name


def _via(scope: Scope, value: Value | None, origin: str, targets: tuple[Selector, ...]) -> tuple[str, ...]:
    found: list[str] = []
    for text in scope.reader.texts(value, f'"via" in {origin}'):
        if text.value not in scope.names.tags:
            cure = did_you_mean(text.value, scope.names.tags, 'Name a tag of "tagOwners".')
            scope.reader.complain(text.place, f'tag "{text.value}" not found', cure)
            continue
        found.append(text.value)
        for target in targets:
            if not target.is_addresses and not target.is_autogroup("internet"):
                scope.reader.complain(
                    text.place,
                    f'via is for subnets and autogroup:internet, not for dst "{target.text}"',
                    "Put the other destinations in a grant of their own.",
                )
    return tuple(found)
