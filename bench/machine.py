"""What the kernel says of processes and of the machine."""

import os
import platform
import re
import resource
import ssl
from importlib.metadata import version
from pathlib import Path

from tests.support.programs import require
from tests.support.require import Missing

from doorward.engine.programs import version_of

CORES = sorted(os.sched_getaffinity(0))


class Process:
    """What the kernel says of a process."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def cpu(self) -> float:
        """CPU seconds so far, user and system, of the threads that live: to the nanosecond, where ``stat`` has hundredths."""
        threads = Path(f"/proc/{self.pid}/task").iterdir()
        return (
            sum(int((thread / "schedstat").read_text(encoding="ascii").split()[0]) for thread in threads)
            / 1e9
        )

    def kilobytes(self) -> float:
        """Resident kilobytes."""
        pages = Path(f"/proc/{self.pid}/statm").read_text(encoding="ascii").split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE") / 1024

    def memory(self) -> int:
        """Resident megabytes."""
        return int(self.kilobytes() / 1024)

    def pin(self, core: int) -> None:
        """Keep all its threads on one core."""
        for thread in Path(f"/proc/{self.pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), {core})


def lift_limits() -> None:
    """As many open files as one may have."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def processor() -> str:
    """What the machine calls its processor."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def about() -> list[str]:
    """The machine and the programs, without its name or any path of it."""
    kernel = platform.release().split("-")[0]
    programs = ", ".join(map(_version, ("derper", "tailscaled")))
    python = f"Python {platform.python_version()}, uvloop {version('uvloop')}, {ssl.OPENSSL_VERSION}"
    return [f"{len(CORES)} cores of {processor()}, {platform.system()} {kernel}, {python}, {programs}."]


def _version(name: str) -> str:
    try:
        program = require(name)
    except Missing:
        return f"no {name}"
    found, built = version_of(program), re.search(rb"go1\.\d+(\.\d+)?", program.read_bytes())
    return f"{name} {'.'.join(map(str, found or ('unknown',)))} ({built[0].decode() if built else 'Go'})"
