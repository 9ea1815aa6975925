"""The addresses at which people come in: the door, and ``http://localhost:PORT`` on doorward's own machine.

A cookie, a passkey and a form belong to one of them. A request whose Host is neither gets no such page: whoever can send
people here under another name (a rebound DNS answer, a proxy, a forged header) would have them act under it.
"""

from typing import NamedTuple
from urllib.parse import urlsplit

from starlette.requests import Request

from doorward.errors import BadInput
from doorward.transport.sources import address_key

_USUAL = {"http": 80, "https": 443}


class WrongDoor(BadInput):
    """A page for people was asked for under a name that is not the door's (RFC 9110, section 15.5.20)."""

    status = 421
    problem = "wrong-door"


class Place(NamedTuple):
    """One of the addresses."""

    origin: str  # "https://door.example.com:8443", as browsers write it
    host: str  # without the port: passkeys are made for it (their RP ID)
    path: str = ""  # what all its paths begin with, "/tailnet"; empty where they begin with themselves

    @property
    def base(self) -> str:
        """What a link to a page begins with: ``https://door.example.com/tailnet``."""
        return self.origin + self.path

    @property
    def secure(self) -> bool:
        """True for https."""
        return self.origin.startswith("https:")

    @property
    def port(self) -> int:
        """The port, also where the origin leaves it out."""
        parts = urlsplit(self.origin)
        return parts.port or _USUAL[parts.scheme]


def place_of(address: str) -> Place:
    """The place at an address. Letter case is of no account in its name, nor is a slash at its end."""
    parts = urlsplit(address)
    host = (parts.hostname or "").lower()
    shown = f"[{host}]" if ":" in host else host
    port = "" if parts.port in {None, _USUAL.get(parts.scheme)} else f":{parts.port}"
    return Place(f"{parts.scheme}://{shown}{port}", host, parts.path.rstrip("/"))


class Doors:
    """All of them.

    Args:
        door: the people's address, ``https://door.example.com``, with a path or without.
        local_port: where ``localhost`` answers on doorward's own machine; 0 where it does not.
    """

    def __init__(self, door: str, local_port: int = 0) -> None:
        self.main = place_of(door)
        self.local = place_of(f"http://localhost:{local_port}") if local_port else None
        known = [self.main] + ([self.local] if self.local else [])
        self._by_host = {place.origin.partition("://")[2]: place for place in known}
        # A client may write the port that its scheme has anyway.
        self._by_host |= {f"{place.host}:{place.port}": place for place in known}

    @property
    def origins(self) -> frozenset[str]:
        """Those of their pages, as browsers write them."""
        return frozenset(place.origin for place in (self.main, self.local) if place is not None)

    def of(self, request: Request) -> Place | None:
        """The place that a request came to, by its Host; None for any other."""
        return self.named(request.headers.get("host", ""))

    def named(self, host: str) -> Place | None:
        """The place whose Host this is."""
        return self._by_host.get(host.lower())

    def require(self, request: Request) -> Place:
        """The same; raises WrongDoor, whose cure names the places."""
        place = self.of(request)
        if place is None:
            local = f", or on doorward's own machine {self.local.origin}" if self.local else ""
            raise WrongDoor("this page is not served under this name", cure=f"Open {self.main.base}{local}.")
        return place


def asker(request: Request) -> str:
    """Whom a rate limit counts a request for: the device at the other end, or else the address it comes from.

    What comes in through our own node in user space all comes from loopback.
    """
    identity = (request.scope.get("state") or {}).get("identity")
    return f"node:{identity}" if identity else address_key(request.client)


def safe_path(text: str) -> str:
    r"""Where to go next, if it is a path here; ``/me`` for everything else: nobody is sent elsewhere by a link to us.

    Browsers read ``//`` and ``/\\`` as another host, and leave out tabs and line ends.
    """
    if len(text) > 1000 or not text.startswith("/") or text[1:2] in {"/", "\\"}:
        return "/me"
    return text if text.isascii() and text.isprintable() and "\\" not in text else "/me"
