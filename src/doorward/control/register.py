"""``POST /machine/register``: joining, coming back, changing keys, leaving (control.md, section 10).

A refusal is an answer of status 200 whose ``Error`` is a sentence for the person at the client: any other status would make
the client try for ever in silence. The exceptions are what passes by itself (no database, too many at once).

It tries for ever all the same: a stock client repeats what was refused, at first within milliseconds, and shows every refusal to
whoever is at `tailscale up` just then, also to a person who has begun anew with a better key or for a new link. Beginning anew
it makes a new connection. So a connection hears a refusal at once, and the same one again only after ``AGAIN``.
"""

import asyncio
from http import HTTPStatus
from ipaddress import IPv4Address, IPv6Address
from weakref import WeakKeyDictionary

from doorward.errors import DoorwardError, TooMany
from doorward.model import Node
from doorward.protocol.keys import MachinePublic
from doorward.protocol.tailcfg.codec import decode_request, encode
from doorward.protocol.tailcfg.register import Login, RegisterRequest, RegisterResponse, User
from doorward.tailnet import netmap
from doorward.tailnet.admission import Outcome, Verdict
from doorward.tailnet.registry import Registry
from doorward.telemetry import counter, log
from doorward.transport.lobby import Guest

AGAIN = 30.0  # seconds: the longest pause that a client makes by itself between two tries

_log = log("control")
_registrations = counter("registrations_total", "Answers to registrations, by how they ended.", "verdict")


class Register:
    """The endpoint."""

    media_type = b"application/json"

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._told: WeakKeyDictionary[Guest, int] = WeakKeyDictionary()  # the last refusal on a connection

    async def __call__(
        self,
        machine_key: MachinePublic,
        body: bytes,
        came_from: IPv4Address | IPv6Address | None,
        guest: Guest,
    ) -> bytes:
        """Decide, and answer. May take as long as a person does; a refusal that is repeated takes ``AGAIN``."""
        wanted = decode_request(body, RegisterRequest)
        try:
            outcome = await self._registry.admission.register(machine_key, wanted, came_from)
        except TooMany:
            raise
        except DoorwardError as error:
            if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                raise  # our own trouble, which passes: the client is to try again
            # What was asked is looked at first, each time: whatever was in the way may be gone.
            key = "" if wanted.Auth is None else wanted.Auth.AuthKey
            refusal = hash((wanted.Followup, key, error.message))  # no secret is kept
            if self._told.get(guest) == refusal:
                await asyncio.sleep(AGAIN)
            self._told[guest] = refusal
            _registrations.labels("refused").inc()
            _log.info("registration refused", machine=machine_key.short(), reason=error.message)
            return encode(RegisterResponse(Error=error.sentence()))
        _registrations.labels(outcome.verdict.value).inc()
        return encode(self._response(outcome))

    def _response(self, outcome: Outcome) -> RegisterResponse:
        if outcome.verdict is Verdict.NEEDS_PERSON:
            link = f"{self._registry.snapshot.settings.url}/join/{outcome.link_code}"
            return RegisterResponse(AuthURL=link)
        if outcome.verdict is Verdict.KEY_EXPIRED:
            user, login = self._owner(outcome.node)
            return RegisterResponse(User=user, Login=login, NodeKeyExpired=True)
        if outcome.verdict is Verdict.LOGGED_OUT:
            return RegisterResponse(NodeKeyExpired=True)
        user, login = self._owner(outcome.node)
        welcome = outcome.node is None or outcome.node.approved  # else its map says that it waits
        return RegisterResponse(User=user, Login=login, MachineAuthorized=welcome)

    def _owner(self, node: Node | None) -> tuple[User, Login]:
        if node is None:
            return User(), Login()
        profile = netmap.profile_of(self._registry.snapshot, node)
        name = profile.DisplayName
        login = Login(ID=profile.ID, Provider="doorward", LoginName=profile.LoginName, DisplayName=name)
        return User(ID=profile.ID, DisplayName=name), login
