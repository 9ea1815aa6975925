"""The command that sets a machine up for ssh: what it says, and what it asks of the daemon."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.support.localapi import answered, daemon, peer, status

from doorward.cli import ssh_config
from doorward.cli.app import run

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJzV"


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
        assert capsys.readouterr().out == f"Written: {part}\nWritten: {config}\n"
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
    assert capsys.readouterr().out == f"Removed: {config}\nRemoved: {part}\n"
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


def test_without_a_daemon_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert setup(tmp_path, tmp_path / "none") == 1
    assert "does not answer" in capsys.readouterr().err
