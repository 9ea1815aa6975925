"""Real programs for tests: a path, or a skip that names what is missing and how to get it.

With ``DOORWARD_REQUIRE=all`` a missing program fails the test instead: a run that claims to be whole must be.
"""

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple, NoReturn

from tests.support.golang import headscale_program, relying_program
from tests.support.require import missing
from tests.support.venv import interop_python

from doorward.engine.programs import ProgramError, cache_folder, find_client, parse_version, version_of
from doorward.engine.setup import CLIENT_PACKAGES, CLIENT_VERSION, build

OLDEST_CLIENT = "v1.80.3"
PEBBLE_VERSION = "v2.10.1"
_PEBBLE = "github.com/letsencrypt/pebble/v2/cmd/"
PEBBLE_PACKAGES = (f"{_PEBBLE}pebble", f"{_PEBBLE}pebble-challtestsrv")
_SEARCH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin", "/usr/local/sbin"))

# OpenSSH's server, and the package and library that it is in.
SSHD = ("sshd", "openssh-server", "libwrap0")

# Debian's packages for programs that are not called like their package.
_PACKAGES = {
    "ssh": "openssh-client",
    "sshd": "openssh-server",
    "ip": "iproute2",
    "tc": "iproute2",
    "nft": "nftables",
    "postgres": "postgresql",
    "curl": "curl",
    "socat": "socat",
    "rsync": "rsync",
    "systemd-analyze": "systemd",
    "node": "nodejs",
    "knotd": "knot",
}


class Client(NamedTuple):
    """The two programs of a stock client, and their version (``(1, 102, 4)``)."""

    tailscale: Path
    tailscaled: Path
    version: tuple[int, int, int]


def require(name: str) -> Path:
    """The program called ``name``; ``tailscale`` and ``tailscaled`` as doorward itself finds them."""
    if name in {"tailscale", "tailscaled"}:
        client = require_client()
        return client.tailscale if name == "tailscale" else client.tailscaled
    if name == "derper":
        return _require_built("tailscale.com/cmd/derper", CLIENT_VERSION, cache_folder(os.environ) / "bin")
    if name in {"pebble", "pebble-challtestsrv"}:
        return _require_built(f"{_PEBBLE}{name}", PEBBLE_VERSION, _pebble_folder())
    found = shutil.which(name, path=_SEARCH)
    if found is None and name in {"postgres", "initdb", "pg_ctl"}:
        found = max((str(path) for path in Path("/usr/lib/postgresql").glob(f"*/bin/{name}")), default=None)
    if found is None:
        _lacking(f"the program {name}", f"apt-get install {_PACKAGES.get(name, name)}")
    return Path(found)


def debian_program(name: str, *packages: str) -> tuple[Path, dict[str, str]]:
    """A program of the system's, or else of Debian's packages, unpacked and not installed; and the variables that it needs."""
    found = shutil.which(name, path=_SEARCH)
    if found is not None:
        return Path(found), {}
    how = f"apt-get install {packages[0]}"
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        _lacking(f"the program {name}", how)
    folder = cache_folder(os.environ) / f"debian-{name}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f".{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another test run may be at it
        if not folder.is_dir():
            with tempfile.TemporaryDirectory(dir=folder.parent) as partial:
                _unpack(Path(partial), packages, f"the program {name}", how)
                Path(partial, "root").rename(folder)
    program = next(iter(folder.glob(f"usr/*bin/{name}")))
    libraries = os.pathsep.join(
        str(path) for path in (*folder.glob("usr/lib/*-linux-*"), *folder.glob("lib/*-linux-*"))
    )
    return program, {"LD_LIBRARY_PATH": libraries}


def _unpack(partial: Path, packages: tuple[str, ...], what: str, how: str) -> None:
    """Fetch packages, which apt checks by the signature of their list, and take out what is in them."""
    command = ["apt-get", "download", "--quiet", *packages]
    done = subprocess.run(command, cwd=partial, capture_output=True, text=True, check=False)
    if done.returncode and os.geteuid() == 0 and os.environ.get("DOORWARD_REQUIRE") == "all":
        # There are no lists, or they are of before Debian's last update.
        subprocess.run(["apt-get", "update", "--quiet"], capture_output=True, check=False)
        done = subprocess.run(command, cwd=partial, capture_output=True, text=True, check=False)
    if done.returncode:
        _lacking(what, f"{how} ({done.stderr.strip()[-300:]})")
    for file in sorted(partial.glob("*.deb")):
        subprocess.run(["dpkg-deb", "--extract", file, partial / "root"], check=True)


def require_client(version: str | None = None) -> Client:
    """The stock client that doorward uses, or the one of ``version`` (``v1.80.3``) from the cache folder.

    A version that is not there is built where everything is required, which takes minutes the first time.
    """
    if version is None:
        found = find_client(os.environ)
        if found is None:
            _lacking("the stock client", "doorward setup client")
        return Client(*found)
    if version == CLIENT_VERSION:
        folder = cache_folder(os.environ) / "bin"
    else:
        folder = cache_folder(os.environ) / version / "bin"
    tailscale, tailscaled = (_require_built(package, version, folder) for package in CLIENT_PACKAGES)
    found_version, wanted = version_of(tailscaled), parse_version(version.removeprefix("v"))
    assert found_version is not None
    assert found_version == wanted, f"{tailscaled} says it is {found_version}"
    return Client(tailscale, tailscaled, found_version)


def require_root() -> None:
    """Skip where the run is not root."""
    if os.geteuid() != 0:
        _lacking("root", "run the tests as root")


def _lacking(what: str, how: str) -> NoReturn:
    missing(f"{what} is missing; to get it: {how}")


def _pebble_folder() -> Path:
    return cache_folder(os.environ) / f"pebble-{PEBBLE_VERSION}" / "bin"


def _require_built(package: str, version: str, folder: Path) -> Path:
    program = folder / package.rpartition("/")[2]
    if program.exists():
        return program
    how = "python -m tests.support.programs"
    if os.environ.get("DOORWARD_REQUIRE") != "all":
        _lacking(f"{program.name} {version}", how)
    try:
        return build(package, version, folder)[0]
    except ProgramError as error:
        _lacking(f"{program.name} {version}", f"{how} ({error.sentence()})")


def prepare(*, heavy: bool = False) -> None:
    """Make every program that only tests use and that is not here yet. For the start of a whole run: it takes minutes.

    ``heavy``: those of ``make interop``, too.
    """
    from tests.support.npm import installed  # noqa: PLC0415 - it imports this module

    for name in ("oidc", "axe", "web", *(("hub", "agents") if heavy else ())):
        installed(Path(__file__).parent / name)
    cache = cache_folder(os.environ)
    build([*CLIENT_PACKAGES, "tailscale.com/cmd/derper"], CLIENT_VERSION, cache / "bin")
    build(CLIENT_PACKAGES, OLDEST_CLIENT, cache / OLDEST_CLIENT / "bin")
    build(PEBBLE_PACKAGES, PEBBLE_VERSION, _pebble_folder())
    relying_program()
    if heavy:
        interop_python()
        headscale_program()
    debian_program(*SSHD)


if __name__ == "__main__":
    prepare(heavy="heavy" in sys.argv[1:])
