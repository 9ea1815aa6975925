"""The one private ``tailscaled`` of a ``serve``: the parent runs it, so that it outlives each worker and no parent."""

import asyncio
import contextlib
from collections.abc import Mapping

from doorward.clock import Clock
from doorward.config import Settings
from doorward.engine.programs import find_client
from doorward.engine.tailscaled import PrivateDaemon
from doorward.errors import DoorwardError
from doorward.server.own_reports import FOLDER, HOSTNAME, Report, Reports
from doorward.telemetry import log

RETRY = 10.0  # seconds until a daemon that cannot be started is tried again
WITHOUT_CLIENT = "Run `doorward setup client`, then start doorward again."

_log = log("own-node")


async def keep(settings: Settings, environ: Mapping[str, str], clock: Clock) -> None:
    """Keep the daemon running until cancelled; where that cannot be, say why, and try again if it may change."""
    if settings.tailscaled == "off":
        return
    reports = Reports(settings.data_dir, "daemon")
    (settings.data_dir / FOLDER).mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        # It runs the programs, to ask for their versions.
        client = await asyncio.to_thread(find_client, environ, settings.tailscaled)
    except DoorwardError as error:
        reports.write(Report(state="failing", text=error.message, cure=error.cure))
        return
    if client is None:
        text = "there is no tailscaled, so nobody is known by their connection"
        reports.write(Report(state="off", text=text, cure=WITHOUT_CLIENT))
        return
    given = dict(environ)
    if not client.knows_pins:
        given["SSL_CERT_FILE"] = str(settings.data_dir / "tls" / "authority.pem")
    while True:
        daemon = PrivateDaemon(client, settings.data_dir, hostname=HOSTNAME, clock=clock, environ=given)
        try:
            await daemon.wait_for_socket()
            reports.write(Report(state="running"))
            await daemon.run()
        except (DoorwardError, OSError) as error:
            report = Report.failure(error, RETRY)
            with contextlib.suppress(OSError):  # a full disk must not end the parent
                reports.write(report)
            _log.warning("own node's daemon not up", reason=report.text, again_in=RETRY)
        await asyncio.sleep(RETRY)
