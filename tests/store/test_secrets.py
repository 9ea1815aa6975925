import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from doorward.errors import Unavailable
from doorward.store.secrets import LARGEST, load_or_create

RACER = """
import secrets, sys
from pathlib import Path
from doorward.store.secrets import load_or_create
print("ready", flush=True)
sys.stdin.readline()
for number in range(200):
    print(load_or_create(Path(sys.argv[1]) / str(number), lambda: secrets.token_hex(16)))
"""


def never() -> str:
    raise AssertionError("a secret that is there is not made again")


def test_a_secret_is_made_once(tmp_path: Path) -> None:
    path = tmp_path / "noise.key"
    assert load_or_create(path, lambda: "privkey:1") == "privkey:1"
    assert load_or_create(path, never) == "privkey:1"
    assert [path.name for path in tmp_path.iterdir()] == ["noise.key"]


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_only_its_owner_may_read_it_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        load_or_create(tmp_path / "key", lambda: "x")
    finally:
        os.umask(before)
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o644, 0o620, 0o777])
def test_a_file_that_others_may_touch_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key"
    path.write_text("hush\n")
    path.chmod(mode)
    with pytest.raises(Unavailable) as caught:
        load_or_create(path, never)
    assert f"chmod 600 {path}" in caught.value.cure
    assert "hush" not in caught.value.sentence() + caught.value.detail
    path.chmod(0o400)
    assert load_or_create(path, never) == "hush"


@pytest.mark.parametrize(
    ("content", "word"), [("", "empty"), (" \n", "empty"), ("x" * (LARGEST + 1), "large")]
)
def test_a_file_without_a_secret_is_refused_and_kept(tmp_path: Path, content: str, word: str) -> None:
    path = tmp_path / "key"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(Unavailable, match=word):
        load_or_create(path, never)
    assert path.read_text() == content


def test_what_is_no_plain_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(Unavailable, match="no plain file"):
        load_or_create(tmp_path / "pipe", never)
    with pytest.raises(Unavailable):
        load_or_create(tmp_path, never)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.root
def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("x")
    path.chmod(0o600)
    os.chown(path, 4711, 4711)
    with pytest.raises(Unavailable, match="another user"):
        load_or_create(path, never)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="cannot be created") as caught:
        load_or_create(tmp_path / "nowhere" / "key", lambda: "x")
    assert caught.value.cure


def test_a_maker_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> str:
        raise RuntimeError("no entropy")

    with pytest.raises(RuntimeError):
        load_or_create(tmp_path / "key", fail)
    assert [path.name for path in tmp_path.iterdir()] == []


def test_many_threads_get_the_same_secret(tmp_path: Path) -> None:
    start = threading.Barrier(8)
    got: list[str] = []

    def race(number: int) -> None:
        def make() -> str:
            start.wait()  # every thread has seen that there is no file
            return f"secret {number}"

        got.append(load_or_create(tmp_path / "key", make))

    threads = [threading.Thread(target=race, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 8
    assert set(got) == {(tmp_path / "key").read_text().strip()}
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_two_processes_get_the_same_secrets(tmp_path: Path) -> None:
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for racer in racers:
        assert racer.stdout
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin
        racer.stdin.write("go\n")
        racer.stdin.flush()
    first, second = (racer.communicate(timeout=30)[0].splitlines() for racer in racers)
    assert [racer.returncode for racer in racers] == [0, 0]
    assert len(first) == 200
    assert first == second
