"""Secrets are files of mode 0600 beside the database, one each: a copy of the database then gives none of them away."""

import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

from doorward.errors import Unavailable

LARGEST = 64 << 10  # bytes; a secret is a key or a few


def load_or_create(path: Path, make: Callable[[], str]) -> str:
    """The secret in the file; where there is no file it is made once, and every process gets the same.

    The file appears complete or not at all, with mode 0600 from its first moment, whatever the umask. Raises
    Unavailable, never naming the content, for a file that others may read, that belongs to another user, that is
    empty or no plain file, and where it cannot be read or made.
    """
    try:
        return _read(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise _failure(path, "read", error) from None
    try:
        _create(path, make())
        return _read(path)
    except OSError as error:
        raise _failure(path, "created", error) from None


def _failure(path: Path, act: str, error: OSError) -> Unavailable:
    return Unavailable(
        f"the secret file {path} cannot be {act}: {error.strerror}",
        cure="Check that its folder exists and that doorward may write there.",
    )


def _create(path: Path, text: str) -> None:
    """Write a file under another name, then link it: the link fails if another process was first, whose secret wins."""
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600, O_EXCL
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(partial, path)
        except FileExistsError:
            return
    finally:
        os.unlink(partial)  # noqa: PTH108 - it was never a Path
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)  # or a power cut could lose the name of a key that was handed out already
    finally:
        os.close(folder)


def _read(path: Path) -> str:
    # Looked at through the open file, so that what is judged is what is read. Not blocking, or a pipe would hang us.
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(handle, encoding="utf-8") as file:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise Unavailable(f"{path} should be a file with a secret, but is no plain file")
        if found.st_mode & 0o077:
            raise Unavailable(
                f"the secret file {path} can be read by others (mode {stat.S_IMODE(found.st_mode):04o})",
                cure=f"Make sure nobody has read it, then run: chmod 600 {path}",
            )
        if found.st_uid not in {os.geteuid(), 0}:
            raise Unavailable(
                f"the secret file {path} belongs to another user (uid {found.st_uid})",
                cure=f"Make it yours, or run doorward as its owner: chown {os.geteuid()} {path}",
            )
        try:
            text = file.read(LARGEST + 1).strip()
        except UnicodeDecodeError:
            raise Unavailable(
                f"the secret file {path} does not hold text",
                cure="Restore it from a backup; remove it only if a new secret may take its place.",
            ) from None
    if not text or len(text) > LARGEST:
        raise Unavailable(
            f"the secret file {path} is {'too large' if text else 'empty'}",
            cure="Restore it from a backup; remove it only if a new secret may take its place.",
        )
    return text
