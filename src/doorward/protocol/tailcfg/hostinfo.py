"""What a client says about its host (protocol note control.md, section 10.1)."""

from typing import Annotated

import msgspec

from doorward.protocol.tailcfg.scalars import Int, PortNumber


class NetInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a client measured about its network. Absent in a Hostinfo while unchanged: keep the last one."""

    PreferredDERP: Int = 0  # home region; 0 means none chosen yet
    DERPLatency: dict[str, float] | None = None  # "<region>-v4" or "-v6" to seconds
    # a NAT that gives each destination another port; None: not measured
    MappingVariesByDestIP: bool | None = None
    WorkingIPv6: bool | None = None  # IPv6 reaches the internet; None: not measured
    OSHasIPv6: bool | None = None  # the host has IPv6 at all; None: not measured
    WorkingUDP: bool | None = None  # STUN got an answer; None: not measured
    WorkingICMPv4: bool | None = None  # a ping got an answer, where UDP did not; None: not measured
    HavePortMap: bool = False  # a port mapping is held now
    UPnP: bool | None = None  # the router offers it; None: not measured
    PMP: bool | None = None  # the same for NAT-PMP
    PCP: bool | None = None  # the same for PCP
    LinkType: str = ""  # "wired", "wifi" or "mobile"; empty: not known
    FirewallMode: str = ""  # how the client sets up the firewall, such as "nft-default"; empty outside Linux


class Service(msgspec.Struct, frozen=True, omit_defaults=True):
    """A port the host offers; peerapi ports travel here too."""

    Proto: str = ""  # tcp, udp, peerapi4, peerapi6, peerapi-dns-proxy
    # peerapi ports change at each start; for peerapi-dns-proxy it is a version, not a port
    Port: PortNumber = 0
    Description: str = ""  # the name of the process that listens; empty for peerapi


class Location(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where an exit node stands, for clients that group exit nodes by place."""

    Country: str = ""  # name, as shown
    CountryCode: str = ""  # two capital letters (ISO 3166-1)
    City: str = ""  # name, as shown
    CityCode: str = ""  # tells cities of one name apart
    Latitude: float = 0.0  # degrees; 0 with Longitude 0: not known
    Longitude: float = 0.0  # degrees
    Priority: int = 0  # higher is preferred among nodes of one place


class TPMInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """The host's TPM, if it has one. Shown only."""

    Manufacturer: str = ""  # four letters
    Vendor: str = ""  # as the TPM calls itself
    Model: Int = 0  # a number of the maker's own
    FirmwareVersion: Annotated[int, msgspec.Meta(ge=0)] = 0  # 64 bits, unsigned
    SpecRevision: Int = 0  # of the specification it follows, times 100
    FamilyIndicator: str = ""  # "2.0"


class Hostinfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """The host as the client describes it. Nothing here is proven; it is shown, and routed on only once approved."""

    IPNVersion: str = ""  # client version, such as 1.102.4-ERR-BuildInfo
    FrontendLogID: str = ""  # id of the user interface in the vendor's logs
    BackendLogID: str = ""  # id of the daemon in the vendor's logs; stays over restarts
    OS: str = ""  # linux, windows, macOS, iOS, android, js ...
    OSVersion: str = ""  # kernel or system version, as text
    Container: bool | None = None  # it runs in a container; None: not known
    Env: str = ""  # a known platform, such as "k8s" or "fly"
    Distro: str = ""  # Linux: "debian" ...
    DistroVersion: str = ""  # "12.11"
    DistroCodeName: str = ""  # "bookworm"
    App: str = ""  # a program that carries its own node, such as "k8s-operator"
    Desktop: bool | None = None  # Linux: somebody's desktop runs here; None: not known
    Package: str = ""  # how the client was installed
    DeviceModel: str = ""  # "iPhone12,3"
    PushDeviceToken: str = ""  # for push messages to phones; unused here
    Hostname: str = ""  # what the node would like to be called
    ShieldsUp: bool = False  # the node refuses all inbound connections
    ShareeNode: bool = False  # control sets it: the node is here because it was shared
    NoLogsNoSupport: bool = False  # the client sends no logs to the vendor
    RemoteConfig: bool = False  # control may change the client's settings by c2n (capver 142)
    WireIngress: bool = False  # asks control to prepare ingress peers
    IngressEnabled: bool = False  # Funnel is on (capver 113)
    AllowsUpdate: bool = False  # control may tell it to update itself
    Machine: str = ""  # "x86_64"
    GoArch: str = ""  # "amd64", of the client program
    GoArchVar: str = ""  # its variant, "v1"
    GoVersion: str = ""  # "go1.26.8", of the client program
    RoutableIPs: list[str] | None = None  # advertised routes, exit routes 0.0.0.0/0 and ::/0 among them
    RequestTags: list[str] | None = None  # tags asked for at registration
    WoLMACs: list[str] | None = None  # addresses that wake it, for its neighbours to send to
    Services: list[Service] | None = None  # None: not reported yet, as at registration
    NetInfo: "NetInfo | None" = None  # None: not measured again since the last report
    sshHostKeys: list[str] | None = None  # authorized_keys lines, reported while SSH is on
    Cloud: str = ""  # "aws" ...; empty: none, or not known
    Userspace: bool | None = None  # it has no TUN device; None: not said
    UserspaceRouter: bool | None = None  # it routes subnets without one; None: not said
    AppConnector: bool | None = None  # it offers to be an app connector; None: not said
    ServicesHash: str = ""  # changes when the services it hosts do
    PeerRelay: bool = False  # offers to relay for peers (capver 120)
    ExitNodeID: str = ""  # StableID of the exit node it uses; empty: none
    Location: "Location | None" = None  # None: not said
    TPM: TPMInfo | None = None  # None: no TPM, or a client too old to say
    StateEncrypted: bool | None = None  # the client's keys are sealed on disk (capver 118); None: not said
