"""Processes that tests did not start themselves, looked at from outside (Linux)."""

from pathlib import Path


def gone(pid: int | str) -> bool:
    """Whether a process has ended; also one whose new parent has not taken notice of it yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True
