"""Where things lie in the file system: the data directory, the ports kept in it, and sockets whose path must be short."""

import hashlib
import os
import stat
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import msgspec

from doorward.config.settings import ConfigError, Ports

PORTS_NAME = "ports.json"

# sun_path holds 108 bytes on Linux and 104 elsewhere, with the closing zero.
_SOCKET_PATH_LIMIT = 107 if sys.platform == "linux" else 103


def default_data_dir(environ: Mapping[str, str], *, root: bool) -> Path:
    """``$DOORWARD_DATA_DIR``, else ``/var/lib/doorward`` for root, else the platform's folder for a user's data."""
    if given := environ.get("DOORWARD_DATA_DIR"):
        return expanded(Path(given)).absolute()
    if root:
        return Path("/var/lib/doorward")
    home = Path(environ.get("HOME") or Path.home())
    if sys.platform == "darwin":
        return home / "Library" / "Application Support" / "doorward"
    base = environ.get("XDG_DATA_HOME", "")
    # The base directory specification: a relative path there is to be ignored.
    return (Path(base) if Path(base).is_absolute() else home / ".local" / "share") / "doorward"


def expanded(path: Path) -> Path:
    """The path with ``~`` and ``~NAME`` replaced. Raises ConfigError for somebody who has no home here."""
    try:
        return path.expanduser()
    except RuntimeError:
        raise ConfigError(
            f"{str(path)!r} begins with the home of somebody who has none here", cure="Write the whole path."
        ) from None


def load_ports(data_dir: Path) -> Ports | None:
    """The ports an earlier run kept; None at the first start. Raises ConfigError for a file that cannot be read."""
    path = data_dir / PORTS_NAME
    try:
        return msgspec.json.decode(path.read_bytes(), type=Ports)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"the ports kept from an earlier run cannot be read: {error}",
            cure="Mend the file, or delete it and let new ports be chosen.",
            place=str(path),
        ) from None


def save_ports(data_dir: Path, ports: Ports) -> None:
    """Keep ``ports`` for the next run; a crash leaves the old file or the new one, never half of one."""
    path = data_dir / PORTS_NAME
    fresh = path.with_suffix(".new")
    fresh.write_bytes(msgspec.json.format(msgspec.json.encode(ports), indent=2) + b"\n")
    fresh.replace(path)


def save_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, from its first moment on. What was there before is replaced, not followed."""
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600, O_EXCL
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(partial).replace(path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


def socket_path(folder: Path, name: str, environ: Mapping[str, str]) -> Path:
    """Where the Unix socket ``folder/name`` is to be made.

    A path that is too long for a socket address is replaced by one in the runtime folder, and ``folder/name.path`` says
    which, so that ``find_socket`` needs no environment. The folder it lies in belongs to us alone (mode 0700): one that
    somebody else made there first is refused.
    """
    direct, pointer = folder / name, folder / f"{name}.path"
    if len(os.fsencode(direct)) <= _SOCKET_PATH_LIMIT:
        pointer.unlink(missing_ok=True)
        return direct
    runtime = environ.get("XDG_RUNTIME_DIR") or ("/run" if os.geteuid() == 0 else tempfile.gettempdir())
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
    place = Path(runtime) / f"doorward-{os.geteuid()}-{digest}"
    place.mkdir(mode=0o700, exist_ok=True)
    found = place.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise ConfigError(
            f"{place} is not a folder of ours alone",
            cure="Remove it, or choose a data directory with a shorter path.",
            place=str(place),
        )
    pointer.write_text(str(place / name), encoding="utf-8")
    return place / name


def find_socket(folder: Path, name: str) -> Path:
    """Where ``socket_path`` put the socket; whether anybody listens there is another question."""
    try:
        return Path((folder / f"{name}.path").read_text(encoding="utf-8"))
    except OSError:
        return folder / name
