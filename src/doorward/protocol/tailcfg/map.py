"""The network map: what a client asks and what control streams (protocol note control.md, sections 11 to 15).

In a MapResponse an absent field is unchanged since the last message of the session. ``UNSET`` is absent. Null is never
sent except inside the maps whose comment gives it a meaning.
"""

from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from doorward.protocol.keys import DiscoPublic, NodePublic
from doorward.protocol.tailcfg.derpmap import DERPMap
from doorward.protocol.tailcfg.dns import DNSConfig
from doorward.protocol.tailcfg.filter import FilterRule
from doorward.protocol.tailcfg.hostinfo import Hostinfo
from doorward.protocol.tailcfg.node import Node, PeerChange, UserProfile
from doorward.protocol.tailcfg.scalars import CapVer, Int, Time, known_time
from doorward.protocol.tailcfg.ssh import SSHPolicy

# MapRequest.EndpointTypes: where the client got an endpoint from.
ENDPOINT_UNKNOWN = 0
ENDPOINT_LOCAL = 1
ENDPOINT_STUN = 2
ENDPOINT_PORT_MAPPED = 3
ENDPOINT_STUN_LOCAL_PORT = 4  # STUN's IPv4 address with the local port: a guess
ENDPOINT_EXPLICIT = 5  # configured by the administrator of the node

# A peer as it is given to a MapResponse: a Node, or its JSON made before.
Peer = Node | msgspec.Raw

CLEAR_ALL = "*"  # as a key of PacketFilters or DisplayMessages with null: forget every earlier one first
BASE_FILTER = "base"  # the chunk that MapResponse.PacketFilter replaces


class MapRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """Sent by the client, in two kinds: ``Stream`` opens a session; a *lite update* has OmitPeers and no Stream."""

    Version: CapVer  # capability version
    NodeKey: NodePublic  # must belong to the connection's machine key
    DiscoKey: DiscoPublic = DiscoPublic.zero()  # zero: not said
    Compress: str = ""  # "zstd" from stock clients; "": plain JSON
    KeepAlive: bool = False  # wants keep-alive messages
    Stream: bool = False  # long poll; otherwise one answer
    # full; its NetInfo is absent while not measured again: keep the last one
    Hostinfo: "Hostinfo | None" = None
    Endpoints: list[str] = []  # "ip:port" where it can be reached; only lite updates carry them
    EndpointTypes: list[Int] = []  # parallel to Endpoints: ENDPOINT_*; may be shorter in old clients
    OmitPeers: bool = False  # lite update: the answer is an empty 200
    ReadOnly: bool = False  # change nothing, just answer; not set by stock clients
    DebugFlags: list[str] = []  # such as "netstack"; shown only
    MapSessionHandle: str = ""  # resume a session; stock clients never send it
    MapSessionSeq: Int = 0  # goes with MapSessionHandle
    TKAHead: str = ""  # tailnet lock; ignored here
    HardwareAttestationKey: str = ""  # capver 130; ignored here
    HardwareAttestationKeySignature: bytes = b""  # ignored here
    HardwareAttestationKeySignatureTimestamp: Time | None = None  # ignored here; None for the zero time
    ConnectionHandleForTest: str = ""  # the clients' own tests; ignored here

    def __post_init__(self) -> None:
        stamp = known_time(self.HardwareAttestationKeySignatureTimestamp)
        msgspec.structs.force_setattr(self, "HardwareAttestationKeySignatureTimestamp", stamp)


class DisplayMessageAction(msgspec.Struct, frozen=True):
    """A button below a message."""

    URL: str  # where it leads; http or https
    Label: str  # what it says


class DisplayMessage(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something a person at the client should know (capver 117)."""

    Title: str  # one line, no full stop
    Text: str  # a sentence or two
    Severity: Literal["high", "medium", "low"]  # high: shown even where the rest is not
    ImpactsConnectivity: bool = False  # the client also changes its icon
    PrimaryAction: DisplayMessageAction | None = None  # None: no button


class PingRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """Control asks the node for a sign of life, a ping of a peer, or an answer of its own (section 22)."""

    URL: str  # where the answer goes; a URL equal to the last one is ignored, so each is used once
    URLIsNoise: bool = False  # the answer comes inside Noise
    Log: bool = False  # the client logs what it does
    Types: str = ""  # "": HEAD to URL; "c2n": run Payload; else a list of disco, TSMP, ICMP, peerapi
    IP: str = ""  # whom to ping; absent for "" and c2n
    Payload: bytes = b""  # for c2n: a raw HTTP/1.1 request


class PingResponse(msgspec.Struct, frozen=True, omit_defaults=True):
    """The client's answer to a ping of disco, TSMP, ICMP or peerapi: POSTed to the request's URL."""

    Type: str = ""  # the kind of ping
    IP: str = ""  # who was pinged
    NodeIP: str = ""  # the node that answered for IP; differs for subnet routers
    NodeName: str = ""  # its name
    Err: str = ""  # why it failed; "": it did not
    LatencySeconds: float = 0.0  # there and back
    Endpoint: str = ""  # "ip:port" of a direct path; "": relayed
    PeerRelay: str = ""  # "ip:port:vni:..." of a path through a peer relay
    DERPRegionID: Int = 0  # the relay that was used; 0: none
    DERPRegionCode: str = ""  # its short name
    PeerAPIPort: Int = 0  # for TSMP: where the peer's peerapi listens
    IsLocalIP: bool = False  # the address was the node's own


class ClientVersion(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whether there is a newer client, as far as control knows."""

    RunningLatest: bool = False  # nothing to do
    LatestVersion: str = ""  # such as "1.102.4"; "": not said
    UrgentSecurityUpdate: bool = False  # said with more emphasis
    Notify: bool = False  # show a notification
    NotifyURL: str = ""  # where it leads
    NotifyText: str = ""  # what it says


class Debug(msgspec.Struct, frozen=True, omit_defaults=True):
    """Instructions of control to the client program."""

    SleepSeconds: float = 0.0  # pause reading for so long, at most 300
    DisableLogTail: bool = False  # no log upload to the vendor, for the life of the process
    Exit: int | None = None  # end the process with this status; None (absent): go on


class ControlIPCandidate(msgspec.Struct, frozen=True, omit_defaults=True):
    """One way to reach control."""

    IP: str = ""  # address to dial; "": ACEHost instead
    ACEHost: str = ""  # a proxy of the hosted service
    DialStartDelaySec: float = 0.0  # wait so long before this one
    DialTimeoutSec: float = 0.0  # give up after
    Priority: int = 0  # higher first


class ControlDialPlan(msgspec.Struct, frozen=True):
    """How to reach control next time; an empty list withdraws an earlier plan."""

    Candidates: list[ControlIPCandidate]  # tried by Priority, several at once


class TKAInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """Tailnet lock's state (section 23). doorward never sends it: absent means that there is no lock."""

    Head: str = ""  # of its chain of updates
    Disabled: bool = False  # it was turned off; needs a secret to be believed


class MapResponse(msgspec.Struct, frozen=True, omit_defaults=True):
    """One message of the map stream. Control sets every field.

    ``Peers`` and ``PeersChanged`` also take ``msgspec.Raw``: a peer's JSON, made once and sent to many. Decoding always
    yields Node.
    """

    KeepAlive: bool = False  # true: a sign of life in which little else is looked at (section 12)
    PingRequest: "PingRequest | UnsetType" = UNSET  # may ride on a keep-alive
    PopBrowserURL: str = ""  # opened in a browser, once for each distinct value
    Node: "Node | UnsetType" = UNSET  # the receiving node; required in the first message of a session
    DERPMap: "DERPMap | UnsetType" = UNSET  # without any region a client stays in Starting
    # The complete list, sorted by ID. Only a non-empty list counts for stock clients, and then the five fields below
    # are ignored; send none rather than an empty one (other clients take that as "no peers").
    Peers: list[Peer] | UnsetType = UNSET
    PeersChanged: list[Peer] | UnsetType = UNSET  # added, or replaced by ID
    PeersRemoved: list[int] | UnsetType = UNSET  # by ID
    PeersChangedPatch: list[PeerChange] | UnsetType = UNSET  # applied after PeersChanged and PeersRemoved
    PeerSeenChange: dict[int, bool] | UnsetType = UNSET  # by ID; true: seen now; false: clears LastSeen
    OnlineChange: dict[int, bool] | UnsetType = UNSET  # by ID
    DNSConfig: "DNSConfig | UnsetType" = UNSET  # replaces the whole configuration
    Domain: str = ""  # the tailnet's name; "" (absent) is unchanged
    CollectServices: bool | UnsetType = UNSET  # false: the client does not scan its listening ports
    # replaces the chunk named "base"; []: deny all inbound
    PacketFilter: list[FilterRule] | UnsetType = UNSET
    # Chunks by name, merged; null deletes one, and "*" with null clears all first. Concatenated in the order of names.
    PacketFilters: dict[str, list[FilterRule] | None] | UnsetType = UNSET
    UserProfiles: list[UserProfile] | UnsetType = UNSET  # merged by ID, cumulative
    Health: list[str] | UnsetType = UNSET  # replaces; [] clears. For clients before capver 117
    # merged by id; null deletes, "*" clears
    DisplayMessages: dict[str, DisplayMessage | None] | UnsetType = UNSET
    SSHPolicy: "SSHPolicy | UnsetType" = UNSET  # replaces; {"rules":[]} revokes, absent never does
    ControlTime: Time | UnsetType = UNSET  # control's clock now: clients judge expiry by it
    TKAInfo: "TKAInfo | UnsetType" = UNSET  # never sent here
    DomainDataPlaneAuditLogID: str = ""  # flow logs of the hosted service; never sent here
    Debug: "Debug | UnsetType" = UNSET  # instructions to the client program, carried out at once
    ControlDialPlan: "ControlDialPlan | UnsetType" = UNSET  # kept for the next dial
    ClientVersion: "ClientVersion | UnsetType" = UNSET  # replaces
    DefaultAutoUpdate: bool | UnsetType = UNSET  # deprecated; the capability default-auto-update says it
    MapSessionHandle: str = ""  # to resume a session; ignored by stock clients
    Seq: int = 0  # goes with MapSessionHandle
