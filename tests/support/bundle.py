"""The console's pages as people get them, for tests that load them: built where they are missing or older than what they are made of."""

import fcntl
import os
import sys
from pathlib import Path

from doorward.console.bundle import STATIC

ROOT = Path(__file__).parent.parent.parent
WEB = ROOT / "web"
_SOURCES = ("package-lock.json", "vite.config.ts", "vite.compress.ts")


def built() -> Path:
    """The folder of the bundle, current."""
    manifest = STATIC / ".vite" / "manifest.json"
    with (WEB / ".building").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several tests at once
        if not manifest.exists() or manifest.stat().st_mtime < _newest():
            sys.path.insert(0, str(ROOT))
            try:
                from hatch_build import build  # noqa: PLC0415 - at the repository's root
            finally:
                sys.path.remove(str(ROOT))
            build(ROOT)
            os.utime(manifest)
    return STATIC


def _newest() -> float:
    sources = [*(WEB / "src").rglob("*"), *(WEB / name for name in _SOURCES)]
    return max(path.stat().st_mtime for path in sources if path.is_file())
