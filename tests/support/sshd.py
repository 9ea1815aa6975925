"""OpenSSH's server as it is, on a free port of loopback, with keys, accounts and passwords of its own."""

import asyncio
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.openssh import run
from tests.support.programs import SSHD, debian_program, require
from tests.support.server import free_port

from doorward.engine.processes import stop, tied_to_us

HOST = "127.0.0.1"
_PAM = "auth required pam_unix.so nodelay\naccount required pam_unix.so\nsession required pam_permit.so\n"


@dataclass(frozen=True)
class Sshd:
    """One that runs. ``host_keys`` are lines as in known_hosts, without the host; ``folder`` is whose it can write to."""

    port: int
    host_keys: list[str]
    folder: Path
    log: Path


@asynccontextmanager
async def running_sshd(
    keys: list[str], *, settings: Mapping[str, str], password: str = ""
) -> AsyncIterator[Sshd]:
    """Start it, wait until it listens, and stop it with the block.

    It lets in whoever runs the tests, by one of these public keys. With ``password`` it lets root in by that, too, asked for
    by PAM as on any system; this takes root, since it has account files of its own in a mount namespace.
    """
    program, environ = debian_program(*SSHD)
    with tempfile.TemporaryDirectory(prefix="dw-sshd-") as name:
        folder = Path(name)
        lines = []
        for kind in ("ed25519", "ecdsa", "rsa"):
            file = folder / kind
            await run([str(require("ssh-keygen")), "-q", "-t", kind, "-N", "", "-f", str(file)])
            lines.append(file.with_suffix(".pub").read_text().rpartition(" ")[0])
        (folder / "authorized").write_text("\n".join(keys) + "\n")
        port = free_port()
        wanted = {
            "ListenAddress": f"{HOST}:{port}",
            "AuthorizedKeysFile": str(folder / "authorized"),
            "StrictModes": "no",
            "PermitRootLogin": "yes",
            "PidFile": "none",
            "PrintMotd": "no",
            "Subsystem": "sftp internal-sftp",
            "UsePAM": "yes" if password else "no",
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
            **settings,
        }
        config = [f"HostKey {folder / kind}" for kind in ("ed25519", "ecdsa", "rsa")]
        config += [f"{key} {value}" for key, value in wanted.items()]
        (folder / "config").write_text("\n".join(config) + "\n")
        command = [str(program), "-D", "-e", "-f", str(folder / "config")]
        if os.geteuid() == 0:
            command = await _own_accounts(folder, password, command)
        with (folder / "log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *tied_to_us(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environ},
            )
        try:
            async with asyncio.timeout(60):
                while b"listening on" not in (folder / "log").read_bytes():
                    assert process.returncode is None, (folder / "log").read_text()[-2000:]
                    await asyncio.sleep(0.02)
            yield Sshd(port, lines, folder, folder / "log")
        finally:
            await stop(process, 2)


async def _own_accounts(folder: Path, password: str, command: list[str]) -> list[str]:
    """The same command where root's password is this one, and there is the account that sshd wants for itself.

    All in a mount namespace: nobody else sees it, and it is gone with the process.
    """
    accounts = [":".join(map(str, account)) for account in pwd.getpwall()]
    others = [line for line in accounts if not line.startswith(("sshd:", "root:"))]
    root = f"root:x:0:0::{folder}:/bin/sh"
    (folder / "passwd").write_text(
        "\n".join([root, "sshd:x:64123:65534::/run/sshd:/bin/false", *others]) + "\n"
    )
    hashed = "*"
    if password:
        done = await run([str(require("openssl")), "passwd", "-6", password])
        hashed = done.stdout.strip()
    (folder / "shadow").write_text(f"root:{hashed}:19000:0:99999:7:::\n")
    (folder / "shadow").chmod(0o600)
    pam = folder / "pam.d"
    pam.mkdir()
    for service in ("sshd", "other"):
        (pam / service).write_text(_PAM)
    mounts = [(folder / "passwd", "/etc/passwd"), (folder / "shadow", "/etc/shadow"), (pam, "/etc/pam.d")]
    script = " && ".join(
        [
            *(f"mount --bind {source} {target}" for source, target in mounts),
            "mount -t tmpfs -o mode=755 none /run",
            "mkdir /run/sshd",
            'exec "$@"',
        ]
    )
    unshare = shutil.which("unshare") or "/usr/bin/unshare"
    return [unshare, "--mount", "sh", "-ec", script, "sh", *command]
