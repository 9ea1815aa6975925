"""``doorward serve``: from settings to a running server. What runs in the parent; it loads nothing of what the worker needs."""

import asyncio
import os
import sys

from doorward.config import Settings, encode, unknown_variables
from doorward.server import sockets
from doorward.server.supervisor import Supervisor
from doorward.telemetry import configure, log

_log = log("server")


def serve(settings: Settings) -> int:
    """Serve until a signal says stop; the exit code. Prints ``ready URL`` on stdout once, when connections are accepted.

    Raises DoorwardError when an address cannot be listened on, or when the worker does not come to serve.
    """
    configure(level=settings.log.level, json=settings.log.json)
    for name in unknown_variables(os.environ):
        _log.warning("an environment variable that means nothing", name=name)
    bound = sockets.bind(settings, os.environ)

    def ready() -> None:
        sys.stdout.write(f"ready {bound.settings.url}\n")
        sys.stdout.flush()

    try:
        supervisor = Supervisor(
            "doorward.server.worker:work", encode(bound.settings), bound.sockets, on_ready=ready
        )
        asyncio.run(supervisor.run())
    finally:
        bound.close()
    return 0
