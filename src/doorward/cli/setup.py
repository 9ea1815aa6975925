"""``doorward setup``."""

import sys

from cyclopts import App

from doorward.cli import output
from doorward.engine.setup import CLIENT_VERSION, Progress, setup_client

app = App(name="setup", help="Get what doorward needs.")

_EVERY = 15.0  # seconds between two lines where there is no terminal to draw on


class _Display:
    """Progress on stderr: one line that changes on a terminal, a line now and then elsewhere."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._stage = ""
        self._next = 0.0
        self._drawn = False

    def __call__(self, progress: Progress) -> None:
        counts = f"{progress.downloaded} modules, {progress.compiled} packages, {progress.elapsed:.0f} s"
        text = f"{progress.stage} ({counts})"
        if self._terminal:
            sys.stderr.write(f"\r\x1b[K{output.clean(text)}")
            sys.stderr.flush()
            self._drawn = True
        elif progress.stage != self._stage or progress.elapsed >= self._next:
            self._stage, self._next = progress.stage, progress.elapsed + _EVERY
            output.note(text)

    def close(self) -> None:
        """Leave the terminal at the start of a line."""
        if self._drawn:
            sys.stderr.write("\r\x1b[K")


@app.command(name="client")
def client() -> None:
    """Make the stock Tailscale client where this machine has none that is new enough.

    A client on PATH that is new enough is used. Otherwise it is built once, from the public Go module proxy with checksums
    verified, into the cache folder ($XDG_CACHE_HOME/doorward/bin). That takes about three minutes on two cores. Prints the
    two programs on stdout.

    Example: `doorward setup client`
    """
    display = _Display()
    try:
        found = setup_client(display)
    finally:
        display.close()
    version = ".".join(map(str, found.version))
    output.note(
        f"The stock client {version} is here; doorward was made for {CLIENT_VERSION.removeprefix('v')}."
    )
    output.line(str(found.tailscale))
    output.line(str(found.tailscaled))
