"""Programs in Go that only tests use: modules with their locks (``tests/support/golang``), each built once."""

import fcntl
import hashlib
import os
import subprocess
import tempfile
from pathlib import Path

from tests.support.require import missing

from doorward.clock import SystemClock
from doorward.engine import setup
from doorward.engine.programs import ProgramError, cache_folder

_HERE = Path(__file__).parent / "golang"


def relying_program() -> Path:
    """The relying party by go-oidc. Its packages come from the Go module proxy, each checked by its hash."""
    return _program(_HERE, "relying", ".")


def headscale_program() -> Path:
    """Headscale, the same way. It takes minutes the first time."""
    return _program(_HERE / "headscale", "headscale", "github.com/juanfont/headscale/cmd/headscale")


def _program(folder: Path, name: str, package: str) -> Path:
    sources = [*sorted(folder.glob("*.go")), folder / "go.mod", folder / "go.sum"]
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in sources)).hexdigest()[:12]
    program = cache_folder(os.environ) / "golang" / f"{name}-{digest}"
    program.parent.mkdir(parents=True, exist_ok=True)
    with (program.parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another test run may be at it
        if not program.exists():
            _build(folder, package, program)
    return program


def _build(folder: Path, package: str, program: Path) -> None:
    with tempfile.TemporaryDirectory(dir=program.parent) as scratch:
        made = Path(scratch) / program.name
        try:
            work = setup._Work(setup.silent, os.environ, SystemClock())
            go, extra = setup._find_go(work, Path(scratch))
        except ProgramError as error:
            missing(f"Go cannot be had: {error.sentence()}")
        environ = {name: value for name, value in os.environ.items() if name != "GOFLAGS"}
        environ |= {"GOTOOLCHAIN": "local", "CGO_ENABLED": "0"} | extra
        command = [str(go), "build", "-mod=readonly", "-trimpath", "-o", str(made), package]
        done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False)
        if done.returncode:
            missing(f"{program.name} cannot be built: {done.stderr[-1000:]}")
        made.rename(program)
