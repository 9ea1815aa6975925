"""Which node is at the other end of a connection on the identity listener.

Asked once per connection, at its start, and only there: an unknown source costs the daemon up to a second. Two ways to
arrive count, and nothing else does:

- through a daemon in user space, which connects to us from loopback: the daemon's own table says whose that socket is.
  A local process that connects to the same port is not in the table;
- over the tailnet's network interface: the listener is bound to that device, so that a packet with a forged 100.64/10
  source that came in through another one never gets here.

The answer is a node's stable id, to be kept on the connection. Whose node that is, and whether it is expired or
suspended, is read from the snapshot at every request.
"""

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address

from doorward.engine import Engine, EngineError
from doorward.telemetry import counter, log

_log = log("whois")
_answers = counter("whois_total", "Connections on the identity listener, by what was found", "answer")

Address = tuple[str, int | None]  # host and port, as the listener reports them

# linux/socket.h; the constant is missing from the socket module on other systems.
_SO_BINDTODEVICE = 25


async def identify(
    engine: Engine, peer: Address | None, local: Address | None, device: str = ""
) -> str | None:
    """The stable id of the node at the other end, or None when the connection carries no identity.

    Never raises: a daemon that cannot be asked identifies nobody.

    Args:
        engine: how we are on the tailnet.
        peer: the connection's other end, ``(host, port)``; None for anything but TCP.
        local: our end.
        device: the network interface its listener is bound to, see ``bound_device``; needed only where the daemon has
            an interface.
    """
    if peer is None or local is None or peer[1] is None:
        return None
    there, here = (ip_address(host.partition("%")[0]) for host in (peer[0], local[0]))
    try:
        if not await _may_carry_identity(engine, there, here, device):
            _answers.labels("outside").inc()
            return None
        host = f"[{there}]" if there.version == 6 else str(there)
        found = await engine.whois(f"{host}:{peer[1]}", "tcp")
    except EngineError as error:
        _log.warning("identity cannot be asked for", reason=error.message)
        _answers.labels("failed").inc()
        return None
    _answers.labels("unknown" if found is None else "known").inc()
    return found.stable_id if found else None


def bound_device(connection: socket.socket) -> str:
    """The network interface that a connection's listener is bound to (its connections inherit it), or empty."""
    try:
        raw = connection.getsockopt(socket.SOL_SOCKET, _SO_BINDTODEVICE, 16)
    except OSError:
        return ""
    return raw.rstrip(b"\0").decode("ascii", "replace")


async def _may_carry_identity(
    engine: Engine, peer: IPv4Address | IPv6Address, local: IPv4Address | IPv6Address, device: str
) -> bool:
    if not engine.device:
        # From loopback to loopback. A source in the tailnet's range cannot come from a daemon in user space: the daemon
        # would call it by that address, and so give a forged packet the name of its victim.
        return peer.is_loopback and local.is_loopback
    if device != engine.device or peer.is_loopback:
        return False
    return str(local) in (await engine.status(peers=False)).addresses
