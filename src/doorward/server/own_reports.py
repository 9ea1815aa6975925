"""What is said of doorward's own node by those who look after it, for every worker to read. Loads little.

::

    parent: runs the daemon ──▶ daemon.json  what keeps it from running     ─┐
    the worker that has the lock: logs it in ──▶ login.json  how that went   ├─▶ every worker reads both, and asks the
    the daemon itself ──▶ LocalAPI on its Unix socket                       ─┘   daemon whose a connection is

Both files lie in ``DATA_DIR/tailscaled``, and each has one writer. The parent starts without them: what an earlier run
said is over.
"""

import os
from pathlib import Path
from typing import Literal

import msgspec

from doorward.errors import DoorwardError

HOSTNAME = "doorward"  # what the node calls itself
FOLDER = "tailscaled"  # below the data directory; the daemon's, too


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What one of those who look after the node says of it."""

    state: Literal["running", "off", "failing"]
    text: str = ""
    cure: str = ""

    @classmethod
    def failure(cls, error: BaseException, again_in: float) -> "Report":
        """What went wrong, and that it is tried again."""
        reason, cure = str(error), ""
        if isinstance(error, DoorwardError):
            reason, cure = error.message, error.cure
        cure = cure or f"It is tried again every {again_in:.0f} s; doorward's log has more."
        return cls(state="failing", text=reason, cure=cure)


class Reports:
    """The file of one writer."""

    def __init__(self, data_dir: Path, name: Literal["daemon", "login"]) -> None:
        self._file = data_dir / FOLDER / f"{name}.json"

    def write(self, report: Report) -> None:
        """Say it; readers see all of it or what was before."""
        fresh = self._file.with_suffix(f".{os.getpid()}")
        fresh.write_bytes(msgspec.json.encode(report))
        fresh.replace(self._file)

    def read(self) -> Report | None:
        """What was said last; None when nothing was, or nothing that can be read."""
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=Report)
        except (OSError, msgspec.MsgspecError):
            return None

    def forget(self) -> None:
        """Remove what an earlier run said."""
        self._file.unlink(missing_ok=True)


def forget(data_dir: Path) -> None:
    """Remove what an earlier ``serve`` said; to be done before the first worker starts."""
    Reports(data_dir, "daemon").forget()
    Reports(data_dir, "login").forget()
