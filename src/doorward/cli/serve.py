"""``doorward serve``."""

from pathlib import Path
from typing import Literal

from doorward.config import load


def serve(
    *,
    data_dir: Path | None = None,
    listen: str | None = None,
    url: str | None = None,
    door: str | None = None,
    workers: int | None = None,
    config: Path | None = None,
    log_level: Literal["debug", "info", "warning", "error"] | None = None,
) -> int:
    """Run the server: coordination, relay, DNS and pages, with no configuration needed.

    Prints `ready URL` on stdout, as one line, when it accepts connections; the log goes to stderr. SIGTERM and Ctrl-C stop
    it within 5 seconds. SIGHUP reloads what can be reloaded, and names what needs a restart.

    Example: `doorward serve --listen 0.0.0.0:8080 --url http://192.168.1.10:8080`

    Every setting can also stand in a settings file or in the environment; the command line counts most.

    Exit codes: 0 stopped as asked, 1 it cannot start or fails, 2 the command line is wrong.

    Args:
        data_dir: Where it keeps its state. [environment: DOORWARD_DATA_DIR]
        listen: HOST:PORT of the public listener. Without it 127.0.0.1:8080.
        url: Where clients log in, as they reach it. Without it `http://` and the listener.
        door: Where people go: another DNS name, with https. Without it `https://door.` and the domain.
        workers: How many processes serve; more than one needs PostgreSQL. Without it 1.
        config: Settings file. Without it `doorward.toml` in the data directory, if there is one.
        log_level: The least that is logged.
    """
    from doorward.server.app import serve as run_server  # noqa: PLC0415 - only this command may load the server

    flags = {
        "data_dir": data_dir,
        "listen": listen,
        "url": url,
        "door": door,
        "workers": workers,
        "log.level": log_level,
    }
    return run_server(load(config, flags=flags))
