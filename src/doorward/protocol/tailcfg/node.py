"""A node as its peers, and it itself, are told of it (protocol note control.md, sections 14 and 15).

Control sets every field. An absent boolean, string or list has Go's zero value; ``UNSET`` stands only where absent is
different from that.
"""

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from doorward.protocol.keys import DiscoPublic, MachinePublic, NodePublic
from doorward.protocol.tailcfg.dns import Resolver
from doorward.protocol.tailcfg.hostinfo import Hostinfo
from doorward.protocol.tailcfg.scalars import Time


class UserProfile(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who a user id is. Needed for every user named by a node, at the latest in the message that names it."""

    ID: int  # what Node.User and Node.Sharer refer to
    LoginName: str  # "alice@example.com"; what SSH rules and whois compare
    DisplayName: str  # what people are shown
    ProfilePicURL: str = ""  # absent: no picture
    Groups: list[str] = []  # groups that the node's programs may see in whois; usually absent


class Node(msgspec.Struct, frozen=True, omit_defaults=True):
    """One node. One malformed value in it ends the receiving client's poll."""

    ID: int  # 1 to 2^53-1, never used again
    StableID: str  # never empty, never used again: clients remember their exit node by it
    Name: str  # FQDN with trailing dot, at most 253 characters; the first label is the MagicDNS name
    User: int  # owner, or the tagged-devices profile
    Key: NodePublic  # on the node itself, the key it polls with
    Addresses: list[str]  # "/32" and "/128" prefixes, IPv4 first (some clients want exactly two)
    Sharer: int = 0  # who shared it into this tailnet; absent: nobody
    KeyExpiry: Time | UnsetType = UNSET  # absent: never. In the past on the node itself: it shows NeedsLogin
    KeySignature: bytes = b""  # tailnet lock only; doorward never sends it
    Machine: MachinePublic | UnsetType = UNSET  # its machine key; absent is fine for peers
    DiscoKey: DiscoPublic | UnsetType = UNSET  # absent: the peer cannot be used, unless IsWireGuardOnly
    # Absent: the same as Addresses (capver 112). When sent it has the node's own addresses too, then subnet and exit
    # routes that this viewer may use. An empty list means no traffic at all.
    AllowedIPs: list[str] | UnsetType = UNSET
    # "ip:port" or "[ip]:port", where it may be reached directly. An empty list is sent as such: for a peer that the
    # client knows, absent may mean unchanged.
    Endpoints: list[str] | UnsetType = UNSET
    DERP: str = ""  # "127.3.3.40:<region>", the home region for clients before capver 111; never sent here
    HomeDERP: int = 0  # home region (capver 111); absent: cannot be reached by relay
    # for peers at least Hostname, OS, Services, RoutableIPs, sshHostKeys
    Hostinfo: "Hostinfo | UnsetType" = UNSET
    Created: Time | UnsetType = UNSET  # when it was first registered
    Cap: int = 0  # the node's own capability version; absent: unknown
    Tags: list[str] = []  # "tag:name"; a tagged node belongs to nobody
    PrimaryRoutes: list[str] = []  # subnets it is the active router for; exit routes do not stand here
    LastSeen: Time | UnsetType = UNSET  # sent only while it is offline
    Online: bool | UnsetType = UNSET  # has a map stream; absent: unknown
    MachineAuthorized: bool = False  # must be true on the node itself, or it waits in NeedsMachineAuth
    Capabilities: list[str] = []  # deprecated list form of CapMap; never sent here
    CapMap: dict[str, list[Any] | None] = {}  # features; null or [] is a capability without a value
    UnsignedPeerAPIOnly: bool = False  # may reach only peerapi; never with "*" as a filter source
    ComputedName: str = ""  # computed by the client; never sent
    ComputedNameWithHost: str = ""  # computed by the client; never sent
    DataPlaneAuditLogID: str = ""  # flow logs of the hosted service; never sent here
    Expired: bool = False  # usually derived by the client from KeyExpiry; true takes a peer's paths away
    # what this peer sees instead of the viewer's own IPv4
    SelfNodeV4MasqAddrForThisPeer: str | UnsetType = UNSET
    SelfNodeV6MasqAddrForThisPeer: str | UnsetType = UNSET  # the same for IPv6
    IsWireGuardOnly: bool = False  # plain WireGuard: static Endpoints, no disco, no relay
    IsJailed: bool = False  # may answer the viewer but not start a connection to it
    ExitNodeDNSResolvers: list[Resolver] = []  # for an exit node that is WireGuard only


class PeerChange(msgspec.Struct, frozen=True, omit_defaults=True):
    """Some new values of one peer. Absent is unchanged; a NodeID that the client does not know is ignored.

    A change that has DiscoKey, LastSeen and Online false is dropped as a whole by current clients unless LastSeen is
    newer than what they know.

    In current clients DERPRegion, Endpoints, Online and LastSeen are applied without rebuilding the netmap.
    """

    NodeID: int  # which peer
    DERPRegion: int = 0  # new home region; 0 (absent) is unchanged and so cannot clear it
    Cap: int = 0  # new capability version; 0 (absent) is unchanged
    CapMap: dict[str, list[Any] | None] | UnsetType = UNSET  # replaces the whole CapMap
    Endpoints: list[str] | UnsetType = UNSET  # replaces all of them
    Key: NodePublic | UnsetType = UNSET  # after a key rotation
    KeySignature: bytes = b""  # tailnet lock only; never sent here
    DiscoKey: DiscoPublic | UnsetType = UNSET  # after a restart of the peer; zero takes the peer's paths away
    Online: bool | UnsetType = UNSET  # it has, or has no longer, a map stream
    LastSeen: Time | UnsetType = UNSET  # when its last map stream ended; goes with Online false
    KeyExpiry: Time | UnsetType = UNSET  # the zero time: never
