"""A file of lines that grows: it keeps whole lines only, whoever writes or rotates it, and whatever dies meanwhile.

It is opened anew for each addition, so that one that was renamed or emptied meanwhile does not matter.
"""

import fcntl
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

from doorward.errors import Unavailable

_LONGEST = 4 << 20  # bytes of a last line that is looked at; an event has a few hundred


def append(path: Path, choose: Callable[[bytes], Sequence[str]]) -> None:
    """Write lines at the end and wait for the disk. ``choose`` is given the last line there is (empty: none) and says which.

    What is behind the last end of a line was cut off in the middle, by a crash or a full disk, and is removed. A new file is
    for its owner alone. Raises Unavailable, and then no part of a line stays that the next call does not remove.
    """
    try:
        handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY, 0o600)
    except OSError as error:
        raise _failure(path, error) from None
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise Unavailable(
                f"{path} is no plain file", cure="Give the path of a file, or of one to be made."
            )
        # One who waits for another's disk is no better off than one who tries again: it does not block.
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        lines = choose(_last_line(handle))
        content = "".join(f"{line}\n" for line in lines).encode()
        while content:
            content = content[os.write(handle, content) :]
        if lines:
            os.fsync(handle)
    except OSError as error:
        raise _failure(path, error) from None
    finally:
        os.close(handle)


def _last_line(handle: int) -> bytes:
    size = os.fstat(handle).st_size
    start = max(0, size - _LONGEST)
    content = os.pread(handle, size - start, start)
    whole = content.rfind(b"\n") + 1
    if whole < len(content) and (whole or not start):
        os.ftruncate(handle, start + whole)
    return content[:whole].rstrip(b"\n").rpartition(b"\n")[2]


def _failure(path: Path, error: OSError) -> Unavailable:
    return Unavailable(
        f"{path} cannot be written: {error.strerror}",
        cure="Check its folder, its owner, and the room on its disk.",
    )
