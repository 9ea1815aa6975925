"""Which relays there are (protocol note derp.md, section 13). Control sets all of it; clients only read it."""

import msgspec


class DERPNode(msgspec.Struct, frozen=True, omit_defaults=True):
    """One relay server of a region. The DERP protocol always runs over TLS."""

    Name: str  # unique in the whole map, such as "900a"
    RegionID: int  # that of the region it stands in
    HostName: str  # DNS name or IP address; also the name that TLS verifies
    CertName: str = ""  # another certificate name, or "sha256-raw:<hex>": the one certificate (capver 115)
    IPv4: str = ""  # empty: resolve HostName; "none" (any other non-address) turns the family off
    IPv6: str = ""  # the same. Say "none" where there is no IPv6: empty costs a joining client about 3 s
    STUNPort: int = 0  # 0: 3478; -1: no STUN here
    STUNOnly: bool = False  # answers STUN but relays nothing
    DERPPort: int = 0  # 0: 443
    InsecureForTests: bool = False  # skips TLS verification; doorward never sends true
    STUNTestIP: str = ""  # where to send STUN instead; only for the clients' own tests
    CanPort80: bool = False  # port 80 answers /generate_204, for the captive portal check


class DERPRegion(msgspec.Struct, frozen=True, omit_defaults=True):
    """Relays in one place. A client has one home region, and sends through its peer's."""

    RegionID: int  # the key in DERPMap.Regions; 900 to 999 are set aside for self-hosted use
    RegionCode: str  # short name, such as "home"
    RegionName: str  # what people are shown
    Latitude: float = 0.0  # for clients that show a map; 0 and 0: unknown
    Longitude: float = 0.0  # degrees
    Avoid: bool = False  # deprecated: chosen as home only if nothing else answers
    NoMeasureNoHome: bool = False  # never measured or chosen as home, yet used to reach peers (capver 115)
    Nodes: list[DERPNode] = []  # in order of preference; empty: the region cannot be used


class DERPHomeParams(msgspec.Struct, frozen=True, omit_defaults=True):
    """Weights for the choice of a home region."""

    RegionScore: dict[int, float] = {}  # multiplies a region's latency; > 0, below 1 prefers it; absent: 1


class DERPMap(msgspec.Struct, frozen=True, omit_defaults=True):
    """All relays. In a MapResponse absent keeps the map.

    An empty ``Regions`` is not sent at all: a map with HomeParams alone then updates only those. Without any region a
    client never leaves the state Starting, so control always has at least one.
    """

    Regions: dict[int, DERPRegion] = {}  # replaces all regions; the key is the region's own RegionID
    HomeParams: DERPHomeParams | None = None  # None (absent): unchanged
    # The clients' built-in regions are not added. The wire name does start with a lower-case letter.
    omitDefaultRegions: bool = False
