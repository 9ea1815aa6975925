"""From the text of a policy file to a `Document`, or to every reason why not.

A section is read by one function. Names are checked against the file's own groups, tags and hosts here; users are not,
because they come and go without the file.
"""

from doorward.model import EXIT_ROUTES, Prefix
from doorward.policy.document import (
    NO_RULES,
    AccessTest,
    AutoApprovers,
    Diagnostic,
    Document,
    Flow,
    Kind,
    NodeAttribute,
    Place,
    PolicyError,
    Rule,
    Selector,
    SSHTest,
)
from doorward.policy.parse_rules import parse_acl, parse_grant
from doorward.policy.parse_ssh import parse_ssh_rule
from doorward.policy.reader import Reader, Scope
from doorward.policy.selectors import PEOPLE, Names, WordError, check_tag_name, parse_prefix
from doorward.protocol import hujson
from doorward.protocol.tailcfg.filter import ALL_PORTS

_TOP = (
    "groups",
    "hosts",
    "tagOwners",
    "acls",
    "grants",
    "ssh",
    "autoApprovers",
    "nodeAttrs",
    "tests",
    "sshTests",
    "randomizeClientPort",
)
_TEST = ("src", "accept", "deny", "proto")
_SSH_TEST = ("src", "dst", "accept", "deny", "check")
_RESERVED_HOSTS = ("tag:", "group:", "autogroup:", "user:", "localpart:", "ipset:", "svc:", "host:")


def parse_policy(text: str, *, filename: str = "policy.hujson") -> Document:
    """Read a policy file.

    Raises PolicyError with all that was found; a text that is not HuJSON yields the first fault only.
    """
    try:
        syntax = hujson.parse(text)
    except hujson.HujsonError as error:
        cure = error.cure or "Write HuJSON: JSON, with comments and trailing commas as you like."
        found = Diagnostic(filename, error.line, error.column, error.message, cure)
        raise PolicyError([found]) from None
    reader = Reader(text, filename)
    top = reader.section(syntax, "the policy", _TOP).members
    scope = Scope(reader, _names(reader, top))
    document = Document(
        text=text,
        filename=filename,
        syntax=syntax,
        groups=_groups(scope, top.get("groups")),
        hosts=dict(scope.names.hosts),
        tag_owners=_tag_owners(scope, top.get("tagOwners")),
        rules=_rules(scope, top),
        ssh=scope.entries(top.get("ssh"), "ssh", parse_ssh_rule),
        auto_approvers=_auto_approvers(scope, top.get("autoApprovers")),
        node_attributes=scope.entries(top.get("nodeAttrs"), "nodeAttrs", _node_attribute),
        tests=scope.entries(top.get("tests"), "tests", _test),
        ssh_tests=scope.entries(top.get("sshTests"), "sshTests", _ssh_test),
        randomize_client_port=reader.flag(top.get("randomizeClientPort"), '"randomizeClientPort"'),
        names=tuple(scope.users),
    )
    if reader.diagnostics:
        raise PolicyError(reader.diagnostics)
    return document


def _rules(scope: Scope, top: dict[str, hujson.Value]) -> tuple[Rule, ...]:
    """Grants, then acls. A file with neither section allows everything, as in the hosted service."""
    if "grants" not in top and "acls" not in top:
        everyone = Selector(Kind.EVERYONE, "", text="*")
        return (Rule(NO_RULES, Place(1, 1), (everyone,), (Flow(everyone, (ALL_PORTS,)),)),)
    return (
        *scope.entries(top.get("grants"), "grants", parse_grant),
        *scope.entries(top.get("acls"), "acls", parse_acl),
    )


def _names(reader: Reader, top: dict[str, hujson.Value]) -> Names:
    """The names that the file defines. What their sections hold is judged when they are read."""
    names: dict[str, frozenset[str]] = {}
    for key in ("groups", "tagOwners"):
        value = top.get(key)
        members = value.members if isinstance(value, hujson.Object) else ()
        names[key] = frozenset(str(member.name.data).strip() for member in members)
    hosts: dict[str, Prefix] = {}
    for name, item in reader.members(top.get("hosts"), '"hosts"'):
        text = reader.text(item, f'hosts["{name}"]')
        if text is None:
            continue
        if name.startswith(_RESERVED_HOSTS) or not name.strip() or any(mark in name for mark in "*@/"):
            reader.complain(
                text.place, f'hosts["{name}"]: not a name for a host', "Use letters, digits and dashes."
            )
        prefix = reader.attempt(text.place, parse_prefix, text.value)
        if prefix is not None:
            hosts[name.strip()] = prefix
    return Names(names["groups"], names["tagOwners"], hosts)


def _groups(scope: Scope, value: hujson.Value | None) -> dict[str, tuple[Selector, ...]]:
    groups: dict[str, tuple[Selector, ...]] = {}
    for name, item in scope.reader.members(value, '"groups"'):
        place = scope.reader.place(item)
        if not name.strip().startswith("group:") or name.strip() == "group:":
            cure = f'Write "group:{name.strip()}".'
            scope.reader.complain(place, f"groups[\"{name}\"]: group names must start with 'group:'", cure)
            continue
        members: list[Selector] = []
        for text in scope.reader.texts(item, f'groups["{name}"]'):
            if text.value.startswith("group:"):
                scope.reader.complain(
                    text.place,
                    f'groups["{name}"]: "{text.value}": group members cannot be recursive',
                    "Name its users instead.",
                )
                continue
            member = scope.selector(text)
            if member is None:
                continue
            if member.kind not in {Kind.USER, Kind.DOMAIN}:
                scope.reader.complain(
                    text.place, f'groups["{name}"]: "{text.value}" is not a user', "Groups hold users only."
                )
                continue
            members.append(member)
        groups[name.strip()] = tuple(members)
    return groups


def _check_owner(selector: Selector) -> Selector:
    named = selector.kind in {Kind.USER, Kind.DOMAIN, Kind.GROUP, Kind.TAG}
    if named or (selector.kind is Kind.AUTOGROUP and selector.value in PEOPLE | {"tagged"}):
        return selector
    raise WordError(
        f'"{selector.text}" cannot be an owner', "Name users, groups, tags or autogroups of people."
    )


def _tag_owners(scope: Scope, value: hujson.Value | None) -> dict[str, tuple[Selector, ...]]:
    owners: dict[str, tuple[Selector, ...]] = {}
    for name, item in scope.reader.members(value, '"tagOwners"'):
        tag = name.strip()
        try:
            check_tag_name(tag)
        except WordError as refusal:
            scope.reader.complain(
                scope.reader.place(item), f'tagOwners["{name}"]: {refusal.message}', refusal.cure
            )
        owners[tag] = scope.selectors(item, f'tagOwners["{name}"]', check=_check_owner)
    return owners


def _auto_approvers(scope: Scope, value: hujson.Value | None) -> AutoApprovers:
    if value is None:
        return AutoApprovers()
    members = scope.reader.section(value, '"autoApprovers"', ("routes", "exitNode")).members
    routes: list[tuple[Prefix, tuple[Selector, ...]]] = []
    for name, item in scope.reader.members(members.get("routes"), '"routes" in "autoApprovers"'):
        prefix = scope.reader.attempt(scope.reader.place(item), parse_prefix, name.strip())
        approvers = scope.selectors(item, f'routes["{name}"]', check=_check_owner)
        if prefix is not None:
            routes.append((prefix, approvers))
    exit_node = scope.selectors(members.get("exitNode"), '"exitNode" in "autoApprovers"', check=_check_owner)
    return AutoApprovers(tuple(routes), exit_node)


def _check_attributed(selector: Selector) -> Selector:
    if selector.kind is Kind.AUTOGROUP and selector.value not in PEOPLE | {"tagged"}:
        raise WordError(f'"{selector.text}" cannot be a target', "Name users, groups, tags, hosts or *.")
    if selector.prefix in EXIT_ROUTES:
        raise WordError(f'"{selector.text}" cannot be a target', 'Use "*" for every node.')
    return selector


def _node_attribute(scope: Scope, value: hujson.Value, origin: str) -> NodeAttribute:
    members = scope.reader.section(value, origin, ("target", "attr")).members
    targets = scope.selectors(members.get("target"), f'"target" in {origin}', check=_check_attributed)
    names: list[str] = []
    for text in scope.reader.texts(members.get("attr"), f'"attr" in {origin}'):
        if not text.value or not text.value.isprintable():
            scope.reader.complain(text.place, f"an empty attribute in {origin}", "Remove it.")
            continue
        names.append(text.value)
    return NodeAttribute(targets, tuple(names))


def _test(scope: Scope, value: hujson.Value, origin: str) -> AccessTest:
    reader = scope.reader
    section = reader.section(value, origin, _TEST)
    lists = {
        key: tuple(reader.texts(section.members.get(key), f'"{key}" in {origin}'))
        for key in ("accept", "deny")
    }
    return AccessTest(
        origin,
        section.place,
        reader.text(section.members.get("src"), f'"src" in {origin}'),
        lists["accept"],
        lists["deny"],
        reader.text(section.members.get("proto"), f'"proto" in {origin}'),
    )


def _ssh_test(scope: Scope, value: hujson.Value, origin: str) -> SSHTest:
    reader = scope.reader
    section = reader.section(value, origin, _SSH_TEST)
    lists = {
        key: tuple(reader.texts(section.members.get(key), f'"{key}" in {origin}'))
        for key in ("dst", "accept", "deny", "check")
    }
    return SSHTest(
        origin,
        section.place,
        reader.text(section.members.get("src"), f'"src" in {origin}'),
        lists["dst"],
        lists["accept"],
        lists["deny"],
        lists["check"],
    )
