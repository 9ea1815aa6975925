"""``doorward serve``: from settings to a running server. What runs in the parent; it loads nothing of what the worker needs."""

import asyncio
import os
import sys

import msgspec

from doorward.clock import SystemClock
from doorward.config import Settings, unknown_variables
from doorward.server import own_reports, sockets
from doorward.server.supervisor import Post, Supervisor
from doorward.server.team import Team, encode_payload
from doorward.telemetry import configure, log

_log = log("server")


def serve(settings: Settings) -> int:
    """Serve until a signal says stop; the exit code. Prints ``ready URL`` on stdout once, when every worker accepts connections.

    Raises DoorwardError when an address cannot be listened on, or when a worker does not come to serve.
    """
    configure(level=settings.log.level, json=settings.log.json)
    for name in unknown_variables(os.environ):
        _log.warning("an environment variable that means nothing", name=name)
    bound = sockets.bind(settings, os.environ)

    def ready() -> None:
        sys.stdout.write(f"ready {bound.settings.url}\n")
        sys.stdout.flush()

    async def daemon() -> None:
        from doorward.server import own_daemon  # noqa: PLC0415 - nobody waits for it any more

        await own_daemon.keep(bound.settings, os.environ, SystemClock())

    try:
        own_reports.forget(bound.settings.data_dir)
        supervisor = Supervisor("doorward.server.worker:work", _posts(bound), on_ready=ready, beside=daemon)
        asyncio.run(supervisor.run())
    finally:
        bound.close()
    return 0


def _posts(bound: sockets.Bound) -> list[Post]:
    """What each worker is told."""
    count = bound.settings.workers
    team = Team(
        paths=bound.paths,
        mesh_key=os.urandom(32).hex() if count > 1 else "",
        started=SystemClock().now(),
    )
    return [
        Post(
            encode_payload(bound.settings, msgspec.structs.replace(team, number=index + 1)),
            bound.share(index),
        )
        for index in range(count)
    ]
