"""The private daemon: a real one that is started, killed, found orphaned, and told to log in where nobody answers."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.clients import StockClient
from tests.support.processes import gone
from tests.support.programs import OLDEST_CLIENT, require_client
from tests.support.waiting import until

from doorward.clock import SystemClock
from doorward.engine.base import EngineError
from doorward.engine.programs import ClientPaths
from doorward.engine.tailscaled import PrivateDaemon, find_host_daemon

pytestmark = pytest.mark.interop


def _daemon(folder: Path, version: str | None = None) -> PrivateDaemon:
    client = ClientPaths(*require_client(version))
    return PrivateDaemon(client, folder, hostname="doorward", clock=SystemClock(), environ=os.environ)


@contextlib.asynccontextmanager
async def _running(daemon: PrivateDaemon) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(daemon.run())
        try:
            await _ready(daemon)
            yield
        finally:
            task.cancel()
    await daemon.close()


async def _ready(daemon: PrivateDaemon) -> None:
    async with asyncio.timeout(10):
        while not await _answers(daemon):  # noqa: ASYNC110 - it answers or it does not
            await asyncio.sleep(0.02)


async def _answers(daemon: PrivateDaemon) -> bool:
    try:
        return (await daemon.status()).backend_state == "NeedsLogin"
    except EngineError:
        return False


def _proc(pid: int | None, name: str) -> bytes:
    return Path(f"/proc/{pid}/{name}").read_bytes()


@pytest.mark.parametrize("version", [None, OLDEST_CLIENT])
async def test_it_runs_in_user_space_and_ends_with_us(tmp_path: Path, version: str | None) -> None:
    daemon = _daemon(tmp_path, version)
    async with _running(daemon):
        pid = daemon.pid
        assert pid is not None
        assert (await daemon.status()).tun is False
        assert daemon.device == ""
        command = _proc(pid, "cmdline").split(b"\0")
        assert Path(os.fsdecode(command[0])).name == "tailscaled"
        assert b"--tun=userspace-networking" in command
        assert (tmp_path / "tailscaled").stat().st_mode & 0o777 == 0o700
    assert gone(pid)
    assert daemon.pid is None
    assert "userspace" in daemon.log_file.read_text()


async def test_it_is_started_again_when_it_dies(tmp_path: Path) -> None:
    daemon = _daemon(tmp_path)
    async with _running(daemon):
        first = daemon.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await until(lambda: daemon.pid not in {None, first}, 5)
        await _ready(daemon)


async def test_it_does_not_outlive_a_doorward_that_is_killed(tmp_path: Path) -> None:
    script = (
        "import asyncio, sys; from pathlib import Path; from tests.engine.test_tailscaled import _daemon, _running\n"
        "async def main():\n"
        "    daemon = _daemon(Path(sys.argv[1]))\n"
        "    async with _running(daemon):\n"
        "        print(daemon.pid, flush=True)\n"
        "        await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    root = Path(__file__).parents[2]
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, str(tmp_path), stdout=asyncio.subprocess.PIPE, cwd=root
    )
    assert parent.stdout is not None
    pid = int(await parent.stdout.readline())
    assert not gone(pid)
    parent.kill()
    await parent.wait()
    await until(lambda: gone(pid))


async def test_a_socket_left_behind_and_a_long_path_do_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, runtime = tmp_path / ("d" * 120), tmp_path / "run"
    runtime.mkdir()
    folder.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    for _ in range(2):
        daemon = _daemon(folder)
        async with _running(daemon):
            assert daemon.api.socket.is_relative_to(runtime)
            pid = daemon.pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            await until(lambda pid=pid: gone(pid))  # type: ignore[misc]


async def test_a_folder_that_another_daemon_uses_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("doorward.engine.tailscaled.STOP_PATIENCE", 0.1)
    first = _daemon(tmp_path)
    async with _running(first):
        second = _daemon(tmp_path)
        with pytest.raises(EngineError, match="another tailscaled uses") as refused:
            await second.run()
        assert refused.value.cure
        await second.close()
        assert await _answers(first)


async def test_a_daemon_that_is_still_going_is_waited_for(tmp_path: Path) -> None:
    first, second = _daemon(tmp_path), _daemon(tmp_path)
    async with asyncio.TaskGroup() as group:
        async with _running(first):
            task = group.create_task(second.run())
            await asyncio.sleep(0.2)
            assert second.pid is None
        await until(lambda: second.pid is not None)
        task.cancel()
    await second.close()


async def test_a_login_nobody_answers_is_an_error_with_the_log_s_place(tmp_path: Path) -> None:
    daemon, asked = _daemon(tmp_path), []

    async def key() -> str:
        asked.append(1)
        return "secret-key"

    async with _running(daemon):
        with pytest.raises(EngineError, match="did not come up") as failed:
            await daemon.up("http://127.0.0.1:9", key, within=1.5)
        prefs = await daemon.api.prefs()
    assert asked == [1]
    assert str(daemon.log_file) in failed.value.cure
    assert "secret-key" not in failed.value.message + failed.value.cure + daemon.log_file.read_text()
    assert prefs["ControlURL"] == "http://127.0.0.1:9"
    assert (prefs["WantRunning"], prefs["CorpDNS"], prefs["ShieldsUp"]) == (True, False, False)
    assert prefs["Hostname"] == "doorward"


async def test_the_host_s_daemon_serves_only_when_it_is_logged_in_with_us(tmp_path: Path) -> None:
    assert await find_host_daemon("http://127.0.0.1:1", tmp_path / "none") is None
    async with StockClient("host") as client:
        assert await find_host_daemon("http://127.0.0.1:1", client.socket) is None


async def test_our_own_debug_variables_do_not_reach_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TS_DEBUG_ALWAYS_USE_DERP", "1")
    daemon = _daemon(tmp_path)
    async with _running(daemon):
        assert b"PATH=" in _proc(daemon.pid, "environ")
        assert b"TS_DEBUG" not in _proc(daemon.pid, "environ")
