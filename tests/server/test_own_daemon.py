"""The parent's daemon: what keeps it from running is written down; what runs it is left to ``test_own_node``."""

import asyncio
import os
from pathlib import Path

import pytest
from tests.support.waiting import until
from tests.support.workers import settings_in

from doorward.clock import SystemClock
from doorward.server import own_daemon
from doorward.server.own_reports import FOLDER, Report, Reports


async def said(folder: Path, **environ: str) -> Report | None:
    """What is said of a daemon that never runs."""
    settings = settings_in(folder, tailscaled=environ.pop("tailscaled", ""))
    async with asyncio.timeout(10):
        await own_daemon.keep(settings, environ, SystemClock())
    return Reports(folder, "daemon").read()


async def test_switched_off_nothing_happens(tmp_path: Path) -> None:
    assert await said(tmp_path, tailscaled="off") is None
    assert not (tmp_path / FOLDER).exists()


async def test_a_machine_without_the_program_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("doorward.engine.programs._SYSTEM_FOLDERS", ())
    report = await said(tmp_path, PATH=str(tmp_path), HOME=str(tmp_path), XDG_CACHE_HOME=str(tmp_path))
    assert report is not None
    assert report.state == "off"
    assert "doorward setup client" in report.cure


async def test_a_program_that_is_not_there_is_a_fault(tmp_path: Path) -> None:
    report = await said(tmp_path, tailscaled=str(tmp_path / "none"))
    assert report is not None
    assert report.state == "failing"
    assert str(tmp_path / "none") in report.text


async def test_a_daemon_that_cannot_be_started_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_daemon, "RETRY", 0.05)
    program = tmp_path / "bin" / "tailscaled"
    program.parent.mkdir()
    for name in ("tailscaled", "tailscale"):
        file = program.with_name(name)
        file.write_text("#!/bin/sh\necho 1.102.4\n")
        file.chmod(0o755)
    blocked = tmp_path / FOLDER / "tailscaled.log"
    blocked.mkdir(parents=True)  # so that its log cannot be opened
    settings = settings_in(tmp_path, tailscaled=str(program))
    reports = Reports(tmp_path, "daemon")
    async with asyncio.TaskGroup() as group:
        keeping = group.create_task(own_daemon.keep(settings, os.environ, SystemClock()))
        await until(lambda: (found := reports.read()) is not None and found.state == "failing", 10)
        found = reports.read()
        assert found is not None
        assert "tailscaled.log" in found.text
        assert found.cure
        blocked.rmdir()
        await until(blocked.is_file, 10)  # it was tried again, and its log could be opened
        keeping.cancel()
