"""How a node resolves names (protocol note control.md, section 17). Control sets all of it."""

import msgspec


class Resolver(msgspec.Struct, frozen=True, omit_defaults=True):
    """One DNS server."""

    Addr: str = ""  # IP, IP:port, a known https:// DoH URL, or http://<tailnet IP>:port/dns-query
    BootstrapResolution: list[str] = []  # addresses of a DoH host by name; empty: resolved by the OS
    UseWithExitNode: bool = False  # kept even while an exit node is in use (capver 125; ignored before)


class DNSRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """One extra record that the node's own resolver answers."""

    Name: str  # FQDN; a trailing dot is allowed
    Value: str  # the address as text
    Type: str = ""  # "A" or "AAAA"; empty: chosen by the form of Value. Other types are ignored


class DNSConfig(msgspec.Struct, frozen=True, omit_defaults=True):
    """A node's whole DNS configuration. In a MapResponse it replaces the one before; absent keeps it."""

    Resolvers: list[Resolver] = []  # for every name without a route; empty: the OS's own resolver is kept
    # Suffix to resolvers; [] or null: answered by the node itself.
    Routes: dict[str, list[Resolver] | None] = {}
    FallbackResolvers: list[Resolver] = []  # used only where split DNS needs a default and the OS offers none
    Domains: list[str] = []  # search domains, no trailing dot, the tailnet's own first
    Proxied: bool = False  # MagicDNS: 100.100.100.100 answers peers' names
    Nameservers: list[str] = []  # deprecated form of Resolvers; doorward never sends it
    CertDomains: list[str] = []  # FQDNs without dot for which this node may get certificates; empty: none
    ExtraRecords: list[DNSRecord] = []  # names beyond the peers' own
    ExitNodeFilteredSet: list[str] = []  # as an exit node, refuse these: exact names, or ".suffix"
    TempCorpIssue13969: str = ""  # a workaround switch of the hosted service; doorward never sends it
