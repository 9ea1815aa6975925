"""The Python environment of clients that are too large for the tests' own, made once from ``requirements/interop.txt``."""

import fcntl
import hashlib
import os
import subprocess
import sys
from pathlib import Path

from tests.support.require import missing

from doorward.engine.programs import cache_folder

LOCK = Path(__file__).parents[2] / "requirements" / "interop.txt"


def interop_python() -> Path:
    """Its interpreter. Every package is checked by its hash; that takes a minute the first time."""
    digest = hashlib.sha256(LOCK.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder = cache_folder(os.environ) / f"interop-{digest}"
    python, whole = folder / "bin" / "python", folder / ".whole"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f".{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another test run may be at it
        if not whole.exists():
            uv = [sys.executable, "-m", "uv"]
            _run([*uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)])
            _run([*uv, "pip", "sync", "--quiet", "--require-hashes", "--python", str(python), str(LOCK)])
            whole.touch()
    return python


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        missing(f"the environment of large clients cannot be made: {done.stderr[-1000:]}")
