"""The ssh configuration: as ssh itself reads it, and what of a person's own is left."""

import os
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.programs import require
from tests.support.world import World

from doorward.cli import ssh_config
from doorward.cli.connection import Target
from doorward.cli.ssh_config import Change
from doorward.errors import BadInput, DoorwardError, NotPermitted, Unavailable

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJzV"
MINE = "Host alias\n    HostName server.tail.net\n\nHost *\n    StrictHostKeyChecking no\n    Port 22\n"


class Machine:
    """A configuration in a folder, with a program in place of doorward that knows one node and notes what it is asked."""

    def __init__(
        self, folder: Path, text: str = "", proxy: Path | None = None, name: str = "door ward"
    ) -> None:
        self.program = folder / name
        self.asked = folder / "asked"
        self.program.write_text(
            f'#!/bin/sh\necho "$@" >> "{self.asked}"\nfor host; do :; done\n'
            'case "$host $4" in "server "* | "server.tail.net "* | "100.64.0.2 "*) exit 0;; esac\nexit 1\n'
        )
        self.program.chmod(0o755)
        self.config = folder / "config"
        ours = folder / "doorward"
        ours.mkdir()
        for part, aliases in (("config", False), ("aliases", True)):
            made = ssh_config.fragment(
                [str(self.program)], folder / "a%h socket", "tail.net", proxy, aliases=aliases
            )
            (ours / part).write_text(made)
        self.config.write_text(ssh_config.with_includes(text, ours))

    def reads(self, *host: str) -> dict[str, str]:
        """What ssh makes of it for a host."""
        command = [str(require("ssh")), "-T", "-G", "-F", str(self.config), *host]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
        assert done.stderr == ""
        return dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)


@pytest.mark.parametrize("host", ["server", "server.tail.net", "100.64.0.2", "alias", "me@server"])
def test_a_node_with_keys_is_trusted_by_them_alone(tmp_path: Path, host: str) -> None:
    machine = Machine(tmp_path, MINE)
    read = machine.reads(host)
    # Where an alias is told of by its owner's own words, those stand; its keys are the node's all the same.
    assert read["stricthostkeychecking"] == ("false" if host == "alias" else "true")
    assert (read["userknownhostsfile"], read["globalknownhostsfile"]) == ("/dev/null", "/dev/null")
    assert read["updatehostkeys"] == "false"
    assert read["knownhostscommand"] == (
        f'"{machine.program}" "ssh" "known-hosts" "--socket={tmp_path}/a%%h socket" "--" "%H"'
    )
    name = {"alias": "server.tail.net", "me@server": "server"}.get(host, host)
    *others, asked = machine.asked.read_text().splitlines()
    assert len(others) == (host == "alias")  # who is called what they are is not asked about twice
    assert asked == f"ssh known-hosts --socket={tmp_path}/a%h socket --quiet --port=22 -- {name}"


@pytest.mark.parametrize("host", ["laptop", "github.com", "other.tail.net", "100.64.0.3", "::1"])
def test_any_other_host_is_left_as_it_was(tmp_path: Path, host: str) -> None:
    machine = Machine(tmp_path, MINE)
    bare = tmp_path / "bare"
    bare.write_text(MINE)
    now = machine.reads(host)
    machine.config = bare
    assert machine.reads(host) == now
    assert machine.asked.exists() == (host not in {"github.com", "::1"})


def test_another_port_is_said_to_the_program(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.reads("-p", "2222", "server")
    assert " --port=2222 -- server" in machine.asked.read_text()


def test_in_user_space_it_connects_through_the_daemon(tmp_path: Path) -> None:
    machine = Machine(tmp_path, proxy=tmp_path / "tail scale")
    assert machine.reads("server")["proxycommand"] == (
        f"'{tmp_path}/tail scale' '--socket={tmp_path}/a%%h socket' nc %h %p"
    )
    assert "proxycommand" not in machine.reads("laptop")


@pytest.mark.parametrize("host", ["x';touch hit;'", "$(touch hit)", "`touch hit`", "x;touch hit", "a b|c"])
def test_a_hostile_host_runs_nothing(tmp_path: Path, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # An ssh since 9.6 refuses such names itself; what else it says does not matter here.
    monkeypatch.chdir(tmp_path)
    machine = Machine(tmp_path)
    renamed = ssh_config.with_includes("Host *\n    HostName server\n", tmp_path / "doorward")
    for config in (machine.config.read_text(), renamed):
        machine.config.write_text(config)
        subprocess.run(
            [str(require("ssh")), "-G", "-F", str(machine.config), host],
            capture_output=True,
            check=False,
            timeout=20,
        )
        assert not (tmp_path / "hit").exists()


@pytest.mark.parametrize("path", ["/a'b/doorward", '/a"b/x', "/a$b/x", "/a\\b/x", "/a\nb/x", "/a`b`/x"])
def test_a_path_that_would_mean_something_is_refused(path: str) -> None:
    with pytest.raises(BadInput, match="means something to ssh"):
        ssh_config.fragment([path], Path("/s"), "tail.net", None)
    with pytest.raises(BadInput):
        ssh_config.fragment(["/x"], Path("/s"), "tail.net", Path(path))
    with pytest.raises(BadInput):
        ssh_config.with_includes("", Path(path))


def test_what_ssh_would_take_for_a_pattern_is_refused() -> None:
    with pytest.raises(BadInput, match="patterns"):
        ssh_config.with_includes("", Path("/a*b"))


@given(st.text(st.characters(codec="utf-8")).filter(lambda text: "doorward: " not in text))
def test_what_was_there_is_there_again_after_it_is_taken_away(text: str) -> None:
    once = ssh_config.with_includes(text, Path("/x"))
    assert ssh_config.with_includes(once, Path("/x")) == once
    moved = ssh_config.with_includes(once, Path("/y"))
    assert "/x/" not in moved.replace(text, "")
    back = ssh_config.without_includes(moved)
    assert back in {text, text + "\n"}


def test_half_of_our_part_is_not_guessed_at() -> None:
    whole = ssh_config.with_includes("Host x\n", Path("/x"))
    with pytest.raises(BadInput, match="no '# doorward: end' after it"):
        ssh_config.without_includes(whole.removesuffix("# doorward: end\n") + "Host y\n")


def test_files_are_written_whole_and_keep_their_mode(tmp_path: Path) -> None:
    config = tmp_path / ".ssh" / "config"
    part = tmp_path / ".ssh" / "doorward" / "config"
    changes = [Change(part, "part\n"), Change(config, "all\n")]
    assert ssh_config.carry_out(changes, dry_run=False) == [part, config]
    assert ssh_config.carry_out(changes, dry_run=False) == []
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    assert stat.S_IMODE(config.parent.stat().st_mode) == 0o700
    config.chmod(0o640)
    real = tmp_path / "dotfiles"
    config.rename(real)
    config.symlink_to(real)
    ssh_config.carry_out([Change(config, "more\n")], dry_run=False)
    assert config.is_symlink()
    assert (real.read_text(), stat.S_IMODE(real.stat().st_mode)) == ("more\n", 0o640)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".ssh", "dotfiles"]
    ssh_config.carry_out([Change(part, None), Change(part, None)], dry_run=False)
    assert not part.parent.exists()


def test_taken_away_nothing_of_ours_is_left_and_all_of_theirs(tmp_path: Path) -> None:
    config = tmp_path / "config"
    part = tmp_path / "doorward" / "config"
    for before in (MINE, None):
        if before is not None:
            config.write_text(before)
        ssh_config.carry_out(
            [Change(part, "x\n"), Change(config, ssh_config.with_includes(before or "", part.parent))],
            dry_run=False,
        )
        ssh_config.carry_out(ssh_config.removal(config), dry_run=False)
        assert (config.read_text() if config.exists() else None) == before
        config.unlink(missing_ok=True)
        assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / ".config.doorward").mkdir()
    with pytest.raises(NotPermitted, match="cannot be written"):
        ssh_config.carry_out([Change(tmp_path / "config", "x")], dry_run=False)
    with pytest.raises(BadInput, match="cannot be read"):
        ssh_config.removal(tmp_path)
    (tmp_path / "binary").write_bytes(b"\xff")
    with pytest.raises(BadInput, match="not UTF-8"):
        ssh_config.removal(tmp_path / "binary")


def test_the_home_is_the_account_s_and_not_the_environment_s(monkeypatch: pytest.MonkeyPatch) -> None:
    before = ssh_config.default_config()
    monkeypatch.setenv("HOME", "/elsewhere")
    assert ssh_config.default_config() == before
    assert before.parts[-2:] == (".ssh", "config")


def test_where_no_daemon_answers_nothing_is_planned(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="does not answer") as refused:
        ssh_config.plan(tmp_path / "config", Target(), tmp_path / "none")
    assert isinstance(refused.value, DoorwardError)


async def test_a_server_s_nodes_are_written_down(world: World, tmp_path: Path) -> None:
    await world.registry.create_user("test", "ann")
    for number, (name, keys) in enumerate(
        {"server": [KEY, f"{KEY}\n@cert-authority * x"], "plain": None}.items(), 1
    ):
        node = await world.join(number, name, "ann", sshHostKeys=keys)
        assert node.name == name
    from anyio import to_thread  # noqa: PLC0415 - the plan asks over a socket, which this loop serves

    config = tmp_path / "home" / "config"
    target = Target(data_dir=Path(os.environ["DOORWARD_DATA_DIR"]))
    changes, status = await to_thread.run_sync(ssh_config.plan, config, target, Path("/none"))
    assert status is None
    ssh_config.carry_out(changes, dry_run=False)
    known = config.parent / "doorward" / "known_hosts"
    names = "server,server.tailnet.internal,100.64.0.1,fd7a:115c:a1e0::1"
    assert known.read_text() == f"{names} {KEY}\n{names} {KEY}\n"

    def read(host: str) -> str:
        command = [str(require("ssh")), "-G", "-F", str(config), host]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    for name in names.split(","):
        assert f"userknownhostsfile {known}" in read(name)
        assert "stricthostkeychecking true" in read(name)
    assert "stricthostkeychecking ask" in read("plain")


def test_a_tailnet_without_keys_makes_a_configuration_that_does_nothing(tmp_path: Path) -> None:
    made, known = ssh_config.fragment_of([], tmp_path / "known_hosts")
    assert known == ""
    (tmp_path / "part").write_text(made)
    command = [str(require("ssh")), "-G", "-F", str(tmp_path / "part"), "server"]
    read = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "stricthostkeychecking ask" in read
