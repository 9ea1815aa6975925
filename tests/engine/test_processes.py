import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.processes import gone
from tests.support.waiting import until

from doorward.engine.processes import Backoff, BoundedLog, stop, tied_to_us


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills the children of a process that dies")
async def test_a_child_does_not_outlive_a_parent_that_was_killed() -> None:
    parent_code = textwrap.dedent("""
        import subprocess, sys, time
        from doorward.engine.processes import tied_to_us
        child = subprocess.Popen(tied_to_us(["/bin/sleep", "60"]))
        print(child.pid, flush=True)
        time.sleep(60)
    """)
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", parent_code, stdout=subprocess.PIPE)
    assert parent.stdout is not None
    child = int(await parent.stdout.readline())
    await until(lambda: Path(f"/proc/{child}/comm").read_text() == "sleep\n")
    parent.kill()
    await parent.wait()
    await until(lambda: gone(child))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills the children of a process that dies")
def test_a_child_whose_parent_is_gone_already_does_not_start() -> None:
    command = tied_to_us(["/bin/echo", "started"])
    command[command.index(str(os.getpid()))] = "1"  # somebody else than who really starts it
    answer = subprocess.run(command, capture_output=True, check=False)
    assert answer.returncode == 1
    assert answer.stdout == b""


def test_the_program_gets_its_arguments_and_its_result_is_its_own() -> None:
    command = tied_to_us(["/bin/sh", "-c", 'echo "$1"; exit 7', "sh", "a b"])
    answer = subprocess.run(command, capture_output=True, check=False)
    assert (answer.returncode, answer.stdout) == (7, b"a b\n")


async def _child(code: str) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"up\n"
    return process


async def test_stop_asks_first() -> None:
    process = await _child("import time; print('up', flush=True); time.sleep(60)")
    await stop(process, 5)
    assert process.returncode == -signal.SIGTERM


async def test_stop_makes_a_child_end_that_does_not_listen() -> None:
    process = await _child(
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    )
    await stop(process, 0.05)
    assert process.returncode == -signal.SIGKILL
    await stop(process, 0.05)  # a second time does nothing


def test_the_log_starts_anew_at_its_limit_and_keeps_the_one_before(tmp_path: Path) -> None:
    log = BoundedLog(tmp_path / "log", 10)
    for content in (b"12345", b"67890", b"abc"):
        log.write(content)
    log.close()
    assert (tmp_path / "log").read_bytes() == b"abc"
    assert (tmp_path / "log.1").read_bytes() == b"1234567890"


def test_the_log_goes_on_after_a_restart(tmp_path: Path) -> None:
    for content in (b"123", b"456"):
        log = BoundedLog(tmp_path / "log", 10)
        log.write(content)
        log.close()
    assert (tmp_path / "log").read_bytes() == b"123456"


@given(st.lists(st.binary(max_size=30), max_size=30))
def test_the_log_is_bounded_and_loses_nothing_recent(
    tmp_path_factory: pytest.TempPathFactory, writes: list[bytes]
) -> None:
    folder = tmp_path_factory.mktemp("log")
    log = BoundedLog(folder / "log", 20)
    for content in writes:
        log.write(content)
        assert (folder / "log").stat().st_size <= max(20, len(content))
    log.close()
    assert b"".join(writes).endswith((folder / "log").read_bytes())


def test_backoff_doubles_up_to_its_limit_and_forgets_after_a_steady_life() -> None:
    backoff = Backoff(first=0.5, longest=3, steady=10)
    assert [backoff.after(1) for _ in range(5)] == [0.5, 1, 2, 3, 3]
    assert backoff.quick_deaths == 5
    assert backoff.after(10) == 0
    assert backoff.quick_deaths == 0
    assert backoff.after(1) == 0.5
    assert max(backoff.after(0) for _ in range(5000)) == 3
