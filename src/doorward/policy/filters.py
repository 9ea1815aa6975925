"""Packet filters: what one node, as the destination, lets in (protocol note control.md, section 16).

Rules are cut once per document into *pieces*, each of which makes at most one filter rule on a node: one set of
sources, one set of protocols. On a node, pieces with the same sources, protocols and ``via`` become one rule at the place of the
first of them, whether or not that one says anything about this node: this is the hosted service's order.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from msgspec import UNSET

from doorward.policy.document import Kind, Rule, Selector
from doorward.policy.ranges import INTERNET
from doorward.policy.roster import Member, Roster
from doorward.policy.sources import Sources
from doorward.protocol.tailcfg.filter import CapGrant, FilterRule, NetPortRange, PortRange

# Capabilities that work only if the other side holds a matching one towards the first.
_COMPANIONS = {
    "tailscale.com/cap/drive": "tailscale.com/cap/drive-sharer",
    "tailscale.com/cap/relay": "tailscale.com/cap/relay-target",
}

_Target = tuple[Selector, tuple[PortRange, ...]]


@dataclass(frozen=True, slots=True)
class Piece:
    """The part of a rule that makes one filter rule. Without ``capabilities`` it is about ports."""

    sources: tuple[Selector, ...]
    targets: tuple[_Target, ...]
    own: bool  # targets are "autogroup:self" only
    protocols: tuple[int, ...] = ()
    via: tuple[str, ...] = ()
    capabilities: dict[str, list[Any] | None] = field(default_factory=dict)
    conditions: tuple[Selector, ...] = ()  # postures that a target has to meet one of; none: no condition


def pieces_of(rules: Iterable[Rule]) -> tuple[Piece, ...]:
    """Cut rules into pieces: ports by protocol, then capabilities, then the companions of capabilities."""
    return tuple(piece for rule in rules for piece in _cut(rule))


def _cut(rule: Rule) -> Iterator[Piece]:
    by_protocol: dict[tuple[int, ...], list[_Target]] = {}
    for flow in rule.flows:
        by_protocol.setdefault(flow.protocols, []).append((flow.target, flow.ports))
    for protocols, targets in by_protocol.items():
        for own, run in _runs(targets):
            yield Piece(rule.who, run, own, protocols, rule.via)
    if not rule.app or rule.via:
        return
    held: dict[str, list[Any] | None] = dict(rule.app)
    for own, run in _runs([(target, ()) for target in rule.app_targets]):
        yield Piece(rule.who, run, own, capabilities=held)
    for name, companion in _COMPANIONS.items():
        if name in rule.app:
            back: list[_Target] = [(source, ()) for source in rule.sources]
            others = tuple(target for target in rule.app_targets if not target.is_autogroup("self"))
            if others:
                held_back: dict[str, list[Any] | None] = {companion: None}
                yield Piece(others, tuple(back), own=False, capabilities=held_back, conditions=rule.postures)
            if len(others) < len(rule.app_targets):
                yield Piece(rule.who, tuple(back), own=True, capabilities={companion: None})


def _runs(targets: list[_Target]) -> Iterator[tuple[bool, tuple[_Target, ...]]]:
    """Targets in runs of "self" and of others; autogroups come after all other names, in their own order."""
    ordered = [one for one in targets if one[0].kind is not Kind.AUTOGROUP]
    ordered += [one for one in targets if one[0].kind is Kind.AUTOGROUP]
    run: list[_Target] = []
    for target in ordered:
        own = target[0].is_autogroup("self")
        if run and own != run[0][0].is_autogroup("self"):
            yield not own, tuple(run)
            run = []
        run.append(target)
    if run:
        yield run[0][0].is_autogroup("self"), tuple(run)


@dataclass(frozen=True, slots=True)
class Resolved:
    """A piece applied to who there is: what its rules on all nodes have in common."""

    piece: Piece
    sources: Sources
    rank: int  # where its rule stands; pieces that become one rule share it
    targets: tuple[frozenset[int], ...]  # nodes that it can say something about


def resolve_pieces(
    pieces: Iterable[Piece], roster: Roster, sources_of: Callable[[tuple[Selector, ...]], Sources]
) -> list[Resolved]:
    """Apply pieces to who there is. Those that can make no rule anywhere are left out."""
    ranks: dict[object, int] = {}
    found: list[Resolved] = []
    for index, piece in enumerate(pieces):
        sources = sources_of(piece.sources)
        if piece.own:
            found.append(Resolved(piece, sources, index, ()))
            continue
        # Capabilities that nobody holds are sent all the same, as the hosted service does; ports for nobody are not.
        if sources.is_nobody and not piece.capabilities:
            continue
        rank = index
        if not piece.capabilities:
            rank = ranks.setdefault((sources.identity, piece.protocols, piece.via), index)
        targets = tuple(roster.named(selector) for selector, _ in piece.targets)
        found.append(Resolved(piece, sources, rank, targets))
    return found


def filter_for(member: Member, pieces: Iterable[Resolved], roster: Roster) -> list[FilterRule]:
    """The filter rules of one node. Lists of sources are shared between nodes: never change them."""
    merged: dict[int, tuple[list[str], Piece, list[NetPortRange]]] = {}
    grants: dict[int, FilterRule] = {}
    own_ranks: dict[object, int] = {}
    node_id = member.id
    for resolved in pieces:
        piece, rank = resolved.piece, resolved.rank
        if piece.own:
            nodes = resolved.sources.own(roster, member.owner)
            if not nodes:
                continue
            texts = roster.texts_of(nodes)
            if not piece.capabilities:
                rank = own_ranks.setdefault((nodes, piece.protocols), rank)
        else:
            for ids in resolved.targets:
                if node_id in ids:
                    break
            else:
                continue
            texts = resolved.sources.texts
        if piece.capabilities:
            destinations = _own_prefixes(member, piece, roster)
            if destinations:
                grant = CapGrant(Dsts=destinations, CapMap=piece.capabilities)
                grants[rank] = FilterRule(SrcIPs=texts, CapGrant=[grant])
            continue
        entries = _entries(member, piece, roster)
        if entries:
            merged.setdefault(rank, (texts, piece, []))[2].extend(entries)
    return [
        grants[rank] if rank in grants else _ports_rule(*merged[rank]) for rank in sorted((*grants, *merged))
    ]


def _ports_rule(texts: list[str], piece: Piece, entries: list[NetPortRange]) -> FilterRule:
    protocols = list(piece.protocols) if piece.protocols else UNSET
    return FilterRule(SrcIPs=texts, DstPorts=entries, IPProto=protocols)


def _entries(member: Member, piece: Piece, roster: Roster) -> list[NetPortRange]:
    found: list[NetPortRange] = []
    for selector, ports in piece.targets:
        for text in _destinations(member, selector, piece, roster):
            found += [NetPortRange(text, one) for one in ports]
    return found


def _destinations(member: Member, selector: Selector, piece: Piece, roster: Roster) -> tuple[str, ...]:
    if piece.own:
        return member.texts
    if not reaches(member, selector, piece.via, roster):
        return ()
    if selector.kind is Kind.EVERYONE:
        return ("*",)
    if selector.is_addresses:
        return tuple(map(str, selector.ranges))
    if selector.is_autogroup("internet"):
        return INTERNET
    return member.texts


def reaches(member: Member, selector: Selector, via: tuple[str, ...], roster: Roster) -> bool:
    """True if traffic to ``selector`` arrives at this node; ``via`` limits it to routers with one of these tags."""
    if not via:
        return roster.matches(selector, member)
    if member.tags.isdisjoint(via):
        return False
    if selector.is_addresses:
        return member.carries(selector.ranges)
    return bool(member.exits)


def _own_prefixes(member: Member, piece: Piece, roster: Roster) -> list[str]:
    """The node's own addresses that a capability is held out at."""
    if piece.conditions and not any(roster.matches(one, member) for one in piece.conditions):
        return []
    own = (f"{member.ipv4}/32", f"{member.ipv6}/128")
    found: dict[str, None] = {}
    for selector, _ in piece.targets:
        if selector.is_addresses:
            inside = (
                any(member.ipv4 in one for one in selector.ranges),
                any(member.ipv6 in one for one in selector.ranges),
            )
            found.update(dict.fromkeys(text for text, is_in in zip(own, inside, strict=True) if is_in))
        elif piece.own or roster.matches(selector, member):
            found.update(dict.fromkeys(own))
    return list(found)
