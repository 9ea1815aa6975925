"""The command that sets a machine up for ssh: what it says, and what it asks of the daemon."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.support.localapi import answered, daemon, peer, status
from tests.support.programs import require

from doorward.cli import ssh_config, ssh_setup
from doorward.cli.app import run

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJzV"


DOOR = "https://door.tail.net:8443"


class Systemd:
    """A program in place of systemctl that notes what it is told."""

    def __init__(self, folder: Path) -> None:
        self.noted = folder / "told"
        self.unit = folder / "xdg" / "systemd" / "user" / ssh_setup.UNIT
        self._program = folder / "bin" / "systemctl"
        self._program.parent.mkdir()

    def answers(self, code: int = 0, *, to: str = "*") -> None:
        """It fails with this code when it is told so."""
        self._program.write_text(
            f'#!/bin/sh\necho "$@" >> "{self.noted}"\ncase "$2" in {to}) exit {code};; esac\n'
        )
        self._program.chmod(0o755)

    def told(self) -> list[str]:
        """What it was told since the last time, without the question whether it runs."""
        lines = self.noted.read_text().splitlines() if self.noted.exists() else []
        self.noted.unlink(missing_ok=True)
        return [line.removeprefix("--user ") for line in lines if "show-environment" not in line]


@pytest.fixture(autouse=True)
def systemd(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Systemd:
    """The machine that runs this test keeps its own session; this one has no systemd until it answers."""
    folder = tmp_path_factory.mktemp("session")
    made = Systemd(folder)
    monkeypatch.setenv("PATH", str(folder / "bin") + ":/usr/bin:/bin")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / "xdg"))
    made.answers(1)
    return made


def running(**changes: Any) -> dict[str, Any]:
    return {"BackendState": "Running", "TUN": True, **status(peer("server.tail.net.", KEY)), **changes}


def setup(folder: Path, socket: Path, *more: str) -> int:
    return run(["ssh", "setup", "--ssh-config", str(folder / "config"), "--socket", str(socket), *more])


def test_it_is_set_up_again_and_taken_away(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, part = tmp_path / "config", tmp_path / "doorward" / "config"
    with daemon(tmp_path, answered(running()), 3) as socket:
        assert setup(tmp_path, socket, "--dry-run") == 0
        assert "+Include" in capsys.readouterr().out
        assert not config.exists()
        assert setup(tmp_path, socket) == 0
        aliases = part.with_name("aliases")
        assert capsys.readouterr().out == f"Written: {part}\nWritten: {aliases}\nWritten: {config}\n"
        made = part.read_text()
        assert made.count("Match host") == 2
        assert "*.tail.net" in made
        assert f'"--socket={socket}"' in made
        assert "ProxyCommand" not in made
        assert setup(tmp_path, socket) == 0
        assert capsys.readouterr().out == "There is nothing to change.\n"
    assert setup(tmp_path, socket, "--remove", "--dry-run") == 0
    assert "-Include" in capsys.readouterr().out
    assert setup(tmp_path, socket, "--remove") == 0
    assert capsys.readouterr().out == f"Removed: {config}\nRemoved: {part}\nRemoved: {aliases}\n"
    assert not config.exists()
    assert setup(tmp_path, socket, "--remove") == 0
    assert capsys.readouterr().out == "There is nothing to change.\n"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (running(BackendState="Stopped"), "this machine is in no tailnet now"),
        (running(BackendState="NeedsLogin", CurrentTailnet=None), "this machine is in no tailnet now"),
        (running(CurrentTailnet={"MagicDNSSuffix": 'a" exec "x'}), "which is no domain"),
        (running(CurrentTailnet={"MagicDNSSuffix": 3}), "something unexpected"),
        (running(TUN=False), "there is no tailscale command"),
    ],
    ids=["stopped", "logged out", "hostile", "nonsense", "user space"],
)
def test_what_it_cannot_work_with_is_said(
    tmp_path: Path,
    answer: Any,
    words: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ssh_config, "find_client", lambda environ: None)
    with daemon(tmp_path, answered(json.loads(json.dumps(answer)))) as socket:
        assert setup(tmp_path, socket) == 1
    assert words in capsys.readouterr().err
    assert not (tmp_path / "config").exists()


@pytest.mark.parametrize(
    ("answer", "words"),
    [(None, "there is no ssh"), ("echo Bad configuration option >&2; exit 255", "is too old to ask")],
)
def test_an_ssh_that_would_refuse_the_whole_configuration_is_left_alone(
    tmp_path: Path,
    answer: str | None,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    if answer is not None:
        (tmp_path / "ssh").write_text(f"#!/bin/sh\n{answer}\n")
        (tmp_path / "ssh").chmod(0o755)
    with daemon(tmp_path, answered(running())) as socket:
        assert setup(tmp_path, socket) == 1
    said = capsys.readouterr().err
    assert words in said
    assert "Install OpenSSH 8.5" in said
    assert not (tmp_path / "config").exists()


def test_without_a_daemon_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert setup(tmp_path, tmp_path / "none") == 1
    assert "does not answer" in capsys.readouterr().err


def with_door(door: object = DOOR) -> dict[str, Any]:
    found = running()
    found["Self"]["CapMap"] = {"doorward:door": [door], "x": None}
    return found


def test_the_service_is_installed_once_and_taken_away(
    tmp_path: Path, systemd: Systemd, capsys: pytest.CaptureFixture[str]
) -> None:
    systemd.answers()
    with daemon(tmp_path, answered(with_door()), 4) as socket:
        assert setup(tmp_path, socket, "--dry-run") == 0
        assert "+ExecStart=" in capsys.readouterr().out
        assert not systemd.unit.exists()
        assert systemd.told() == []
        assert setup(tmp_path, socket, "--no-browser") == 0
        assert not systemd.unit.exists()
        assert setup(tmp_path, socket) == 0
        command = [*ssh_config.program(), "ssh", "browser", f"--door={DOOR}", f"--socket={socket}"]
        line = "ExecStart=" + " ".join(f'"{word}"' for word in command)
        assert line in systemd.unit.read_text().splitlines()
        assert systemd.told() == ["daemon-reload", f"enable {ssh_setup.UNIT}", f"restart {ssh_setup.UNIT}"]
        assert setup(tmp_path, socket) == 0
        assert systemd.told() == []
    capsys.readouterr()
    assert setup(tmp_path, socket, "--remove") == 0
    assert f"Removed: {systemd.unit}" in capsys.readouterr().out
    assert systemd.told() == [f"disable --now {ssh_setup.UNIT}", "daemon-reload"]
    assert not systemd.unit.exists()


def test_a_service_that_does_not_start_is_said(
    tmp_path: Path, systemd: Systemd, capsys: pytest.CaptureFixture[str]
) -> None:
    systemd.answers(1, to="restart")
    with daemon(tmp_path, answered(with_door())) as socket:
        assert setup(tmp_path, socket) == 0
    assert "systemd did not start the service" in capsys.readouterr().err


def test_without_systemd_it_says_what_to_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with daemon(tmp_path, answered(with_door())) as socket:
        assert setup(tmp_path, socket) == 0
    shown = capsys.readouterr().out
    assert (
        f"start this with your session: {' '.join(ssh_config.program())} ssh browser --door={DOOR}" in shown
    )


@pytest.mark.parametrize("door", ['https://x" y', 7, "", "https://a/b c"])
def test_a_door_that_is_none_installs_nothing(
    tmp_path: Path, systemd: Systemd, door: object, capsys: pytest.CaptureFixture[str]
) -> None:
    systemd.answers()
    with daemon(tmp_path, answered(with_door(door))) as socket:
        assert setup(tmp_path, socket) == 0
    assert not systemd.unit.exists()
    assert "session" not in capsys.readouterr().out


@pytest.mark.interop
def test_systemd_understands_the_unit(
    tmp_path: Path, systemd: Systemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    systemd.answers()
    monkeypatch.setattr(ssh_config, "program", lambda: ["/bin/true"])
    with daemon(tmp_path, answered(with_door())) as socket:
        assert setup(tmp_path, socket) == 0
    verify = [str(require("systemd-analyze")), "--user", "verify", str(systemd.unit)]
    runtime = os.environ | {"XDG_RUNTIME_DIR": str(tmp_path)}  # without one it looks at nothing

    def said() -> str:
        done = subprocess.run(verify, capture_output=True, text=True, check=False, timeout=30, env=runtime)
        return "".join(line for line in done.stderr.splitlines() if ssh_setup.UNIT in line)

    assert said() == ""
    systemd.unit.write_text(systemd.unit.read_text() + "Wanted=x\n")
    assert "Unknown key" in said()
