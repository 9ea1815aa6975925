"""``doorward ssh setup``: this machine's ssh configuration, and the service that opens the pages on which its person is asked."""

import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from doorward.cli import output, ssh_config
from doorward.cli.connection import Flag, Target
from doorward.cli.known_hosts import DEFAULT_SOCKET
from doorward.cli.ssh_browser import plain_door
from doorward.cli.ssh_config import Change
from doorward.engine.base import Status
from doorward.errors import BadInput
from doorward.protocol.tailcfg.capability import DOOR

UNIT = "doorward-ssh-browser.service"
_PATIENCE = 20.0  # seconds for systemd
_TEXT = """\
# Written by `doorward ssh setup`; `doorward ssh setup --remove` takes it away.
[Unit]
Description=Opens the page on which doorward asks you about an ssh
PartOf=graphical-session.target
After=graphical-session.target

[Service]
ExecStart={command}
Restart=always
RestartSec=10
# The browser that it started is the person's, and stays.
KillMode=process

[Install]
WantedBy=graphical-session.target
"""


def setup(
    *,
    socket: Path = Path(DEFAULT_SOCKET),
    config: Annotated[Path | None, Parameter(name="--ssh-config")] = None,
    browser: bool = True,
    remove: Flag = False,
    dry_run: Flag = False,
    target: Target | None = None,
) -> None:
    """Set up this machine for ssh to the nodes of its tailnet.

    Ssh, scp, sftp, rsync and git then trust exactly the host keys that nodes published. A node with Tailscale SSH publishes its
    host keys through the tailnet, and ssh asks the tailscaled of this machine for them at each connection: they are trusted
    without a question, and no others for that name; a key in known_hosts does not count there. Hosts that are no node, or
    publish no keys, are left as they were. It writes the folder doorward beside the ssh configuration, and two Includes into that.

    On Linux a service of your session (`doorward ssh browser`) opens the page in your browser when an ssh of yours waits for your
    approval. Where there is no systemd, it says how to start that.

    Run it again after moving or updating doorward, or in another tailnet. Where there is no tailscaled, --server writes down
    the keys of today.

    Example: `doorward ssh setup`, then `ssh server`

    Args:
        socket: Where tailscaled listens.
        config: The ssh configuration to add to. [default: ~/.ssh/config]
        browser: Have the page opened on which you are asked about an ssh.
        remove: Take everything away that it wrote.
        dry_run: Show what would be written, and write nothing.
        target: Which server.
    """
    config = ssh_config.default_config() if config is None else config.expanduser().absolute()
    session = _Session()
    by_hand = ""
    if remove:
        changes = [Change(session.unit, None), *ssh_config.removal(config)]
        if session.unit.exists() and not dry_run:
            session.tell("disable", "--now", UNIT)
    else:
        socket = socket.expanduser().absolute()
        changes, status = ssh_config.plan(config, target or Target(), socket)
        command = _opener(status, socket) if browser and sys.platform == "linux" else []
        if command and session.runs:
            line = " ".join(f'"{ssh_config.token(word)}"' for word in command)
            changes.append(Change(session.unit, _TEXT.format(command=line)))
        elif command:
            by_hand = " ".join(command)
    touched = ssh_config.carry_out(changes, dry_run=dry_run)
    if not touched:
        output.line("There is nothing to change.")
    if dry_run:
        return
    for path in touched:
        output.line(f"{'Written' if path.exists() else 'Removed'}: {path}")
    if session.unit in touched:
        session.tell("daemon-reload")
        if session.unit.exists() and not (session.tell("enable", UNIT) and session.tell("restart", UNIT)):
            output.note("doorward: systemd did not start the service; it says why: systemctl --user status")
    if by_hand:
        output.line(
            f"To have the page opened when an ssh waits for you, start this with your session: {by_hand}"
        )


def _opener(status: Status | None, socket: Path) -> list[str]:
    """The command that opens pages; empty where nobody knows the door."""
    told = [] if status is None else status.capability(DOOR)
    try:
        door = plain_door(told[0]) if told and isinstance(told[0], str) else ""
    except BadInput:
        door = ""
    if not door:
        return []
    # The environment of a session knows nothing of the folder that doorward lies in, so every path is whole.
    return [*ssh_config.program(), "ssh", "browser", f"--door={door}", f"--socket={socket}"]


class _Session:
    """The person's own systemd."""

    def __init__(self) -> None:
        given = Path(os.environ.get("XDG_CONFIG_HOME", ""))
        home = Path(pwd.getpwuid(os.geteuid()).pw_dir) / ".config"
        self.unit = (given if given.is_absolute() else home) / "systemd" / "user" / UNIT
        self.runs = self.tell("show-environment")

    def tell(self, *words: str) -> bool:
        """Run ``systemctl --user``; whether it did that."""
        systemctl = shutil.which("systemctl")
        if systemctl is None:
            return False
        try:
            done = subprocess.run(  # noqa: S603 - systemd's own program, found on PATH, with words of ours
                [systemctl, "--user", *words], capture_output=True, check=False, timeout=_PATIENCE
            )
        except (OSError, subprocess.TimeoutExpired):
            return False
        return done.returncode == 0
