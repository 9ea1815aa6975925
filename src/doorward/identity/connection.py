"""Whose a tailnet connection is, by the stock daemon that carries it.

The daemon is asked at every request: it answers in under a millisecond about its own connections, and what the policy grants
may have changed since the last. Two ways to arrive count, and nothing else does:

- through a daemon in user space, which connects to us from loopback to loopback and knows whose that socket is;
- over the interface of the host's daemon, to one of our tailnet addresses. Listen on that address and no other: its own packet
  rules keep packets with a forged tailnet source from other interfaces away.
"""

from ipaddress import ip_address
from pathlib import Path
from typing import Any

from doorward.engine.localapi import DEFAULT_SOCKET, LocalApi
from doorward.identity.caller import Identity


class Tailnet:
    """What one stock daemon knows about connections.

    Args:
        socket: of the daemon's LocalAPI; the host's own by default.
    """

    def __init__(self, socket: Path = DEFAULT_SOCKET) -> None:
        self._api = LocalApi(socket)

    async def identify(self, peer: Any, local: Any) -> Identity | None:
        """Who is at the other end, or None when the connection carries no identity.

        Args:
            peer: ``(host, port)`` as ASGI's scope has it in ``client``.
            local: the same of ``server``.

        Raises:
            EngineError: when the daemon cannot be asked.
        """
        there, here = _address(peer), _address(local)
        # Port 0 is what web servers write that took the address from a header.
        if there is None or here is None or not isinstance(peer[1], int) or peer[1] <= 0:
            return None
        if there.is_loopback != here.is_loopback:
            return None
        status = await self._api.status(peers=False)
        if not status.running or status.tun == there.is_loopback:
            return None
        if status.tun and str(here) not in status.addresses:
            return None
        host = f"[{there}]" if there.version == 6 else str(there)
        found = await self._api.whois(f"{host}:{peer[1]}")
        if found is None:
            return None
        return Identity(
            subject=found.stable_id,
            login="" if found.tags else found.login,  # there it is a placeholder, the same for all of them
            node=found.name.rstrip("."),
            tags=found.tags,
            capabilities=found.capabilities,
        )


def _address(pair: Any) -> Any:
    """The address of an ASGI pair; None for a Unix socket's, and for names."""
    try:
        return ip_address(str(pair[0]).partition("%")[0])
    except (ValueError, TypeError, IndexError):
        return None
