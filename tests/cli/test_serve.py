"""``doorward serve``: the real server starts from the command line, answers the other commands, and stops."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.scripts import run_captured

from doorward.config import Settings


@contextlib.contextmanager
def served(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A server with free ports and no node of its own; gone afterwards, whatever happened."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("DOORWARD_")}
    arguments = ["serve", "--data-dir", str(folder), "--listen", "127.0.0.1:0"]
    with subprocess.Popen(
        [sys.executable, "-m", "doorward", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**environ, "DOORWARD_TAILSCALED": "off"},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def folder() -> Iterator[Path]:
    # In /tmp directly: pytest's folders make paths too long for a socket address.
    with tempfile.TemporaryDirectory(prefix="dw-serve-", dir="/tmp") as name:
        yield Path(name)


def test_it_starts_answers_and_stops(folder: Path) -> None:
    with served(folder) as process:
        assert process.stdout is not None
        ready = process.stdout.readline().split()
        assert ready[0] == "ready"
        assert ready[1].startswith("http://127.0.0.1:")
        at = ["--data-dir", str(folder)]
        assert run_captured(["users", "create", "ann", *at]) == (0, ["Created ann with the role member."], [])
        code, out, _ = run_captured(["status", *at])
        assert code == 0
        assert f"Clients log in at  {ready[1]}" in out
        code, out, _ = run_captured(["tokens", "create", "test", "--role", "auditor", *at])
        remote = ["--server", ready[1], "--token", out[0]]
        assert run_captured(["users", "show", "ann", *remote])[0] == 0
        assert run_captured(["users", "delete", "ann", "--yes", *remote])[0] == 1
        process.send_signal(signal.SIGTERM)
        out_rest, log = process.communicate(timeout=5)
        assert (process.returncode, out_rest) == (0, "")
        assert "Traceback" not in log
    assert run_captured(["users", "list", *at])[0] == 1


def test_what_is_given_reaches_the_server(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Settings] = []

    def taken(settings: Settings) -> int:
        seen.append(settings)
        return 3

    monkeypatch.setattr("doorward.server.app.serve", taken)
    monkeypatch.setenv("DOORWARD_LOG_LEVEL", "error")
    config = folder / "other.toml"
    config.write_text('domain = "example.internal"\nlisten = "127.0.0.1:1"\n')
    line = f"serve --data-dir {folder} --listen 127.0.0.1:7777 --url http://10.0.0.1:7777 --config {config} --log-level debug"
    assert run_captured(line.split())[0] == 3
    (settings,) = seen
    assert (settings.data_dir, settings.listen, settings.url) == (
        folder,
        "127.0.0.1:7777",
        "http://10.0.0.1:7777",
    )
    assert (settings.domain, settings.log.level) == ("example.internal", "debug")


def test_settings_that_cannot_be_are_refused_before_anything_starts(folder: Path) -> None:
    code, out, err = run_captured(["serve", "--data-dir", str(folder), "--url", "http://control.example.com"])
    assert (code, out) == (1, [])
    assert err[0].startswith("doorward: --url: the control address http://control.example.com is http")
    assert err[1].startswith("  Use https")
