"""A real relay of ours on loopback, behind the real listener, for tests of it and for stock clients."""

import asyncio
import os
import socket
import ssl
import tempfile
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from starlette.applications import Starlette

from doorward.clock import Clock, SystemClock
from doorward.engine.derp import DERPClient, pinned_context
from doorward.protocol.keys import DERPPrivate, NodePrivate
from doorward.relay import Limits, Relay
from doorward.relay.certificate import relay_chain, relay_leaf_pin
from doorward.relay.session import Admit
from doorward.relay.stun import STUNServer, bind_stun
from doorward.transport.listener import ListenerSpec, serve
from doorward.transport.sources import Networks

HOST = "127.0.0.1"


def node_key(number: int) -> NodePrivate:
    """A fixed key for a number."""
    return NodePrivate.from_entropy(number.to_bytes(32, "big"))


@dataclass(frozen=True)
class Leaf:
    """A self-signed certificate for 127.0.0.1 and localhost."""

    pem: bytes
    key_pem: bytes
    pin: str


@cache
def make_leaf() -> Leaf:
    """The leaf that every relay of one test run shows."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "relay")])
    now = SystemClock().now()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=30))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address(HOST)), x509.DNSName("localhost")]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    return Leaf(
        pem=certificate.public_bytes(serialization.Encoding.PEM),
        key_pem=key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
        pin=relay_leaf_pin(certificate.public_bytes(serialization.Encoding.DER)),
    )


def server_context(key: DERPPrivate) -> ssl.SSLContext:
    """The TLS context of a relay: its leaf and its meta certificate."""
    leaf = make_leaf()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["http/1.1"])
    with tempfile.TemporaryDirectory() as folder:  # load_cert_chain reads files only
        chain = Path(folder) / "chain.pem"
        chain.write_bytes(relay_chain(leaf.pem, key.public(), SystemClock().now()) + leaf.key_pem)
        context.load_cert_chain(chain)
    return context


@dataclass(frozen=True, kw_only=True)
class RunningRelay:
    """A relay that runs, and how to reach it."""

    relay: Relay
    host: str
    port: int
    tls: bool
    stun_port: int

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.host}:{self.port}"

    def derp_node(self, region: int = 900) -> dict[str, Any]:
        """Its entry in a DERP map's region, for stock clients that know pins (1.82 and later)."""
        return {
            "Name": f"{region}a",
            "RegionID": region,
            "HostName": self.host,
            "CertName": make_leaf().pin,
            "IPv4": self.host,
            "IPv6": "none",
            "DERPPort": self.port,
            "STUNPort": self.stun_port or -1,
        }

    async def connect(self, key: NodePrivate, **options: Any) -> DERPClient:
        """A client of ours, pinned where there is TLS."""
        if self.tls:
            options = {"context": pinned_context(), "pin": make_leaf().pin} | options
        return await DERPClient.connect(self.host, self.port, key, entropy=os.urandom, **options)


def _listening_at(path: Path) -> socket.socket:
    bound = socket.socket(socket.AF_UNIX)
    bound.bind(str(path))
    return bound


def listening(host: str = HOST, port: int = 0) -> socket.socket:
    """A bound TCP socket; of port 0 a free one."""
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind((host, port))
    return bound


@asynccontextmanager
async def running_relay(
    *,
    tls: bool = True,
    admit: Admit = lambda _key, _source: True,
    clock: Clock | None = None,
    limits: Limits | None = None,
    mesh_key: str = "",
    stun: bool = False,
    host: str = HOST,
    port: int = 0,
    path: Path | None = None,
    origins: Collection[str] | None = None,
    proxies: Networks = (),
) -> AsyncIterator[RunningRelay]:
    """Start a relay, on a free port of 127.0.0.1 unless told otherwise, and end it with the block.

    With ``path`` it listens on that Unix socket instead.
    """
    clock = clock or SystemClock()
    key = DERPPrivate.from_entropy(os.urandom(32))
    relay = Relay(key, admit, clock, os.urandom, limits, mesh_key=mesh_key, origins=origins)
    if path is None:
        bound = listening(host, port)
        host, port = bound.getsockname()
    else:
        bound = _listening_at(path)
    stun_sockets = bind_stun([host], 0) if stun else []
    stun_port = stun_sockets[0].getsockname()[1] if stun_sockets else 0
    answering = STUNServer(stun_sockets)
    stop, ready = asyncio.Event(), asyncio.Event()
    spec = ListenerSpec(name="relay", sockets=[bound], ssl_context=server_context(key) if tls else None)
    app = Starlette(routes=relay.routes())
    async with asyncio.TaskGroup() as group:
        answering.start()
        running = group.create_task(relay.run())
        serving = group.create_task(
            serve([spec], app, {"derp": relay.takeover}, clock=clock, stop=stop, ready=ready, proxies=proxies)
        )
        try:
            await ready.wait()
            yield RunningRelay(relay=relay, host=host, port=port, tls=tls, stun_port=stun_port)
        finally:
            running.cancel()
            stop.set()
            answering.close()
            await asyncio.wait([serving])
