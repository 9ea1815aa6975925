"""The ssh configuration by which ``ssh``, ``scp``, ``sftp``, ``rsync`` and git trust exactly the host keys that nodes published.

What is written is a folder ``doorward`` beside the ssh configuration, and two marked Includes: of its ``config`` at the top, so that
nothing below weakens it, and of its ``aliases`` at the end, where those have their ``HostName``. Each begins with the question whether
the host is a node that has published keys; where it is not, or nobody can be asked, ssh does what it did before.

::

    Match host PATTERNS exec "doorward ssh known-hosts --quiet -- '%h'"     a node with keys?
        KnownHostsCommand doorward ssh known-hosts -- %H                    then these keys and no others
        StrictHostKeyChecking yes ...

With ``--server`` there is no daemon to ask at each connection: keys and names are written down as they are now.
"""

import asyncio
import difflib
import os
import pwd
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from doorward.api import types
from doorward.cli import known_hosts, output
from doorward.cli.connection import Target
from doorward.engine.base import Status
from doorward.engine.localapi import LocalApi
from doorward.engine.programs import find_client
from doorward.errors import BadInput, NotPermitted, Unavailable

FOLDER = "doorward"  # beside the ssh configuration
_PARTS = ("config", "aliases")
_BEGIN, _END = "# doorward: ", "# doorward: end"
TRUST = """\
    UserKnownHostsFile {known}
    GlobalKnownHostsFile /dev/null
    StrictHostKeyChecking yes
    UpdateHostKeys no
    VerifyHostKeyDNS no
    CheckHostIP no
"""
# Every address of a tailnet (control.md, section 19). Whether a host is a node the command says; these only spare asking.
_ADDRESSES = "100.*,fd7a:115c:a1e0:*"
_PLAIN_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")
_PLAIN_ADDRESS = re.compile(r"[0-9a-f.:]+")


class Change(NamedTuple):
    """A file as it is to be; None: gone."""

    path: Path
    text: str | None


def default_config() -> Path:
    """The configuration that ssh reads: below the home that the account database names, whatever HOME says."""
    return Path(pwd.getpwuid(os.geteuid()).pw_dir) / ".ssh" / "config"


def program() -> list[str]:
    """How this program is called, with whole paths."""
    script = Path(sys.executable).with_name("doorward")
    # -P: what lies in the folder that ssh is called in is not to be loaded.
    return [str(script)] if script.exists() else [sys.executable, "-P", "-m", "doorward"]


def plan(config: Path, target: Target, socket: Path) -> tuple[list[Change], Status | None]:
    """What to write, and what the daemon of this machine says where it was asked.

    Raises:
        Unavailable: the daemon, or the server, does not answer; this machine has not joined; its ssh is too old.
        BadInput: a path holds what ssh or the shell would read as something else.
    """
    folder = config.parent / FOLDER
    if target.server is not None or target.data_dir is not None:
        nodes = target.call("GET", "/nodes", list[types.Node])
        made, known = fragment_of(nodes, folder / "known_hosts")
        return [Change(folder / "known_hosts", known), *_included(config, folder, made, made)], None
    status = asyncio.run(_ask(socket))
    suffix = "" if status.tailnet is None else status.tailnet.suffix.strip(".").lower()
    if not status.running or not suffix:
        raise Unavailable(
            "this machine is in no tailnet now", cure="Join first: tailscale up --login-server URL"
        )
    proxy: Path | None = None
    if not status.tun:
        client = find_client(os.environ)
        if client is None:
            raise Unavailable(
                "tailscaled runs in user space, and there is no tailscale command to connect through it",
                cure="Put tailscale on PATH.",
            )
        proxy = client.tailscale
    _require_ssh()
    parts = (fragment(program(), socket, suffix, proxy, aliases=aliases) for aliases in (False, True))
    return [Change(folder / "known_hosts", None), *_included(config, folder, *parts)], status


def removal(config: Path) -> list[Change]:
    """What to write so that nothing of ours is left."""
    folder = config.parent / FOLDER
    before = _read(config)
    kept = without_includes(before)
    # A file that held nothing but our lines is one that we made.
    ours = before != kept and not kept and not config.is_symlink()
    # The Includes first: ssh passes over the Include of a file that is gone.
    return [
        Change(config, None if ours else kept),
        *(Change(folder / name, None) for name in (*_PARTS, "known_hosts")),
    ]


def fragment(
    command: Sequence[str], socket: Path, domain: str, proxy: Path | None, *, aliases: bool = False
) -> str:
    """The part of an ssh configuration that asks the daemon of this machine.

    Args:
        command: this program.
        socket: the daemon's.
        domain: of the tailnet's names.
        proxy: the ``tailscale`` to connect with, where the daemon runs in user space and addresses lead nowhere by themselves.
        aliases: for hosts that are called otherwise than they were asked for, and no others: a look at two words spares most
            connections the question.
    """
    if not _PLAIN_NAME.fullmatch(domain):
        raise BadInput(f"the tailnet is called {domain!r}, which is no domain")
    ask = [*map(token, command), *known_hosts.COMMAND, f"--socket={token(str(socket))}"]
    through = ""
    if proxy is not None:
        nc = f"'{token(str(proxy))}' '--socket={token(str(socket))}' nc %h %p"
        through = f"    ProxyCommand {nc}\n"
    # In single quotes nothing means anything to a shell, and a host with a quote is not asked about at all: a link
    # in somebody's repository may name any host.
    asked = " ".join(f"'{word}'" for word in (*ask, "--quiet", "--port=%p", "--", "%h"))
    shown = " ".join(f'"{word}"' for word in (*ask, "--", "%H"))
    body = f"    KnownHostsCommand {shown}\n{TRUST.format(known='/dev/null')}{through}"
    renamed = """originalhost "!*'*,*" exec "test '%n' != '%h'" """ if aliases else ""
    return "".join(
        f"""Match host "!*'*,{hosts}" {renamed}exec "{asked}"\n{body}"""
        for hosts in (f"*.{domain},{_ADDRESSES}", "!*.*,!*:*,*")
    )


def fragment_of(nodes: Iterable[types.Node], file: Path) -> tuple[str, str]:
    """The part of an ssh configuration for nodes that the server told of, and the known_hosts file that goes with it."""
    hosts: list[str] = []
    known: list[str] = []
    for node in nodes:
        names = [each for each in (node.name, node.fqdn) if _PLAIN_NAME.fullmatch(each)]
        names += [each for each in node.addresses if _PLAIN_ADDRESS.fullmatch(each)]
        keys = list(filter(None, map(known_hosts.plain_key, node.ssh_host_keys)))
        if names and keys:
            hosts += names
            known += [f"{','.join(names)} {key}\n" for key in keys]
    match = f'Match host "{",".join(hosts)}"\n' if hosts else "Match !all\n"
    trust = TRUST.format(known=f'"{token(str(file))}"')
    return match + trust, "".join(known)


def with_includes(text: str, folder: Path) -> str:
    """An ssh configuration with what is in our folder included, once, whatever of it was there."""
    text = without_includes(text)
    name = token(str(folder)).replace("%%", "%")  # here a percent sign begins nothing
    if any(c in name for c in "*?["):
        raise BadInput(f"{folder} cannot be included: ssh reads * ? [ as patterns")
    first, last = (f'Include "{name}/{part}"\n' for part in _PARTS)
    top = f"{_BEGIN}host keys of the tailnet; `doorward ssh setup --remove` takes this away\n{first}{_END}\n"
    end = f"{_BEGIN}the same for what is called otherwise above\nMatch all\n    {last}{_END}\n"
    middle = text if not text or text.endswith("\n") else text + "\n"
    return top + middle + end


def without_includes(text: str) -> str:
    """The same without our part."""
    kept: list[str] = []
    ours = False
    for line in text.splitlines(keepends=True):
        bare = line.strip()
        if not ours and bare.startswith(_BEGIN) and bare != _END:
            ours = True
        elif not ours:
            kept.append(line)
        elif bare == _END:
            ours = False
    if ours:
        raise BadInput(
            f"the ssh configuration has a line that begins with {_BEGIN.strip()!r}, and no {_END!r} after it",
            cure="Take out by hand what is left of doorward's lines.",
        )
    return "".join(kept)


def carry_out(changes: Iterable[Change], *, dry_run: bool) -> list[Path]:
    """Write what differs, each file whole or not at all; with ``dry_run`` only show it. Returns the files that differ."""
    touched: list[Path] = []
    for path, text in changes:
        before = _read(path)
        if text == before and (path.exists() or not text):
            continue
        if text is None and not path.exists():
            continue
        touched.append(path)
        if dry_run:
            shown = difflib.unified_diff(
                before.splitlines(), (text or "").splitlines(), str(path), str(path), lineterm=""
            )
            for line in shown:
                output.line(line)
            continue
        try:
            if text is None:
                path.unlink()
                if path.parent.name == FOLDER and not any(path.parent.iterdir()):
                    path.parent.rmdir()
            else:
                _write(path, text)
        except OSError as error:
            raise NotPermitted(f"{path} cannot be written: {error.strerror}") from None
    return touched


def _included(config: Path, folder: Path, *parts: str) -> list[Change]:
    # The parts first: an Include of a file that is not there would be no error, and no protection either.
    made = [Change(folder / name, text) for name, text in zip(_PARTS, parts, strict=True)]
    return [*made, Change(config, with_includes(_read(config), folder))]


async def _ask(socket: Path) -> Status:
    async with LocalApi(socket) as daemon:
        return await daemon.status(peers=False)


def _require_ssh() -> None:
    """An ssh that knows KnownHostsCommand: for any other this word would make the whole configuration one that it refuses."""
    found = shutil.which("ssh")
    cure = "Install OpenSSH 8.5 or newer (Debian: openssh-client)."
    if found is None:
        raise Unavailable("there is no ssh", cure=cure)
    ask = [found, "-G", "-T", "-F", "none", "-o", "KnownHostsCommand=none", "localhost"]
    try:
        known = subprocess.run(ask, capture_output=True, check=False, timeout=10).returncode == 0  # noqa: S603 - ssh, found on PATH
    except (OSError, subprocess.TimeoutExpired):
        known = False
    if not known:
        raise Unavailable(f"{found} is too old to ask for host keys", cure=cure)


def token(text: str) -> str:
    """A word that stands in quotes in ssh_config or a unit of systemd. Raises BadInput for what would end them or be replaced."""
    if any(c in "'\"\\$`" or not c.isprintable() for c in text):
        raise BadInput(
            f"{text!r} holds a character that means something to ssh or to a shell",
            cure="Use a path without quotes, backslashes and dollar signs.",
        )
    return text.replace("%", "%%")


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode()
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError:
        raise BadInput(f"{path} is not UTF-8 text") from None
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from None


def _write(path: Path, text: str) -> None:
    """Replace the file, or what a link there leads to; ssh never sees half of it, and its mode stays."""
    path = path.resolve()
    for folder in reversed((path.parent, *path.parent.parents)):
        folder.mkdir(mode=0o700, exist_ok=True)  # each: those that ``parents`` makes would be open to all
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o600
    fresh = path.with_name(f".{path.name}.doorward")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(text.encode())
    fresh.chmod(mode)
    fresh.replace(path)
