"""``serve`` from its settings to its exit code, in a process of its own."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from tests.support.workers import data_folder, settings_in

from doorward.config import encode
from doorward.config.settings import Log, PortSettings, Settings

CODE = """
import sys
from doorward.config import decode
from doorward.errors import DoorwardError
from doorward.server.app import serve
try:
    sys.exit(serve(decode(sys.stdin.buffer.read())))
except DoorwardError as error:
    print(error.sentence(), file=sys.stderr)
    sys.exit(1)
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    with data_folder() as name:
        yield name


@contextlib.contextmanager
def _serving(settings: Settings, **environ: str) -> Iterator[subprocess.Popen[bytes]]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("DOORWARD_")}
    with subprocess.Popen(
        [sys.executable, "-c", CODE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=inherited | environ,
    ) as process:
        assert process.stdin is not None
        process.stdin.write(encode(settings))
        process.stdin.close()
        process.stdin = None
        try:
            yield process
        finally:
            process.kill()


def _ready(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None
    word, url = process.stdout.readline().decode().split()
    assert word == "ready"
    return url


def _generate_204(url: str) -> int:
    return httpx2.get(f"{url}/generate_204", trust_env=False, timeout=10).status_code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_ready_once_serves_and_ends_with_zero(folder: Path, number: signal.Signals) -> None:
    with _serving(settings_in(folder)) as process:
        url = _ready(process)
        assert url.startswith("http://127.0.0.1:")
        # It means what it says: the first request is answered.
        assert _generate_204(url) == 204
        process.send_signal(number)
        out, log = process.communicate(timeout=5)
        assert (process.returncode, out) == (0, b"")
        assert b"Traceback" not in log
    assert not (folder / "doorward.sock").exists()


def test_a_worker_that_is_killed_is_replaced_without_another_ready(folder: Path) -> None:
    with _serving(settings_in(folder)) as process:
        url = _ready(process)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGKILL)
        assert _generate_204(url) == 204
        process.terminate()
        assert process.communicate(timeout=5)[0] == b""
        assert process.returncode == 0


def test_one_data_directory_has_one_server(folder: Path) -> None:
    with _serving(settings_in(folder)) as first:
        url = _ready(first)
        with _serving(settings_in(folder)) as second:
            out, err = second.communicate(timeout=10)
            assert (second.returncode, out) == (1, b"")
            assert b"another doorward serves" in err
            assert b"Stop it" in err
        assert _generate_204(url) == 204
        first.kill()
        first.wait()
    # One that was killed leaves nothing that keeps the next from starting.
    with _serving(settings_in(folder)) as third:
        assert _ready(third) == url


def test_a_port_that_is_taken_is_said_before_anything_starts(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with _serving(settings_in(folder, ports=PortSettings(door=port))) as process:
            out, err = process.communicate(timeout=10)
    assert (process.returncode, out) == (1, b"")
    assert f"something else listens on 127.0.0.1 port {port}".encode() in err
    assert not (folder / "doorward.db").exists()


def test_what_keeps_the_worker_from_serving_is_the_exit_code_and_said_once(folder: Path) -> None:
    (folder / "noise.key").write_text("privkey:" + "11" * 31 + "\n")
    (folder / "noise.key").chmod(0o600)
    with _serving(settings_in(folder)) as process:
        out, err = process.communicate(timeout=40)
    assert (process.returncode, out) == (1, b"")
    assert err.count(b"not a key of the form privkey:") == 1
    assert b"1111" not in err
    assert b"doorward did not start" in err


def test_variables_that_mean_nothing_are_named_and_the_log_has_the_form_that_was_asked_for(
    folder: Path,
) -> None:
    settings = settings_in(folder, log=Log(level="warning", json=True))
    with _serving(settings, DOORWARD_RELAY_ENABELD="false") as process:
        _ready(process)
        process.terminate()
        _, log = process.communicate(timeout=30)
    # Where the first owner's link is, is told to people; the log is what is left.
    (line,) = [one for one in log.decode().splitlines() if not one.startswith("doorward: nobody can sign in")]
    assert line.startswith("{")
    assert "DOORWARD_RELAY_ENABELD" in line
