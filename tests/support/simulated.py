"""Clients that exist only as keys, and the administrator's API, against a real server: for tests that need many, and fast."""

import os

import httpx2
from tests.support.server import Server

from doorward.clock import Clock, SystemClock
from doorward.engine.client import ControlClient
from doorward.protocol.keys import DiscoPublic, MachinePrivate, NodePrivate
from doorward.protocol.tailcfg.hostinfo import Hostinfo

_clock = SystemClock()


def machine() -> MachinePrivate:
    """A machine key that nobody has."""
    return MachinePrivate.from_entropy(os.urandom(32))


def node() -> NodePrivate:
    """A node key that nobody has."""
    return NodePrivate.from_entropy(os.urandom(32))


def simulated(
    url: str,
    hostname: str,
    *,
    machine_key: MachinePrivate | None = None,
    node_key: NodePrivate | None = None,
    ephemeral: bool = False,
    clock: Clock = _clock,
) -> ControlClient:
    """A control client with the keys given, or fresh ones. To be entered as an async context."""
    return ControlClient(
        url,
        machine=machine_key or machine(),
        node=node_key or node(),
        disco=DiscoPublic(os.urandom(32)),
        clock=clock,
        entropy=os.urandom,
        hostinfo=Hostinfo(Hostname=hostname, OS="linux", IPNVersion="1.102.4"),
        ephemeral=ephemeral,
    )


def administrator(server: Server) -> httpx2.AsyncClient:
    """The API over the socket in the data directory, without the half second that a command takes to start."""
    return httpx2.AsyncClient(
        transport=httpx2.AsyncHTTPTransport(uds=str(server.folder / "doorward.sock")),
        base_url="http://localhost/api/v1",
        timeout=20,
    )
