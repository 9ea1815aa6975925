"""Reads the sections that give names: ``groups``, ``tagOwners``, ``hosts``, ``ipsets`` and ``postures``."""

from collections.abc import Collection, Mapping

from doorward.model import Prefix
from doorward.policy.document import Kind, Place, Selector, Text
from doorward.policy.posture import COUNTRY, MAX_ASSERTIONS, Posture, parse_assertion
from doorward.policy.ranges import INTERNET, Range, add, of_prefix, of_text, remove
from doorward.policy.reader import Reader, Scope
from doorward.policy.selectors import PEOPLE, Names, check_tag_name, parse_prefix, parse_range
from doorward.policy.words import WordError, did_you_mean
from doorward.protocol import hujson

_RESERVED_HOSTS = (
    "tag:",
    "group:",
    "autogroup:",
    "user:",
    "localpart:",
    "ipset:",
    "svc:",
    "host:",
    "posture:",
)

MAX_RANGES = 2000  # of one ipset: every rule that names it repeats them all
MAX_OPERATIONS = 10_000  # of all ipsets together: each may go through all ranges of its set
_MAX_NESTING = 20  # of ipsets inside ipsets


def names_of(
    top: Mapping[str, hujson.Value],
    hosts: Mapping[str, Prefix],
    ipsets: Mapping[str, tuple[Range, ...]],
    postures: Collection[str],
) -> Names:
    """The names that the file defines. What groups and tags hold is judged when they are read."""
    names: dict[str, frozenset[str]] = {}
    for key in ("groups", "tagOwners"):
        value = top.get(key)
        members = value.members if isinstance(value, hujson.Object) else ()
        names[key] = frozenset(str(member.name.data).strip() for member in members)
    return Names(names["groups"], names["tagOwners"], hosts, ipsets, postures)


def parse_hosts(reader: Reader, value: hujson.Value | None) -> dict[str, Prefix]:
    """Read ``hosts``: names for addresses and prefixes."""
    hosts: dict[str, Prefix] = {}
    for name, item in reader.members(value, '"hosts"'):
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
    return hosts


def parse_ipsets(
    reader: Reader, value: hujson.Value | None, hosts: Mapping[str, Prefix]
) -> dict[str, tuple[Range, ...]]:
    """Read ``ipsets``: addresses added and removed in order, other sets among them."""
    return _Sets(reader, value, hosts).resolved()


class _Sets:
    """The ipsets of one file while they are worked out."""

    def __init__(self, reader: Reader, value: hujson.Value | None, hosts: Mapping[str, Prefix]) -> None:
        self._reader = reader
        self._hosts = hosts
        self._written: dict[str, list[Text]] = {}
        self._done: dict[str, tuple[Range, ...]] = {}
        self._open: list[str] = []
        operations = 0
        for name, item in reader.members(value, '"ipsets"'):
            place = reader.place(item)
            if not name.strip().startswith("ipset:") or name.strip() == "ipset:":
                cure = f'Write "ipset:{name.strip()}".'
                reader.complain(place, f"ipsets[\"{name}\"]: names must start with 'ipset:'", cure)
                continue
            texts = list(reader.texts(item, f'ipsets["{name}"]'))
            operations += len(texts)
            if operations > MAX_OPERATIONS:
                reader.complain(
                    place, f"more than {MAX_OPERATIONS} entries in ipsets", "Name larger prefixes."
                )
                texts = []
            self._written[name.strip()] = texts

    def resolved(self) -> dict[str, tuple[Range, ...]]:
        return {name: self._resolve(name) for name in self._written}

    def _resolve(self, name: str) -> tuple[Range, ...]:
        if name in self._done:
            return self._done[name]
        self._open.append(name)
        found: tuple[Range, ...] = ()
        pending: list[Range] = []  # added since the last removal: merging once is cheaper than each time
        texts = self._written[name]
        removes = any(text.value.split(maxsplit=1)[:1] == ["remove"] for text in texts)
        for text in texts:
            verb, _, target = text.value.partition(" ")
            if verb not in {"add", "remove"}:
                verb, target = "add", text.value
                if removes:
                    self._reader.complain(
                        text.place,
                        f'"{text.value}" in a set that also removes needs "add" or "remove" before it',
                        f'Write "add {text.value}".',
                    )
            ranges = self._reader.attempt(text.place, self._target, target.strip()) or ()
            if verb == "add":
                pending.extend(ranges)
            else:
                found, pending = remove(add(found, pending), ranges), []
        found = add(found, pending)
        if len(found) > MAX_RANGES and texts:
            self._reader.complain(
                texts[0].place,
                f'"{name}" comes to {len(found)} ranges of addresses; the limit is {MAX_RANGES}',
                "Name larger prefixes, or split the set.",
            )
            found = ()
        self._open.pop()
        self._done[name] = found
        return found

    def _target(self, text: str) -> tuple[Range, ...]:
        if text == "autogroup:internet":
            return tuple(map(of_text, INTERNET))
        if text.startswith("ipset:"):
            if text not in self._written:
                cure = did_you_mean(text, self._written, f'Add "{text}" to "ipsets".')
                raise WordError(f'ipset not found: "{text}"', cure)
            if text in self._open:
                raise WordError(
                    f'"{text}" contains itself: {" > ".join((*self._open, text))}',
                    "Take it out of one of them.",
                )
            if len(self._open) >= _MAX_NESTING:
                raise WordError(f"ipsets nested deeper than {_MAX_NESTING}", "Name the addresses directly.")
            return self._resolve(text)
        host = self._hosts.get(text.removeprefix("host:"))
        if host is not None:
            return (of_prefix(host),)
        if text.startswith(("tag:", "group:", "autogroup:", "user:")) or "@" in text:
            raise WordError(
                f'"{text}" cannot be in an ipset',
                "Name addresses, hosts, other ipsets or autogroup:internet.",
            )
        return (of_prefix(parse_prefix(text)) if "-" not in text else parse_range(text),)


def parse_postures(reader: Reader, value: hujson.Value | None) -> tuple[dict[str, Posture], Place | None]:
    """Read ``postures``: conditions on source nodes. Also where the first stands that asks for a country."""
    postures: dict[str, Posture] = {}
    country: Place | None = None
    for name, item in reader.members(value, '"postures"'):
        place = reader.place(item)
        if not name.strip().startswith("posture:") or name.strip() == "posture:":
            cure = f'Write "posture:{name.strip()}".'
            reader.complain(place, f"postures[\"{name}\"]: posture names must start with 'posture:'", cure)
            continue
        texts = list(reader.texts(item, f'postures["{name}"]'))
        if not 0 < len(texts) <= MAX_ASSERTIONS:
            reader.complain(
                place,
                f'postures["{name}"] has {len(texts)} assertions; it takes 1 to {MAX_ASSERTIONS}',
                "Write [\"node:os == 'linux'\"], for example.",
            )
        found = [(reader.attempt(text.place, parse_assertion, text.value), text.place) for text in texts]
        postures[name.strip()] = Posture(tuple(one for one, _ in found if one is not None))
        asking = (at for one, at in found if one is not None and one.attribute == COUNTRY)
        country = country or next(asking, None)
    return postures, country


def parse_groups(scope: Scope, value: hujson.Value | None) -> dict[str, tuple[Selector, ...]]:
    """Read ``groups``: lists of users. The hosted service refuses groups inside groups, and so do we."""
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


def check_owner(selector: Selector) -> Selector:
    """The selector, if it may own a tag or approve routes; raises WordError otherwise."""
    named = selector.kind in {Kind.USER, Kind.DOMAIN, Kind.GROUP, Kind.TAG}
    if named or (selector.kind is Kind.AUTOGROUP and selector.value in PEOPLE | {"tagged"}):
        return selector
    raise WordError(
        f'"{selector.text}" cannot be an owner', "Name users, groups, tags or autogroups of people."
    )


def parse_tag_owners(scope: Scope, value: hujson.Value | None) -> dict[str, tuple[Selector, ...]]:
    """Read ``tagOwners``: who may give which tag."""
    owners: dict[str, tuple[Selector, ...]] = {}
    for name, item in scope.reader.members(value, '"tagOwners"'):
        tag = name.strip()
        try:
            check_tag_name(tag)
        except WordError as refusal:
            scope.reader.complain(
                scope.reader.place(item), f'tagOwners["{name}"]: {refusal.message}', refusal.cure
            )
        owners[tag] = scope.selectors(item, f'tagOwners["{name}"]', check=check_owner)
    return owners
