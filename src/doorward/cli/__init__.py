"""The command line: one noun, one file. A contract with everybody's scripts, so commands are added and never changed.

::

    doorward nodes list ── app.run: which command ── nodes.list_nodes ── connection.Target ── the API ── output.table

``app`` finds the command and turns every error into one line and its cure. ``connection`` says where the server is and
talks to it, over the socket in the data directory or over HTTP. ``output`` and ``times`` are how things look. The rest
are the nouns, each loaded only when its command is given: ``doorward nodes list`` must feel like ``ls``, so nothing
here imports the server, the store or a web framework, but for ``serve`` and ``demo`` inside their functions. What ``ssh``
itself runs at each connection (``known_hosts``) does not even load ``app``.
"""

import sys

from doorward.cli.known_hosts import quick


def main() -> None:
    """The program ``doorward``; it ends with SystemExit."""
    if (code := quick(sys.argv[1:])) is not None:
        sys.exit(code)
    from doorward.cli.app import main as whole  # noqa: PLC0415 - see above

    whole()


__all__ = ["main"]
