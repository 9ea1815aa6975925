"""A packet filter in named parts, so that one source more is told with one part and not with the whole (control.md, section 16).

A client joins all parts to one filter, and every rule only lets in, so their order means nothing. Rules with few sources
are one part, ``base``. The sources of a longer rule are dealt out by the sum of their text, which puts each address into the
same part whatever else comes or goes; without that, each of n nodes of a group that joins would be told n addresses, to
n others. Pure.
"""

import zlib
from collections.abc import Mapping, Sequence
from functools import partial

import msgspec

from doorward.protocol.tailcfg.filter import FilterRule
from doorward.tailnet.netmap import PeerCache

BASE = "base"  # section 16: the part that a filter without names is taken for
LONG = 64  # sources; up to so many a rule is told whole: some 1.5 kB before compression
_FULL = 32  # sources in a part, about

Chunks = Mapping[str, list[FilterRule]]


def chunks_of(rules: list[FilterRule], cache: PeerCache) -> Chunks:
    """The filter's parts by name; ``base`` is always among them."""
    if all(len(rule.SrcIPs) <= LONG for rule in rules):
        return {BASE: rules}
    found = {BASE: [rule for rule in rules if len(rule.SrcIPs) <= LONG]}
    for rule in rules:
        if len(rule.SrcIPs) > LONG:
            # Many viewers have rules with the very same list of sources, which is never changed.
            deal = partial(_dealt, rule.SrcIPs)
            parts = cache.once(("chunks", id(rule.SrcIPs)), rule.SrcIPs, deal)
            for name, sources in parts.items():
                found.setdefault(name, []).append(msgspec.structs.replace(rule, SrcIPs=sources))
    return found


def difference(before: Chunks, after: Chunks) -> dict[str, list[FilterRule] | None]:
    """The parts that changed, and null for those that are gone."""
    gone = dict.fromkeys(sorted(before.keys() - after.keys()))
    return {**gone, **{name: rules for name, rules in after.items() if before.get(name) != rules}}


def _dealt(sources: Sequence[str]) -> dict[str, list[str]]:
    """The sources by the names of their parts. How many parts there are is in the names: another number makes all anew."""
    count = 1 << (len(sources) // _FULL).bit_length()
    parts: dict[str, list[str]] = {}
    for source in sources:
        parts.setdefault(f"{count}/{zlib.crc32(source.encode()) % count}", []).append(source)
    return parts
