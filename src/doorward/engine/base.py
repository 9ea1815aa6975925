"""What doorward asks of whatever puts it on a tailnet."""

import asyncio
from typing import Any, NamedTuple, Protocol

import msgspec

from doorward.errors import Unavailable


class EngineError(Unavailable):
    """The daemon is not there, is not logged in, or refused."""


class WhoIs(msgspec.Struct, frozen=True, kw_only=True):
    """Whose a tailnet connection is, as the daemon's network map has it."""

    stable_id: str  # the node's; never used again for another
    name: str  # FQDN with the closing dot
    addresses: tuple[str, ...]  # prefixes
    tags: tuple[str, ...]
    login: str  # the owner's login name; the tagged owner's for a tagged node
    capabilities: dict[str, Any]  # application capabilities the policy grants this caller towards us


class Peer(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """A node as the daemon's status shows it."""

    stable_id: str = msgspec.field(default="", name="ID")
    host_name: str = ""
    dns_name: str = msgspec.field(default="", name="DNSName")
    tailscale_ips: tuple[str, ...] | None = msgspec.field(default=None, name="TailscaleIPs")
    tags: tuple[str, ...] | None = None
    online: bool = False
    cur_addr: str = ""  # the direct path in use, or empty
    relay: str = ""  # the home region's code
    ssh_host_keys: tuple[str, ...] | None = msgspec.field(default=None, name="sshHostKeys")
    cap_map: dict[str, list[Any] | None] | None = None  # what control grants; only the node itself has it


class Tailnet(msgspec.Struct, frozen=True, kw_only=True):
    """Which tailnet the daemon is on."""

    suffix: str = msgspec.field(default="", name="MagicDNSSuffix")  # the domain of its nodes' names


class Status(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """The daemon's state (control.md 24 and 26)."""

    version: str = ""
    tun: bool = msgspec.field(default=False, name="TUN")
    backend_state: str = "NoState"  # NeedsLogin, NeedsMachineAuth, Stopped, Starting, Running
    have_node_key: bool = False  # it has logged in before
    auth_url: str = msgspec.field(default="", name="AuthURL")
    self_node: Peer | None = msgspec.field(default=None, name="Self")
    health: tuple[str, ...] | None = None
    # names that control has certificates made for, of this node
    cert_domains: tuple[str, ...] | None = None
    tailnet: Tailnet | None = msgspec.field(default=None, name="CurrentTailnet")
    peers: dict[str, Peer] | None = msgspec.field(default=None, name="Peer")

    @property
    def addresses(self) -> tuple[str, ...]:
        """Our own tailnet addresses, empty before we have any."""
        return (self.self_node.tailscale_ips if self.self_node else None) or ()

    def capability(self, name: str) -> list[Any]:
        """The values of a capability that control grants this node; empty where it does not."""
        granted = (self.self_node.cap_map if self.self_node else None) or {}
        return granted.get(name) or []

    @property
    def running(self) -> bool:
        """Logged in and connected."""
        return self.backend_state == "Running"


class Ping(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """The answer to a ping. ``err`` is empty when it was answered."""

    err: str = ""
    latency_seconds: float = 0.0
    endpoint: str = ""  # the direct path, or empty
    derp_region_id: int = msgspec.field(default=0, name="DERPRegionID")
    derp_region_code: str = msgspec.field(default="", name="DERPRegionCode")
    node_name: str = ""


class Stream(NamedTuple):
    """A connection through the tailnet. Whoever dialled closes the writer."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


class Engine(Protocol):
    """How doorward itself is on a tailnet."""

    @property
    def device(self) -> str:
        """The network interface that carries the tailnet, or empty for a daemon in user space."""
        ...

    async def whois(self, address: str, protocol: str = "tcp") -> WhoIs | None:
        """Whose ``address`` (``IP:PORT``) is, or None when the daemon does not know.

        An unknown source costs the daemon up to a second: ask only where a tailnet connection is expected.
        Raises EngineError when the daemon cannot be asked.
        """
        ...

    async def status(self, *, peers: bool = True) -> Status:
        """The daemon's state. Raises EngineError."""
        ...

    async def ping(self, address: str, kind: str = "disco") -> Ping:
        """Ping a tailnet address; ``kind`` is disco, TSMP, ICMP or peerapi. Raises EngineError, not for a lost ping."""
        ...

    async def dial(self, host: str, port: int) -> Stream:
        """Connect to a tailnet name or address over TCP. Raises EngineError."""
        ...

    async def close(self) -> None:
        """Let go of the daemon; one that we started is stopped."""
        ...
