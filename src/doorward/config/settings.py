"""The settings as types, with their defaults and what each is for; the reference page is made from them."""

import re
import typing
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from doorward.errors import BadInput

VARIABLE_PREFIX = "DOORWARD_"

# Clients treat only these ranges as Tailscale's own (control.md 14 and 28.23).
TAILNET_V4 = IPv4Network("100.64.0.0/10")
TAILNET_V6 = IPv6Network("fd7a:115c:a1e0::/48")
_NUMBERS = re.compile(r"([0-9]{1,18})=([0-9]{1,18})")


class ConfigError(BadInput):
    """A setting that cannot be used. ``place`` is ``FILE:LINE``, ``$VARIABLE`` or ``--flag``."""


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the settings file."""


Port = Annotated[int, Meta(ge=0, le=65535)]


class Database(_Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the truth is kept."""

    url: Annotated[
        str,
        Meta(
            description="Database address, `sqlite:///PATH` or `postgresql://...`. Empty: SQLite in the data directory."
        ),
    ] = ""


class Certificate(_Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A certificate of your own."""

    cert: Annotated[Path | None, Meta(description="PEM file: the certificate, then its chain.")] = None
    key: Annotated[Path | None, Meta(description="PEM file: the private key, without a passphrase.")] = None


class AcmeDns(_Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A DNS server that takes updates (RFC 2136), for the challenge `dns-01`."""

    server: Annotated[
        str, Meta(description="HOST or HOST:PORT of a DNS server that takes updates of the zone (RFC 2136).")
    ] = ""
    key: Annotated[
        Path | None,
        Meta(
            description="File with the TSIG key for it, as BIND's `tsig-keygen` writes it, or `ALGORITHM:NAME:SECRET`."
        ),
    ] = None
    wait: Annotated[
        int,
        Meta(ge=0, le=3600, description="Seconds from an update until every server of the zone has it."),
    ] = 15


class AcmeAccount(_Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An account that was made with the authority elsewhere (external account binding), where it wants one."""

    id: Annotated[
        str, Meta(description="Identifier of an account made with the authority, where it wants one (EAB).")
    ] = ""
    key: Annotated[
        Path | None, Meta(description="File with that account's key, as the authority gave it: base64url.")
    ] = None


class Acme(_Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Certificates from an authority that speaks ACME (RFC 8555)."""

    directory: Annotated[
        str,
        Meta(
            description="Address of an authority's ACME directory, such as `https://acme-v02.api.letsencrypt.org/directory`. "
            "With it certificates are ordered there and renewed."
        ),
    ] = ""
    agree: Annotated[bool, Meta(description="You agree to that authority's terms of service.")] = False
    email: Annotated[str, Meta(description="Where the authority may reach you.")] = ""
    names: Annotated[
        tuple[Literal["url", "door"], ...],
        Meta(
            description="Which addresses get one. One that is not https, or has files of your own, never does."
        ),
    ] = ("url", "door")
    challenge: Annotated[
        Literal["http-01", "tls-alpn-01", "dns-01"],
        Meta(
            description="How the names are proven. `tls-alpn-01`: on port 443. `http-01`: on port 80. `dns-01`: by a record, "
            "which `hook` or `dns.server` makes."
        ),
    ] = "tls-alpn-01"
    listen: Annotated[
        str,
        Meta(
            description="HOST:PORT of a plain listener for `http-01`, which leads everybody else to https. Empty: port 80 at the "
            "host of `listen` where that listener speaks TLS, else none, and the public listener answers."
        ),
    ] = ""
    hook: Annotated[
        Path | None,
        Meta(
            description="Program for `dns-01`, run as `HOOK add NAME VALUE` and `HOOK remove NAME VALUE`. It makes or removes a TXT "
            "record, and ends with 0 once everybody can see that."
        ),
    ] = None
    ca: Annotated[
        Path | None,
        Meta(
            description="PEM file with the authority that vouches for the directory's own https, where that is a private one."
        ),
    ] = None
    account: AcmeAccount = AcmeAccount()
    dns: AcmeDns = AcmeDns()


class Tls(_Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Certificates; without files and ACME doorward's local authority makes what it needs."""

    url: Certificate = Certificate()
    door: Certificate = Certificate()
    acme: Acme = Acme()


class PortSettings(_Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ports beside the one of `listen`. 0: the usual one, or a free one where that is taken, then kept."""

    door: Annotated[Port, Meta(description="TCP port of the door (usually 8443).")] = 0
    relay: Annotated[Port, Meta(description="TCP port of the relay's own TLS (usually 8444).")] = 0
    stun: Annotated[Port, Meta(description="UDP port of STUN (usually 3478).")] = 0


class Addresses(_Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The addresses nodes get. Changing a range leaves nodes that have an address alone."""

    ipv4: Annotated[IPv4Network, Meta(description="Range of IPv4 addresses, inside 100.64.0.0/10.")] = (
        TAILNET_V4
    )
    ipv6: Annotated[IPv6Network, Meta(description="Range of IPv6 addresses, inside fd7a:115c:a1e0::/48.")] = (
        TAILNET_V6
    )
    order: Annotated[
        Literal["sequential", "random"],
        Meta(description="How the next address is chosen: `sequential` or `random`."),
    ] = "sequential"


class Relay(_Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The embedded DERP relay."""

    enabled: Annotated[bool, Meta(description="Run the embedded relay and STUN.")] = True
    host: Annotated[
        str,
        Meta(
            description="Name or IP address under which clients reach this relay itself. Empty: that of `url`."
        ),
    ] = ""
    listen: Annotated[
        str, Meta(description="Address that the relay's own TLS and STUN listen on. Empty: that of `listen`.")
    ] = ""
    proxied: Annotated[
        bool,
        Meta(
            description="A proxy that ends TLS at `url` passes `/derp` on, so that clients reach the relay there. Otherwise it has "
            "a port and a certificate of its own, unless doorward has a certificate for `url`."
        ),
    ] = False
    region: Annotated[
        int,
        Meta(
            ge=1,
            le=2**31 - 1,
            description="Its DERP region; 900 to 999 are set aside for your own. One for each `serve`.",
        ),
    ] = 900
    maps: Annotated[
        tuple[str, ...],
        Meta(description="Files or https addresses of DERP maps whose regions are offered too."),
    ] = ()


class Log(_Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What doorward says on stderr."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="The least that is logged.")
    ] = "info"
    json: Annotated[bool, Meta(description="One JSON object per line instead of text for people.")] = False


class Policy(_Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who owns the policy."""

    file: Annotated[
        Path | None,
        Meta(
            description="A file that owns the policy, read at start and at SIGHUP. Without it the store does."
        ),
    ] = None


class Ssh(_Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who decides about ssh between nodes."""

    decide: Annotated[
        Literal["always", "fallback", "policy"],
        Meta(
            description="`always`: doorward decides about every ssh, and without it there is none. `fallback`: while "
            "doorward is away nodes decide by the policy they know. `policy`: nodes decide, and doorward does not hear of it."
        ),
    ] = "fallback"
    fallback: Annotated[
        int,
        Meta(
            ge=10,
            le=86400,
            description="Seconds that nodes wait for doorward at most before they decide by themselves; half of it at least.",
        ),
    ] = 600


class Login(_Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How people sign in."""

    loopback_http: Annotated[
        bool,
        Meta(
            description="Ask an outside provider on this very machine over plain http. For tests and labs: elsewhere it is https."
        ),
    ] = False


class Apps(_Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Apps in which people sign in: which may come by themselves, and where doorward asks for what they publish."""

    documents: Annotated[
        Literal["off", "people", "anyone"],
        Meta(
            description="Whose apps may describe themselves at an https address that is their client id. `people`: those that "
            "somebody whom doorward knows wants to sign in to, who is asked first. `anyone`: those of strangers at the public door, "
            "too. `off`: only those of `document_hosts`."
        ),
    ] = "people"
    document_hosts: Annotated[
        tuple[str, ...],
        Meta(
            description="Hosts whose apps may describe themselves to anybody, such as `claude.ai`, or `*.example.com` for all below it. "
            "They may also be nodes of the tailnet, or in one of `networks`."
        ),
    ] = ()
    blocked_hosts: Annotated[
        tuple[str, ...], Meta(description="Hosts whose apps are not wanted, whatever else is set.")
    ] = ()
    registration_hosts: Annotated[
        tuple[str, ...],
        Meta(
            description="Hosts whose apps may register themselves from anywhere: those that have people sent back there. Empty: only "
            "programs of people whom the policy lets, and who has an invitation (`doorward apps invite`)."
        ),
    ] = ()

    networks: Annotated[
        tuple[str, ...],
        Meta(
            description="Private networks whose servers are asked where an administrator has named the address. Others are "
            "asked on the open internet alone, and nodes of the tailnet by their names."
        ),
    ] = ()
    authority: Annotated[
        Path | None,
        Meta(description="PEM file of more authorities to trust for it, besides those of the system."),
    ] = None
    tsidp_numbers: Annotated[
        tuple[str, ...],
        Meta(
            description="People whom apps know by the numbers that tsidp told them, each as `OURS=THEIRS`: `3=7234567890123456` has the `sub` "
            "of the person with the id 3 (`doorward users list --json`) be `userid:7234567890123456`. All others have one that says nothing."
        ),
    ] = ()


class Audit(_Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the audit log is taken besides the database, and how often it is signed."""

    file: Annotated[
        Path | None, Meta(description="A file that gets every event as a line of JSON. It may be rotated.")
    ] = None
    syslog: Annotated[
        str,
        Meta(
            description="A syslog server that gets every event: `unix:/dev/log`, `udp://HOST:514`, `tcp://HOST:601` or "
            "`tls://HOST:6514`."
        ),
    ] = ""
    webhook: Annotated[
        str,
        Meta(
            description="An https address to which every event is posted, signed with the secret in "
            "`audit-webhook.secret` in the data directory."
        ),
    ] = ""
    authority: Annotated[
        Path | None,
        Meta(description="PEM file of the authorities to trust for them. Empty: those of the system."),
    ] = None
    checkpoint_events: Annotated[
        int,
        Meta(
            ge=1,
            le=1_000_000,
            description="A checkpoint is signed after so many new events, and at every stop.",
        ),
    ] = 1000
    checkpoint_minutes: Annotated[
        int,
        Meta(ge=1, le=1440, description="And after so many minutes, where there is any new event."),
    ] = 15


class Console(_Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The console, and the tabs of browsers that are nodes."""

    origins: Annotated[
        tuple[str, ...],
        Meta(
            description="Origins besides the door's whose pages may speak to the relay from a browser, and use the console's part of the "
            "API in the name of who has signed in, such as `https://console.example.com`. Each exactly as browsers write it."
        ),
    ] = ()
    grace: Annotated[
        int,
        Meta(
            ge=10,
            le=86400,
            description="Seconds for which a terminal's tab may be away (asleep, on another network) before it is removed.",
        ),
    ] = 900
    tabs: Annotated[
        int,
        Meta(ge=1, le=1000, description="How many tabs with terminals one person may have open."),
    ] = 40
    tabs_of_session: Annotated[
        int,
        Meta(ge=1, le=1000, description="How many of them in one browser in which they have signed in."),
    ] = 20


class Settings(_Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every setting. From ``load`` they are complete but for ports; ``settled`` fills those in."""

    data_dir: Annotated[
        Path, Meta(description="Where doorward keeps its state. Its owner administers the tailnet.")
    ] = Path()
    listen: Annotated[str, Meta(description="HOST:PORT of the public listener.")] = "127.0.0.1:8080"
    url: Annotated[
        str,
        Meta(
            description="Control's address, which clients are given as login server. Empty: `http://` and `listen`."
        ),
    ] = ""
    door: Annotated[
        str,
        Meta(
            description="The people's address, such as `https://door.example.com`, where it has to be with a path: "
            "`https://intranet.example.com/tailnet`. Empty: `https://door.DOMAIN:PORT` under doorward's own authority."
        ),
    ] = ""
    domain: Annotated[str, Meta(description="The MagicDNS domain: nodes are NAME.DOMAIN.")] = (
        "tailnet.internal"
    )
    trusted_proxies: Annotated[
        tuple[str, ...],
        Meta(
            description="Networks whose `X-Forwarded-For` counts: for logs, limits, and the place that postures see a node in."
        ),
    ] = ()
    geoip: Annotated[
        Path | None,
        Meta(
            description="A MaxMind DB file that says which address is in which country, for `ip:country` in postures. "
            "Read at start and at SIGHUP."
        ),
    ] = None
    workers: Annotated[
        int,
        Meta(
            ge=1,
            le=64,
            description="Processes that serve, for more than one processor. More than one needs PostgreSQL.",
        ),
    ] = 1
    tailscaled: Annotated[
        str,
        Meta(
            description="The daemon by which doorward is on its own tailnet: a path, or `off`. Empty: it is searched for."
        ),
    ] = ""
    database: Database = Database()
    tls: Tls = Tls()
    ports: PortSettings = PortSettings()
    addresses: Addresses = Addresses()
    relay: Relay = Relay()
    log: Log = Log()
    policy: Policy = Policy()
    ssh: Ssh = Ssh()
    login: Login = Login()
    apps: Apps = Apps()
    audit: Audit = Audit()
    console: Console = Console()

    def proxies(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """``trusted_proxies`` as networks; a single address is a network of one. Raises ValueError for anything else."""
        return tuple(ip_network(text) for text in self.trusted_proxies)

    def private_networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """``apps.networks``; a single address is a network of one. Raises ValueError for anything else."""
        return tuple(ip_network(text) for text in self.apps.networks)

    def known_numbers(self) -> dict[int, int]:
        """``apps.tsidp_numbers``: by a person's id here the number that apps know. Raises ValueError where two have one, or one has two."""
        found: dict[int, int] = {}
        for text in self.apps.tsidp_numbers:
            match = _NUMBERS.fullmatch(text.replace(" ", ""))
            if match is None:
                raise ValueError(f"{text[:60]!r} is not of the form OURS=THEIRS")
            ours, theirs = int(match[1]), int(match[2])
            if ours in found:
                raise ValueError(f"the person {ours} has two numbers")
            if theirs in found.values():
                raise ValueError(f"two people have the number {theirs}: apps would take one for the other")
            found[ours] = theirs
        return found

    def ordered(self) -> dict[str, str]:
        """Which addresses (``url``, ``door``) get their certificate by ACME, each with its host name."""
        found: dict[str, str] = {}
        for name, address, own in (("url", self.url, self.tls.url), ("door", self.door, self.tls.door)):
            if self.tls.acme.directory and name in self.tls.acme.names and own.cert is None:
                parts = urlsplit(address)
                if parts.scheme == "https" and parts.hostname:
                    found[name] = parts.hostname
        return found

    def url_has_certificate(self) -> bool:
        """Whether the public listener speaks TLS, with a certificate that clients trust."""
        return self.tls.url.cert is not None or "url" in self.ordered()

    def relay_is_at_url(self) -> bool:
        """Whether clients reach the relay where control is, with a certificate that they trust."""
        return not self.relay.host and (self.relay.proxied or self.url_has_certificate())

    def relay_listens_on(self) -> str:
        """The address of the relay's own TLS, and of STUN."""
        return self.relay.listen or split_listen(self.listen)[0]

    def plain_listener(self) -> str:
        """HOST:PORT of the listener that only answers http-01; empty where there is none."""
        acme = self.tls.acme
        if acme.challenge != "http-01" or not self.ordered():
            return ""
        if acme.listen or not self.url_has_certificate():
            return acme.listen
        host, _ = split_listen(self.listen)
        return f"[{host}]:80" if ":" in host else f"{host}:80"

    def settled(self, ports: "Ports") -> "Settings":
        """The same settings with the ports that were bound, and with ``url`` and ``door`` that follow from them."""
        host, _ = split_listen(self.listen)
        shown = f"[{host}]" if ":" in host else host
        door_port = "" if ports.door == 443 else f":{ports.door}"
        return msgspec.structs.replace(
            self,
            listen=f"{shown}:{ports.listen}",
            url=self.url or f"http://{shown}:{ports.listen}",
            door=self.door or f"https://door.{self.domain}{door_port}",
            ports=PortSettings(door=ports.door, relay=ports.relay, stun=ports.stun),
        )


class Ports(msgspec.Struct, frozen=True, kw_only=True):
    """The ports in use, kept in the data directory so that addresses people have seen stay true."""

    listen: int = 8080
    door: int = 8443
    relay: int = 8444
    stun: int = 3478


class Leaf(NamedTuple):
    """One setting: its path, its type without annotations, its default and what it is for."""

    path: tuple[str, ...]
    type: Any
    default: Any
    description: str

    @property
    def name(self) -> str:
        """The path as it is written in a sentence: ``relay.enabled``."""
        return ".".join(self.path)

    @property
    def variable(self) -> str:
        """The environment variable that overrides it."""
        return VARIABLE_PREFIX + "_".join(self.path).upper()


def leaves(table: type[_Table] = Settings, path: tuple[str, ...] = ()) -> list[Leaf]:
    """Every setting, in the order of the types."""
    found: list[Leaf] = []
    hints = typing.get_type_hints(table, include_extras=True)
    for field in msgspec.structs.fields(table):
        kind, here = hints[field.name], (*path, field.name)
        if isinstance(kind, type) and issubclass(kind, _Table):
            found += leaves(kind, here)
            continue
        metas = [meta for meta in getattr(kind, "__metadata__", ()) if isinstance(meta, Meta)]
        plain = typing.get_type_hints(table)[field.name]
        found.append(Leaf(here, plain, field.default, metas[-1].description or ""))
    return found


def split_listen(text: str) -> tuple[str, int]:
    """The host and port of ``HOST:PORT`` or ``[V6]:PORT``; raises ConfigError. Port 0 means a free one."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = ""
    if (
        not colon
        or not host
        or not port.isascii()
        or not port.isdigit()
        or len(port) > 5
        or int(port) > 65535
    ):
        raise ConfigError(
            f"{text!r} is not an address to listen on",
            cure="Write HOST:PORT, such as 127.0.0.1:8080 or [::1]:8080.",
        )
    return host, int(port)


def reference() -> str:
    """The reference page about settings, in Markdown."""
    lines = ["# Settings", "", *_SOURCES, ""]
    lines += ["| setting | default | variable | what it is |", "| --- | --- | --- | --- |"]
    for leaf in leaves():
        default = "" if leaf.default in (None, "", (), Path()) else f"`{_toml(leaf.default)}`"
        lines.append(f"| `{leaf.name}` | {default} | `{leaf.variable}` | {leaf.description} |")
    return "\n".join(lines) + "\n"


_SOURCES = (
    "The last that speaks wins: the default, the settings file (`--config`, else `doorward.toml` in the data directory),",
    "the environment, the command line. A variable's name is `DOORWARD_` and the setting's path in capitals joined by `_`;",
    "members of a list are separated by commas, and an empty variable counts as not set. In the file, `relay.enabled` is",
    "`enabled` under `[relay]`. Relative paths are seen from the file they stand in, else from the working directory.",
)


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(_toml(one) for one in value)}]"
    return str(value) if isinstance(value, int) else f'"{value}"'
