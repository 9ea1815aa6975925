"""For servers on a person's own computer: only that person's own programs, and no page of the internet, may ask them.

A page can have its own name point at 127.0.0.1 (DNS rebinding), and then its scripts talk to what listens there as to their own
server. What they cannot change is the name that the browser asks for, and that it says where the script is from.
"""

from collections.abc import Sequence
from urllib.parse import urlsplit

from doorward.identity.caller import App, Receive, Scope, Send

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


class LocalOnly:
    """Refuses (403) requests for other hosts, and of pages from elsewhere.

    Args:
        app: any ASGI app.
        hosts: names that it may be asked by; ports are of no account.
        origins: pages that may ask it all the same, such as ``https://inspector.example.com``.
    """

    def __init__(self, app: App, *, hosts: Sequence[str] = LOOPBACK, origins: Sequence[str] = ()) -> None:
        self._app = app
        self._hosts = frozenset(host.lower() for host in hosts)
        self._origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve as ASGI."""
        if scope["type"] not in {"http", "websocket"} or self._may(scope):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            body = b"This server answers programs of its own computer.\n"
            headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": 403, "headers": headers})
            await send({"type": "http.response.body", "body": body})

    def _may(self, scope: Scope) -> bool:
        hosts = [value.decode("latin-1") for name, value in scope["headers"] if name.lower() == b"host"]
        origins = [value.decode("latin-1") for name, value in scope["headers"] if name.lower() == b"origin"]
        if len(hosts) != 1 or _name(f"//{hosts[0]}") not in self._hosts:
            return False
        return all(each in self._origins or _name(each) in self._hosts for each in origins)


def _name(address: str) -> str:
    """The host of an address, as it is written there; empty for none."""
    try:
        parts = urlsplit(address)
        host = parts.hostname or ""
    except ValueError:
        return ""
    return f"[{host}]" if ":" in host else host
