"""What a client says about its host (protocol note control.md, section 10.1)."""

from typing import Annotated

import msgspec

from doorward.protocol.tailcfg.scalars import Int, PortNumber


class NetInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a client measured about its network. Absent in a Hostinfo while unchanged: keep the last one."""

    PreferredDERP: Int = 0  # home region; 0 means none chosen yet
    DERPLatency: dict[str, float] | None = None  # "<region>-v4" or "-v6" to seconds
    MappingVariesByDestIP: bool | None = None
    WorkingIPv6: bool | None = None
    OSHasIPv6: bool | None = None
    WorkingUDP: bool | None = None
    WorkingICMPv4: bool | None = None
    HavePortMap: bool = False
    UPnP: bool | None = None
    PMP: bool | None = None
    PCP: bool | None = None
    LinkType: str = ""
    FirewallMode: str = ""


class Service(msgspec.Struct, frozen=True, omit_defaults=True):
    """A port the host offers; peerapi ports travel here too."""

    Proto: str = ""  # tcp, udp, peerapi4, peerapi6, peerapi-dns-proxy
    Port: PortNumber = 0
    Description: str = ""


class Location(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where an exit node stands, for clients that group exit nodes by place."""

    Country: str = ""
    CountryCode: str = ""
    City: str = ""
    CityCode: str = ""
    Latitude: float = 0.0
    Longitude: float = 0.0
    Priority: int = 0


class TPMInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """The host's TPM, if it has one. Shown only."""

    Manufacturer: str = ""  # four letters
    Vendor: str = ""
    Model: Int = 0
    FirmwareVersion: Annotated[int, msgspec.Meta(ge=0)] = 0  # 64 bits, unsigned
    SpecRevision: Int = 0
    FamilyIndicator: str = ""  # "2.0"


class Hostinfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """The host as the client describes it. Nothing here is proven; it is shown, and routed on only once approved."""

    IPNVersion: str = ""  # client version, such as 1.102.4-ERR-BuildInfo
    FrontendLogID: str = ""
    BackendLogID: str = ""
    OS: str = ""  # linux, windows, macOS, iOS, android, js ...
    OSVersion: str = ""
    Container: bool | None = None
    Env: str = ""
    Distro: str = ""
    DistroVersion: str = ""
    DistroCodeName: str = ""
    App: str = ""
    Desktop: bool | None = None
    Package: str = ""
    DeviceModel: str = ""
    PushDeviceToken: str = ""
    Hostname: str = ""
    ShieldsUp: bool = False  # the node refuses all inbound connections
    ShareeNode: bool = False
    NoLogsNoSupport: bool = False
    RemoteConfig: bool = False  # control may change the client's settings by c2n (capver 142)
    WireIngress: bool = False  # asks control to prepare ingress peers
    IngressEnabled: bool = False  # Funnel is on (capver 113)
    AllowsUpdate: bool = False
    Machine: str = ""
    GoArch: str = ""
    GoArchVar: str = ""
    GoVersion: str = ""
    RoutableIPs: list[str] | None = None  # advertised routes, exit routes 0.0.0.0/0 and ::/0 among them
    RequestTags: list[str] | None = None  # tags asked for at registration
    WoLMACs: list[str] | None = None
    Services: list[Service] | None = None
    NetInfo: "NetInfo | None" = None  # None: not measured again since the last report
    sshHostKeys: list[str] | None = None  # authorized_keys lines, reported while SSH is on
    Cloud: str = ""
    Userspace: bool | None = None
    UserspaceRouter: bool | None = None
    AppConnector: bool | None = None
    ServicesHash: str = ""
    PeerRelay: bool = False
    ExitNodeID: str = ""
    Location: "Location | None" = None
    TPM: TPMInfo | None = None  # None: no TPM, or a client too old to say
    StateEncrypted: bool | None = None  # the client's keys are sealed on disk (capver 118); None: not said
