"""Which stock client programs are here, and how old they are."""

import functools
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from doorward.errors import DoorwardError

# The oldest release doorward promises to work with: from 1.80 on, maps need no forms for older clients (control.md 25).
OLDEST = (1, 80)
# Daemons live where people's PATH does not look.
_SYSTEM_FOLDERS = ("/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/local/bin", "/opt/homebrew/bin")


class ProgramError(DoorwardError):
    """A program that is missing, too old, or does not run."""


class ClientPaths(NamedTuple):
    """A stock client: the command, the daemon, and the daemon's version."""

    tailscale: Path
    tailscaled: Path
    version: tuple[int, int, int]

    @property
    def knows_pins(self) -> bool:
        """Whether it checks a relay by the pin in the DERP map; one before 1.82 must trust the relay's authority."""
        return self.version[:2] >= (1, 82)


def cache_folder(environ: Mapping[str, str]) -> Path:
    """Where doorward keeps programs it made: ``${XDG_CACHE_HOME:-~/.cache}/doorward``."""
    base = Path(environ.get("XDG_CACHE_HOME", ""))
    home = Path(environ.get("HOME") or Path.home())
    return (base if base.is_absolute() else home / ".cache") / "doorward"


def find_client(environ: Mapping[str, str], setting: str = "") -> ClientPaths | None:
    """The stock client to use, or None where there is none that is new enough.

    Args:
        environ: whose PATH, HOME and XDG_CACHE_HOME count.
        setting: the setting ``tailscaled``: a path to the daemon, ``off``, or empty for a search on PATH and then in
            ``cache_folder``.

    Raises:
        ProgramError: ``setting`` names a daemon that is missing, too old, or has no ``tailscale`` beside it or on PATH.
    """
    if setting == "off":
        return None
    search = os.pathsep.join((environ.get("PATH", os.defpath), *_SYSTEM_FOLDERS))
    if setting:
        return _named_client(Path(setting), search)
    found = (_which("tailscale", search), _which("tailscaled", search))
    made = cache_folder(environ) / "bin"
    for tailscale, tailscaled in (found, (made / "tailscale", made / "tailscaled")):
        if tailscale is None or tailscaled is None:
            continue
        daemon, command = version_of(tailscaled), version_of(tailscale)
        if daemon is not None and command is not None and min(daemon, command)[:2] >= OLDEST:
            return ClientPaths(tailscale, tailscaled, daemon)
    return None


def version_of(program: Path) -> tuple[int, int, int] | None:
    """What ``program --version`` says it is, or None when it does not run or says nothing of the kind."""
    try:
        found = program.stat()
    except OSError:
        return None
    return _ask_version(program, found.st_mtime_ns, found.st_size)


def parse_version(text: str) -> tuple[int, int, int] | None:
    """The version that a line such as ``1.102.4-ERR-BuildInfo`` or ``go1.26.8`` starts with."""
    match = re.match(r"(?:go)?(\d{1,6})\.(\d{1,6})(?:\.(\d{1,6}))?", text.strip())
    return (int(match[1]), int(match[2]), int(match[3] or 0)) if match else None


def _named_client(daemon: Path, search: str) -> ClientPaths:
    version = version_of(daemon)
    if version is None:
        raise ProgramError(
            f"{daemon} does not run or does not tell its version",
            cure="Correct the setting tailscaled, or remove it and run: doorward setup client",
            place="tailscaled",
        )
    if version[:2] < OLDEST:
        raise ProgramError(
            f"{daemon} is version {'.'.join(map(str, version))}, older than {'.'.join(map(str, OLDEST))}",
            cure="Update it, or remove the setting tailscaled and run: doorward setup client",
            place="tailscaled",
        )
    beside = daemon.with_name("tailscale")
    command = beside if beside.exists() else _which("tailscale", search)
    if command is None:
        raise ProgramError(
            f"there is no tailscale beside {daemon} nor on PATH",
            cure="Put it beside the daemon.",
            place="tailscaled",
        )
    return ClientPaths(command, daemon, version)


def _which(name: str, search: str) -> Path | None:
    found = shutil.which(name, path=search)
    return Path(found) if found else None


@functools.lru_cache(maxsize=64)
def _ask_version(program: Path, _changed: int, _size: int) -> tuple[int, int, int] | None:
    # The file's time and size are part of the cache's key, so that an update is noticed.
    ask = [str(program), "--version"]
    try:
        # Ten seconds: a cold start from a slow disk takes two.
        answer = subprocess.run(ask, capture_output=True, text=True, timeout=10, check=False)  # noqa: S603 - the operator's own program
    except (OSError, subprocess.TimeoutExpired):
        return None
    return parse_version(answer.stdout) if answer.returncode == 0 else None
