"""Packet filter rules, enforced by the destination node (protocol note control.md, section 16)."""

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType


class PortRange(msgspec.Struct, frozen=True):
    """Ports ``First`` to ``Last``, both included; 0 to 65535 is every port."""

    First: int  # 0 to 65535
    Last: int  # not below First


ALL_PORTS = PortRange(0, 65535)


class NetPortRange(msgspec.Struct, frozen=True):
    """A destination: addresses and ports. The retired ``Bits`` is never sent: its presence discards the filter."""

    IP: str  # an address, a prefix without host bits, a range "a-b", or "*"
    Ports: PortRange  # of TCP and UDP; other protocols ignore them


class CapGrant(msgspec.Struct, frozen=True, omit_defaults=True):
    """Peer capabilities that a rule's sources hold towards ``Dsts``."""

    Dsts: list[str]  # prefixes: this node's own addresses
    # capability name to its raw JSON values; null: no value
    CapMap: dict[str, list[Any] | None] | UnsetType = UNSET


class FilterRule(msgspec.Struct, frozen=True, omit_defaults=True):
    """One rule: it has either ``DstPorts`` or ``CapGrant``. No rule at all denies everything inbound."""

    SrcIPs: list[str]  # address, prefix, range "a-b", "*", or "cap:<name>" (capver 109)
    DstPorts: list[NetPortRange] | UnsetType = UNSET  # where the sources may connect to
    IPProto: list[int] | UnsetType = UNSET  # absent: TCP 6, UDP 17, ICMP 1 and ICMPv6 58
    CapGrant: "list[CapGrant] | UnsetType" = UNSET  # or what they may do there, by peer capability
