"""doorward's own node: says why it is off, survives what its daemon does, and is on the tailnet again by itself."""

import asyncio
import contextlib
import os
import signal
import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.openssh import run
from tests.support.programs import require_client
from tests.support.waiting import eventually, until
from tests.support.workers import Working, data_folder, settings_in, working
from tests.support.world import open_world

from doorward.clock import SystemClock
from doorward.config import Settings
from doorward.engine import tailscaled
from doorward.server import own_daemon, own_node
from doorward.server.own_node import OwnNode


@pytest.fixture
def folder() -> Iterator[Path]:
    with data_folder() as name:
        yield name


@contextlib.asynccontextmanager
async def _running(settings: Settings, folder: Path) -> AsyncIterator[OwnNode]:
    async with open_world(folder) as world, asyncio.TaskGroup() as group:
        node = OwnNode(settings, world.registry)
        daemon = group.create_task(own_daemon.keep(settings, os.environ, SystemClock()))
        task = group.create_task(node.run())
        yield node
        task.cancel()
        daemon.cancel()


def _nowhere(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """A machine without a stock client."""
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    monkeypatch.setattr("doorward.engine.programs._SYSTEM_FOLDERS", ())


def _program(folder: Path, text: str) -> Path:
    """A daemon that is new enough, says a shell script, and does what it says."""
    (folder / "bin").mkdir()
    for name in ("tailscaled", "tailscale"):
        file = folder / "bin" / name
        file.write_text(f'#!/bin/sh\ncase "$1" in --version) echo 1.102.4; exit;; esac\n{text}\n')
        file.chmod(0o755)
    return folder / "bin" / "tailscaled"


async def test_switched_off_it_says_by_what(folder: Path) -> None:
    async with _running(settings_in(folder), folder) as node:
        await until(lambda: node.part().text != "starting")
        assert (node.part().state, node.part().text) == ("off", "switched off in the settings")
        (finding,) = node.findings()
        assert (finding.level, finding.cure) == ("warning", 'Remove `tailscaled = "off"` from the settings.')


async def test_without_a_client_it_says_how_to_get_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _nowhere(monkeypatch, folder)
    async with _running(settings_in(folder, tailscaled=""), folder) as node:
        await until(lambda: node.part().text != "starting")
        assert node.part().state == "off"
        assert "doorward setup client" in node.part().cure


async def test_a_daemon_that_is_not_one_is_named(folder: Path) -> None:
    async with _running(settings_in(folder, tailscaled=str(folder / "nothing")), folder) as node:
        await until(lambda: node.part().state == "failing")
        assert str(folder / "nothing") in node.part().text
        (finding,) = node.findings()
        assert finding.level == "error"
        assert finding.cure


async def test_nobody_is_known_before_there_is_a_daemon(folder: Path) -> None:
    async with open_world(folder) as world:
        node = OwnNode(settings_in(folder, tailscaled=""), world.registry)
        assert node.part().text == "starting"
        assert await node.identify(("127.0.0.1", 1), ("127.0.0.1", 2)) is None


async def test_nobody_is_known_while_the_daemon_starts(folder: Path) -> None:
    daemon = _program(folder, "exec sleep 30")
    async with _running(settings_in(folder, tailscaled=str(daemon)), folder) as node:
        await until(lambda: node._engine is not None)
        assert await node.identify(("127.0.0.1", 1), ("127.0.0.1", 2)) is None
        assert await node.identify(None, None) is None
        assert await node.identify(("100.64.0.1", 1), ("127.0.0.1", 2)) is None


async def test_a_daemon_that_never_comes_up_is_a_fault_of_this_part_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tailscaled, "START_PATIENCE", 0.2)
    monkeypatch.setattr(own_node, "RETRY", 0.05)
    daemon = _program(folder, "exit 1")
    async with _running(settings_in(folder, tailscaled=str(daemon)), folder) as node:
        await until(lambda: node.part().state == "failing")
        assert "did not come up" in node.part().text
        assert "log" in node.part().cure


async def test_a_folder_that_another_daemon_uses_does_not_end_the_server(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tailscaled, "STOP_PATIENCE", 0.2)
    daemon = _program(folder, "exec sleep 30")
    settings = settings_in(folder / "d", tailscaled=str(daemon))
    (folder / "d" / "tailscaled").mkdir(parents=True)

    async def nothing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    other = await asyncio.start_unix_server(nothing, folder / "d" / "tailscaled" / "tailscaled.sock")
    async with other, working(settings) as running:

        async def says_so() -> bool:
            return "another tailscaled uses" in (await _part(running))["text"]

        await eventually(says_so)
        async with running.public() as client:
            assert (await client.get("/generate_204")).status_code == 204


async def _part(running: Working) -> dict[str, Any]:
    parts = (await running.ask("GET", "/status"))["parts"]
    found: dict[str, Any] = next(part for part in parts if part["name"] == "own node")
    return found


async def _up(running: Working) -> str:
    """The address of the node, once it is up."""
    found = ""

    async def is_up() -> bool:
        nonlocal found
        part = await _part(running)
        found = part["text"].split(",")[0]
        return bool(part["state"] == "running")

    await eventually(is_up, 20)
    return found


@pytest.mark.interop
async def test_with_the_real_daemon_it_joins_and_is_the_same_node_after_everything(
    folder: Path,
) -> None:
    require_client()
    settings = settings_in(folder, tailscaled="")
    async with working(settings) as running:
        address = await _up(running)
        assert (await running.ask("GET", "/doctor"))[-1]["level"] == "ok"
        assert await running.ask("GET", "/nodes") == []  # it is not one of the people's
    async with working(settings) as running:
        assert await _up(running) == address
    # The daemon's state is lost: another client, the same node.
    for file in (folder / "tailscaled").glob("tailscaled.state*"):
        file.unlink()
    async with working(settings) as running:
        assert await _up(running) == address
        events = await running.ask("GET", "/audit")
    with sqlite3.connect(folder / "doorward.db") as database:
        assert database.execute("SELECT name FROM nodes").fetchall() == [("doorward",)]
    database.close()
    actions = [event["action"] for event in events if event["action"].startswith("node.")]
    assert sorted(actions) == ["node.reauthenticate", "node.register"]


def _daemon_of(folder: Path) -> int:
    """The process id of the daemon that keeps its state there."""
    for name in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            line = (name / "cmdline").read_bytes().split(b"\0")
            if line[0].endswith(b"tailscaled") and f"--statedir={folder / 'tailscaled'}".encode() in line:
                return int(name.name)
    return 0


@pytest.mark.interop
async def test_the_real_daemon_killed_or_logged_out_comes_back(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = require_client()
    monkeypatch.setattr(own_node, "LOOK", 0.2)
    # So often looked at, the daemon may be told to log in while it still logs out, and forget that it was told.
    monkeypatch.setattr(own_node, "PATIENCE", 2.0)
    monkeypatch.setattr(own_node, "RETRY", 0.2)
    async with working(settings_in(folder, tailscaled="")) as running:
        await _up(running)
        killed = _daemon_of(folder)
        os.kill(killed, signal.SIGKILL)
        await until(lambda: _daemon_of(folder) not in {0, killed})
        logout = [str(client.tailscale), f"--socket={folder / 'tailscaled' / 'tailscaled.sock'}", "logout"]

        async def is_out() -> bool:
            done = await run(logout, check=False)  # refused until the new daemon is up
            return done.returncode == 0

        await eventually(is_out)

        async def is_back() -> bool:
            events = await running.ask("GET", "/audit")
            actions = [event["action"] for event in events if event["action"].startswith("node.")]
            return actions == ["node.reauthenticate", "node.logout", "node.register"]

        await eventually(is_back, 20)
        await _up(running)
    assert _daemon_of(folder) == 0
