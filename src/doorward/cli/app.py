"""Finds the command, runs it, and turns every error into one line and its cure.

Exit codes, the same for every command: 0 it is done; 1 it is refused or failed, and stderr says why; 2 the command line
itself is wrong; 130 it was interrupted.
"""

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from cyclopts import App, CycloptsError

from doorward import __version__
from doorward.cli import output
from doorward.errors import DoorwardError

_HELP = """Keyless access for your own tailnet: the coordination server for stock Tailscale clients, in one program.

Start a server with `doorward serve`. Every other command talks to it: over the socket in the data directory on the same
machine, or with --server and --token from elsewhere. Every command that prints a table prints JSON with --json.
"""

_EPILOGUE = "Exit codes: 0 done, 1 refused or failed, 2 the command line is wrong."

# What each does is said here once more, so that `doorward --help` need not load them all.
_COMMANDS = (
    ("serve", "doorward.cli.serve:serve", "Run the server."),
    ("relay", "doorward.cli.relay:relay", "Run a relay of its own."),
    ("users", "doorward.cli.users:app", "People: create, invite, list, change, sign out, suspend, delete."),
    (
        "providers",
        "doorward.cli.providers:app",
        "Outside OpenID providers at which people sign in: add, list, show, change, test, remove.",
    ),
    ("keys", "doorward.cli.keys:app", "Auth keys, which let nodes join without a person."),
    (
        "nodes",
        "doorward.cli.nodes:app",
        "Nodes: list, show, approve, suspend, cut, rename, tag, route, attributes, host keys, ping, expire, delete.",
    ),
    ("policy", "doorward.cli.policy:app", "Who may reach what: read, check, set, ask."),
    ("dns", "doorward.cli.dns:app", "Names: search domains, nameservers, split DNS, records of your own."),
    (
        "ssh",
        "doorward.cli.ssh:app",
        "Ssh: set up this machine for it; list, approve and deny what waits for approval.",
    ),
    ("apps", "doorward.cli.apps:app", "Programs in which people sign in by doorward."),
    ("tokens", "doorward.cli.tokens:app", "Tokens for the JSON API."),
    ("audit", "doorward.cli.audit:app", "Who did what to whom."),
    ("status", "doorward.cli.status:status", "Show what runs."),
    ("doctor", "doorward.cli.status:doctor", "Find what is wrong with the server, and say how to mend it."),
    ("ca", "doorward.cli.authority:authority", "Print the certificate of doorward's own authority."),
    ("setup", "doorward.cli.setup:app", "Get what doorward needs."),
    (
        "demo",
        "doorward.cli.demo:demo",
        "Start doorward and three machines on this computer, and show how to ssh from one to the others.",
    ),
    ("completion", "doorward.cli.completion:completion", "Print the completion script of a shell."),
)
NAMES = tuple(name for name, _, _ in _COMMANDS)


def program(*named: str) -> App:
    """The program. Nothing of a command is loaded until it is run or asked about.

    Args:
        named: commands that show their own page; the others are described by their one line, which costs no loading.
    """
    app = App(
        name="doorward",
        help=_HELP,
        help_epilogue=_EPILOGUE,
        help_format="markdown",
        version=__version__,
        result_action="return_value",
        suppress_keyboard_interrupt=False,
    )
    for name, place, text in _COMMANDS:
        app.command(place, name=name, help=None if name in named else text)
    return app


def _load_page(app: App, words: Sequence[str]) -> None:
    """Load what a group's page lists, where that is what is asked for: what is loaded late has its line only then."""
    if len(words) in {1, 2} and words[0] in NAMES and set(words[1:]) <= set(app.help_flags):
        group = app[words[0]]
        for name in group:
            group[name]


def complain(error: DoorwardError) -> None:
    """Print an error: each diagnostic on a line of its own, or the message; then the cure."""
    if diagnostics := getattr(error, "diagnostics", ()):
        output.diagnostics(error.place.rsplit(":", 2)[0], diagnostics)
        return
    place = f"{error.place}: " if error.place else ""
    output.note(f"doorward: {place}{error.message}")
    if error.cure:
        output.note(f"  {error.cure}")


def _usage(error: CycloptsError) -> None:
    """Print what is wrong with the command line, and where its help is."""
    chain = " ".join(("doorward", *(error.command_chain or ())))
    output.note("doorward: " + " ".join(str(error).split()))
    output.note(f"  `{chain} --help` shows how it is used.")


def run(arguments: Sequence[str]) -> int:
    """Run one command line, without the program's name; returns the exit code."""
    try:
        app = program(*arguments[:1])
        _load_page(app, arguments)
        result = app(list(arguments), exit_on_error=False, print_error=False)
    except CycloptsError as error:
        _usage(error)
        return 2
    except DoorwardError as error:
        complain(error)
        return 1
    except KeyboardInterrupt:
        return 130
    return result if isinstance(result, int) else 0


def main() -> NoReturn:
    """The program ``doorward``."""
    try:
        code = run(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output has enough (`doorward nodes list | head`). Nothing may be written at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code)
