import errno
import fcntl
import os
import stat
from pathlib import Path

import pytest

from doorward.audit.appending import append
from doorward.errors import Unavailable


def test_lines_are_added_and_the_last_one_is_shown(tmp_path: Path) -> None:
    file, seen = tmp_path / "log", []

    def choose(last: bytes) -> list[str]:
        seen.append(last)
        return ["é", "two"]

    append(file, choose)
    append(file, choose)
    assert file.read_text(encoding="utf-8") == "é\ntwo\né\ntwo\n"
    assert seen == [b"", b"two"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("there", "left"),
    [(b"one\ntw", b"one\n"), (b"on", b""), (b"one\n\0\0\0", b"one\n"), (b"one\n\n", b"one\n\n")],
)
def test_what_was_cut_off_in_the_middle_is_removed(tmp_path: Path, there: bytes, left: bytes) -> None:
    file = tmp_path / "log"
    file.write_bytes(there)
    append(file, lambda _: ["new"])
    assert file.read_bytes() == left + b"new\n"


def test_nothing_to_add_changes_nothing_but_what_was_cut_off(tmp_path: Path) -> None:
    file = tmp_path / "log"
    file.write_bytes(b"one\ntw")
    append(file, lambda _: [])
    assert file.read_bytes() == b"one\n"


def test_a_file_that_was_rotated_or_emptied_is_begun_anew(tmp_path: Path) -> None:
    file = tmp_path / "log"
    append(file, lambda _: ["one"])
    file.rename(tmp_path / "log.1")
    append(file, lambda _: ["two"])
    assert (tmp_path / "log.1").read_text() == "one\n"
    assert file.read_text() == "two\n"
    os.truncate(file, 0)
    append(file, lambda _: ["three"])
    assert file.read_text() == "three\n"


def test_the_mode_that_somebody_gave_it_stays(tmp_path: Path) -> None:
    file = tmp_path / "log"
    file.touch(mode=0o640)
    file.chmod(0o640)
    append(file, lambda _: ["one"])
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


def test_what_cannot_be_written_says_why(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "missing" / "log"):
        with pytest.raises(Unavailable, match="cannot be written"):
            append(place, lambda _: ["one"])
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(Unavailable, match="no plain file"):
        append(pipe, lambda _: ["one"])


def test_a_disk_without_room_leaves_nothing_that_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, write = tmp_path / "log", os.write

    def half(handle: int, content: bytes) -> int:
        if len(content) > 4:
            return write(handle, content[:4])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    append(file, lambda _: ["one"])
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", half)
        with pytest.raises(Unavailable, match="No space left"):
            append(file, lambda _: ["a longer line"])
    assert file.read_text() == "one\na longer lin"
    append(file, lambda last: [f"after {last.decode()}"])
    assert file.read_text() == "one\nafter one\n"


def test_while_another_writes_nothing_is_written(tmp_path: Path) -> None:
    file = tmp_path / "log"
    file.write_text("one\n")
    handle = os.open(file, os.O_RDWR)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(Unavailable, match="cannot be written"):
            append(file, lambda _: ["two"])
    finally:
        os.close(handle)
    assert file.read_text() == "one\n"
