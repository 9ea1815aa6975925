"""``doorward ssh setup``."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from doorward.cli import output, ssh_config
from doorward.cli.connection import Flag, Target
from doorward.cli.known_hosts import DEFAULT_SOCKET


def setup(
    *,
    socket: Path = Path(DEFAULT_SOCKET),
    config: Annotated[Path | None, Parameter(name="--ssh-config")] = None,
    remove: Flag = False,
    dry_run: Flag = False,
    target: Target | None = None,
) -> None:
    """Have ssh, scp, sftp, rsync and git on this machine trust exactly the host keys that nodes published.

    A node with Tailscale SSH publishes its host keys through the tailnet. From then on ssh asks the tailscaled of this
    machine at each connection: a node's keys are trusted without a question, and no others for that name; a key in known_hosts
    does not count there. Hosts that are no node, or publish no keys, are left as they were.

    It writes the folder doorward beside the ssh configuration, and two Includes into that. Run it again after moving or
    updating doorward, or in another tailnet. Where there is no tailscaled, --server writes down the keys of today.

    Example: `doorward ssh setup`, then `ssh server`

    Args:
        socket: Where tailscaled listens.
        config: The ssh configuration to add to. [default: ~/.ssh/config]
        remove: Take everything away that it wrote.
        dry_run: Show what would be written, and write nothing.
        target: Which server.
    """
    config = ssh_config.default_config() if config is None else config.expanduser().absolute()
    if remove:
        touched = ssh_config.carry_out(ssh_config.removal(config), dry_run=dry_run)
    else:
        changes, _ = ssh_config.plan(config, target or Target(), socket)
        touched = ssh_config.carry_out(changes, dry_run=dry_run)
    if not touched:
        output.line("There is nothing to change.")
    elif not dry_run:
        for path in touched:
            output.line(f"{'Written' if path.exists() else 'Removed'}: {path}")
