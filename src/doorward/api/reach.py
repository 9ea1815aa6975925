"""Who reaches what: questions and answers about the policy in force, with the names that people give to nodes.

The thinking is ``policy.reach``'s and ``policy.survey``'s; here is only what a question means and how an answer is written.
What looks at the whole tailnet does so on a thread of its own, with a policy that it compiled for itself: the one in force
works its answers out when they are first asked for, and so belongs to the event loop.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from ipaddress import ip_address
from typing import Any, TypeVar

from doorward.api import policy_types as types
from doorward.api.access import Permission
from doorward.api.context import Call
from doorward.asgi import operation
from doorward.errors import BadInput, NotFound
from doorward.model import Node
from doorward.policy import Policy
from doorward.policy.document import Rule, SSHRule
from doorward.policy.reach import Goal, NearMiss, Way, goal_at, near_miss, ways
from doorward.policy.roster import node_attributes
from doorward.policy.selectors import Names, parse_selector
from doorward.policy.services import ports_text, services_text
from doorward.policy.survey import Access, Survey
from doorward.policy.words import WordError
from doorward.tailnet.snapshot import Snapshot

# Lines of a review; beyond it nobody reads them, and they would fill the memory of whoever does.
REVIEW_LIMIT = 50_000

SSH_PORT = 22
AT_ONCE = 10  # nodes that one question is answered for on the event loop, at a few milliseconds each

_NAMED_PROTOCOLS = {"tcp": (6,), "udp": (17,), "icmp": (1, 58), "sctp": (132,)}

T = TypeVar("T")


# -- what a question means


def parse_goal(snapshot: Snapshot, text: str, protocol: str = "tcp", port: int | None = None) -> Goal:
    """What ``NODE``, ``ADDRESS``, ``HOST``, each with ``:PORT`` perhaps, and a protocol mean. Raises BadInput or NotFound.

    ``port`` counts where the text has none.
    """
    name, own_port = _split(text)
    port = port if own_port is None else own_port
    numbers = _NAMED_PROTOCOLS.get(protocol) or ((int(protocol),) if _is_number(protocol) else ())
    if not numbers or numbers[0] > 255:
        raise BadInput(
            f"{protocol!r} is not a protocol", cure="Give tcp, udp, icmp, sctp or a number up to 255."
        )
    policy = snapshot.policy
    try:
        node = snapshot.find_node(name)
    except NotFound:
        return _beyond(snapshot, name, port, numbers)
    member = policy.roster.members.get(node.id)
    return Goal(() if member is None else (member,), node.addresses, port, numbers)


def _split(text: str) -> tuple[str, int | None]:
    if text.startswith("["):
        name, _, rest = text[1:].partition("]")
        return name, _port(rest.removeprefix(":")) if rest else None
    if text.count(":") == 1:
        name, _, number = text.partition(":")
        return name, _port(number)
    return text, None


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 6


def _port(text: str) -> int:
    if not _is_number(text) or not 0 < int(text) < 65536:
        raise BadInput(f"{text!r} is not a port", cure="Write a number from 1 to 65535 after the colon.")
    return int(text)


def _beyond(snapshot: Snapshot, text: str, port: int | None, protocols: tuple[int, ...]) -> Goal:
    """The goal at an address, or a host of the policy, that is no node's. Raises NotFound."""
    host = snapshot.policy.document.hosts.get(text.strip())
    try:
        address = ip_address(text) if host is None else host.network_address
    except ValueError:
        raise NotFound(
            f"there is no node {text!r}, and it is no address either",
            cure="`doorward nodes list` shows the nodes there are.",
        ) from None
    if host is not None and host.num_addresses > 1:
        raise BadInput(f"{text} is a whole subnet", cure=f"Ask about one address of {host}.")
    node = snapshot.node_by_address(address)
    if node is not None:
        return parse_goal(snapshot, str(address), str(protocols[0]), port)
    found = goal_at(snapshot.policy, address, port, protocols)
    if not found.gates:
        raise NotFound(
            f"no node has the address {text}, and none routes to it",
            cure="Approve the routes of a node there: `doorward nodes routes NODE --approve PREFIX`.",
        )
    return found


def parse_sources(snapshot: Snapshot, text: str) -> list[Node]:
    """The nodes that a question is about: of a person, a tag, a group or an autogroup, or one. Raises NotFound."""
    person = snapshot.user_by_name(text.strip().lower())
    if person is not None:
        return [node for node in ordinary_nodes(snapshot) if not node.tags and node.user_id == person.id]
    kind, colon, _ = text.partition(":")
    if not colon or kind not in {"tag", "group", "autogroup"}:
        return [snapshot.find_node(text)]
    document, roster = snapshot.policy.document, snapshot.policy.roster
    try:
        selector = parse_selector(text, Names(document.groups, document.tag_owners, document.hosts))
    except WordError as error:
        raise NotFound(error.message, cure=error.cure) from None
    return sorted((snapshot.nodes[one] for one in roster.named(selector)), key=_name)


def ordinary_nodes(snapshot: Snapshot) -> list[Node]:
    """All nodes but doorward's own and tabs, by name."""
    return sorted(
        (node for node in snapshot.nodes.values() if not node.system and node.tab is None), key=_name
    )


def _name(node: Node) -> str:
    return node.name


async def apart(snapshot: Snapshot, function: Callable[[Snapshot, Policy], T]) -> T:
    """Run a function about the whole tailnet on a thread, with a policy of its own."""

    def run() -> T:
        policy = snapshot.compile(snapshot.document)
        return function(snapshot, policy)

    return await asyncio.to_thread(run)


# -- one destination


@operation("GET", "/policy/reach", needs=Permission.READ, raises=[BadInput, NotFound])
async def get_reach(call: Call, query: types.ReachFilter) -> types.Reach:
    """Say whether a node, or any node of a person, reaches a destination, and by which rule.

    Where none does, the rule that came closest is named, and what is missing.
    """
    snapshot = call.snapshot
    goal = parse_goal(snapshot, query.destination, query.protocol)
    sources = parse_sources(snapshot, query.source)
    there = {gate.id for gate in goal.gates} if len(goal.addresses) > 1 else set()
    known = snapshot.policy.roster.members
    asked = [node for node in sources if node.id in known and node.id not in there]
    if len(asked) <= AT_ONCE:
        found = _found_ways(snapshot.policy, asked, goal)
        closest = None if found else _closest(snapshot.policy, asked, goal)
    else:
        found, closest = await apart(snapshot, lambda _, policy: _search(policy, asked, goal))
    return types.Reach(
        allowed=bool(found),
        ways=tuple(_way(snapshot, node, each) for node, each in found),
        closest=closest,
        notes=tuple(_notes(call, sources, query.source, goal)),
    )


_Found = list[tuple[Node, list[Way]]]


def _found_ways(policy: Policy, sources: Iterable[Node], goal: Goal) -> _Found:
    members = policy.roster.members
    return [(node, each) for node in sources if (each := ways(policy, members[node.id], goal))]


def _search(policy: Policy, sources: list[Node], goal: Goal) -> tuple[_Found, types.Closest | None]:
    """The same for many: who reaches it at all is asked once."""
    every = Survey(policy).who_can(goal)
    found = [(node, every[node.id]) for node in sources if node.id in every]
    return found, None if found else _closest(policy, sources[:AT_ONCE], goal)


def _closest(policy: Policy, sources: Iterable[Node], goal: Goal) -> types.Closest | None:
    best: tuple[tuple[int, tuple[int, ...]], Node, NearMiss] | None = None
    for node in sources:
        found = near_miss(
            policy,
            policy.roster.members[node.id],
            goal,
            name=node.name,
            attributes=node_attributes(node, policy.roster.country_of),
        )
        if found is not None:
            key = (len(found.lacks), found.lacks)
            if best is None or key < best[0]:
                best = (key, node, found)
    if best is None:
        return None
    _, node, missed = best
    return types.Closest(source=node.name, rule=_rule(missed.rule), missing=missed.words)


def _notes(call: Call, sources: Iterable[Node], asked: str, goal: Goal) -> Iterator[str]:
    """What stands in the way beside the policy."""
    snapshot, now = call.snapshot, call.context.clock.now()
    every = list(sources)
    if not every:
        yield f"{asked} has no node."
    there = [snapshot.nodes[gate.id] for gate in goal.gates if gate.id in snapshot.nodes]
    ends = list({node.id: node for node in (*every, *there)}.values())
    people = {owner.name for node in ends if (owner := snapshot.owner(node)) is not None and owner.suspended}
    for name in sorted(people):
        yield f"{name} is suspended: nothing of theirs reaches anything, or is reached."
    for node in ends:
        if node.suspended:
            yield f"{node.name} is suspended: it reaches nothing, and nothing reaches it."
        if not node.approved:
            yield f"{node.name} waits for approval: `doorward nodes approve {node.name}`."
    for node in every:
        for gate in there:
            if (cut := snapshot.cut_between(node, gate)) is not None:
                until = "" if cut.expires is None else f" until {cut.expires:%Y-%m-%d %H:%M} UTC"
                yield f"{node.name} and {gate.name} are kept apart{until}, by {cut.created_by}."
    for node in every:
        if node.expired(now):
            yield f"The key of {node.name} has expired: its person has to sign in again."


def _way(
    snapshot: Snapshot,
    node: Node,
    every: list[Way],
    login: SSHRule | None = None,
) -> types.Way:
    return types.Way(
        source=node.name,
        owner=_owner(snapshot, node),
        ports=ports_text(ports for way in every for _, ports in way.services),
        rules=tuple(_rule(way.rule) for way in every),
        ssh=None if login is None else _rule(login),
        check=login is not None and login.check,
    )


def _owner(snapshot: Snapshot, node: Node) -> str:
    return " ".join(node.tags) or snapshot.owner_name(node)


def _rule(rule: Rule | SSHRule) -> types.RuleName:
    return types.RuleName(name=rule.origin, line=rule.place.line, column=rule.place.column)


@operation("GET", "/policy/who-can", needs=Permission.READ, raises=[BadInput, NotFound])
async def get_who_can(call: Call, query: types.WhoCanFilter) -> types.Reach:
    """List every node that reaches a destination, and by which rule; with ``account``, those that may also ssh there."""
    snapshot = call.snapshot
    port = SSH_PORT if query.account is not None else None
    goal = parse_goal(snapshot, query.destination, query.protocol, port)
    if query.account is not None and len(goal.addresses) < 2:
        raise BadInput("ssh accounts are known of nodes only", cure="Name a node, or leave the account out.")

    def answer(snapshot: Snapshot, policy: Policy) -> types.Reach:
        survey = Survey(policy)
        gates = {gate.id for gate in goal.gates}
        found = survey.who_can(goal)
        logins: Mapping[int, SSHRule] = {}
        if query.account is not None:
            logins = survey.ssh_as(goal.gates[0].id, query.account) if goal.gates else {}
            found = {node_id: each for node_id, each in found.items() if node_id in logins}
        ways = [
            _way(snapshot, snapshot.nodes[node_id], each, logins.get(node_id))
            for node_id, each in found.items()
            if len(goal.addresses) == 1 or node_id not in gates
        ]
        return types.Reach(allowed=bool(ways), ways=tuple(sorted(ways, key=lambda way: way.source)))

    return await apart(snapshot, answer)


# -- one source, and all of them


@operation("GET", "/policy/what-can", needs=Permission.READ, raises=[BadInput, NotFound])
async def get_what_can(call: Call, query: types.WhatCanFilter) -> list[types.Reachable]:
    """List all that a node, or the nodes of a person together, reach in the whole tailnet, ssh included."""
    snapshot = call.snapshot
    ids = frozenset(node.id for node in parse_sources(snapshot, query.source))

    def answer(snapshot: Snapshot, policy: Policy) -> list[types.Reachable]:
        return [
            types.Reachable(**each)
            for each in _reachables(snapshot, Survey(policy), ids & policy.roster.members.keys())
        ]

    return await apart(snapshot, answer)


def _reachables(snapshot: Snapshot, survey: Survey, ids: frozenset[int]) -> Iterator[dict[str, Any]]:
    found = survey.what_can(ids)
    names = {node_id: snapshot.nodes[node_id].name for node_id in {one.node for one in found}}
    for one in sorted(found, key=lambda one: (names[one.node], one.destination)):
        yield _reachable(snapshot, survey, ids, one)


def _reachable(snapshot: Snapshot, survey: Survey, ids: frozenset[int], one: Access) -> dict[str, Any]:
    node = snapshot.nodes[one.node]
    # A login needs a way to port 22 beside its rule.
    there = not one.destination and any(
        protocol == 6 and ports.First <= SSH_PORT <= ports.Last for protocol, ports in one.services
    )
    logins = survey.ssh(ids, one.node) if there else []
    return {
        "destination": one.destination or node.name,
        "router": node.name if one.destination else None,
        "owner": _owner(snapshot, node),
        "services": services_text(one.services),
        "ssh": tuple(
            f"{account} after a check" if login.rule.check else account
            for login in logins
            for account in login.accounts
        ),
        "rules": (*(_rule(rule) for rule in one.rules.values()), *(_rule(login.rule) for login in logins)),
    }


@operation("GET", "/policy/review", needs=Permission.READ, raises=[BadInput, NotFound])
async def get_review(call: Call, query: types.ReviewFilter) -> list[types.Entitlement]:
    """List who may reach what, by which rule: one line for each person (or set of tags) and destination.

    Of nodes that are nobody's, those with the same tags are one. People without a node reach nothing, and have no line.
    """
    snapshot = call.snapshot
    sources = ordinary_nodes(snapshot) if query.source is None else parse_sources(snapshot, query.source)

    def answer(snapshot: Snapshot, policy: Policy) -> list[types.Entitlement]:
        survey, found = Survey(policy), list[types.Entitlement]()
        subjects: dict[tuple[bool, str], list[Node]] = {}
        for node in sources:
            if node.id in policy.roster.members:
                subjects.setdefault((not node.tags, _owner(snapshot, node)), []).append(node)
        for (person, who), nodes in sorted(subjects.items(), key=lambda one: (not one[0][0], one[0][1])):
            names = tuple(node.name for node in nodes)
            for each in _reachables(snapshot, survey, frozenset(node.id for node in nodes)):
                if len(found) >= REVIEW_LIMIT:
                    raise BadInput(
                        f"the review has more than {REVIEW_LIMIT} lines",
                        cure="Ask about one person or tag at a time.",
                    )
                found.append(types.Entitlement(who=who, person=person, nodes=names, **each))
        return found

    return await apart(snapshot, answer)


OPERATIONS = (get_reach, get_who_can, get_what_can, get_review)
