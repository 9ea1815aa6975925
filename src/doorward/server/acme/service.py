"""ACME as a worker has it: the keeper, the answers, and the plain listener for http-01."""

import asyncio
import os
import socket
from collections.abc import Sequence

from doorward.clock import Clock
from doorward.config import Settings
from doorward.server.acme.answers import Answers, plain_app
from doorward.server.acme.keeper import Keeper
from doorward.server.acme.sharing import Sharing
from doorward.server.certificates import Certificates
from doorward.server.sockets import ACME
from doorward.tailnet.registry import Registry
from doorward.transport.listener import Limits, ListenerSpec, serve

# Authorities ask a few times, and people are led on: nobody stays.
LIMITS = Limits(connections=512, guests=256, keep_alive=5)


class Acme:
    """What a worker needs of it; to be made only where the settings order certificates.

    Args:
        settings: complete.
        certificates: with those that are ordered.
        registry: for others on the same database.
        secret: the control key's own bytes, see ``sharing``.
        clock: the time of everything.

    Attributes:
        answers: for the other listeners.
        keeper: to be run, and asked.
    """

    def __init__(
        self, settings: Settings, certificates: Certificates, registry: Registry, secret: bytes, clock: Clock
    ) -> None:
        assert certificates.acme is not None
        self._settings = settings
        self._clock = clock
        self.answers = Answers(certificates.acme, clock)
        writer, sharing = registry.writer, None
        if registry.neighbours is not None and writer.process is not None:
            sharing = Sharing(writer.database, registry.neighbours, writer.process, secret)
        self.keeper = Keeper(settings, certificates.acme, certificates.ordered, clock, os.urandom, sharing)

    async def serve(self, sockets: Sequence[socket.socket], stop: asyncio.Event) -> None:
        """Serve the plain listener until ``stop`` is set; return at once where there is none.

        By itself, and without upgrades: what comes here in the clear reaches nothing but the proofs.
        """
        if sockets:
            app = plain_app(self.answers, self._settings)
            listener = ListenerSpec(name=ACME, sockets=sockets)
            proxies = self._settings.proxies()
            await serve([listener], app, {}, clock=self._clock, stop=stop, limits=LIMITS, proxies=proxies)
