"""The demo from end to end: real clients, plain OpenSSH, and nothing left behind however it ends."""

import contextlib
import io
import json
import os
import pwd
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from rich.console import Console
from tests.support.bundle import built
from tests.support.openssh import another_account
from tests.support.programs import require, require_client, require_root
from tests.support.server import free_port

from doorward.cli import demo as module
from doorward.engine.programs import ClientPaths
from doorward.errors import Unavailable

interop = pytest.mark.interop


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    built()  # the demo opens the console, too
    for name in ("DOOR", "RELAY", "STUN"):
        # Not the usual ones, which another demo on this machine may take between two runs of this one.
        monkeypatch.setenv(f"DOORWARD_PORTS_{name}", str(free_port()))
    with tempfile.TemporaryDirectory(prefix="dw-demo-", dir="/tmp", ignore_cleanup_errors=True) as name:
        yield Path(name)


@pytest.fixture
def _programs() -> None:
    require_client()
    require("ssh")


def _command(folder: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "doorward", "demo", "--data-dir", str(folder), *more]


def _check(folder: Path, within: float = 50) -> str:
    done = subprocess.run(
        _command(folder, "--check"), capture_output=True, text=True, check=False, timeout=within
    )
    log = folder / "doorward.log"
    told = log.read_text(errors="replace")[-3000:] if log.exists() else ""
    assert done.returncode == 0, done.stdout + done.stderr + told
    return done.stdout


class Shown(NamedTuple):
    process: subprocess.Popen[str]
    screen: str


@contextlib.contextmanager
def _shown(folder: Path) -> Iterator[Shown]:
    """A demo that has come up, and what it says."""
    with subprocess.Popen(
        _command(folder), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        try:
            assert process.stdout is not None
            lines = []
            for line in process.stdout:
                lines.append(line)
                if line.startswith("Ctrl-C"):
                    break
            else:
                pytest.fail("".join(lines))
            yield Shown(process, "".join(lines))
        finally:
            process.kill()


def _left(folder: Path) -> list[str]:
    """Programs that run and were told of the folder."""
    found = []
    for one in Path("/proc").iterdir():
        if not one.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            line = (one / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if str(folder) in line:
                found.append(f"{one.name} {line}")
    return found


def _until_nothing_is_left(folder: Path, within: float) -> None:
    end = time.monotonic() + within
    while left := _left(folder):
        assert time.monotonic() < end, left
        time.sleep(0.02)


def _ssh(folder: Path, command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["ssh", "-F", str(folder / "ssh_config"), "server", command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )


def _nodes(folder: Path) -> list[tuple[str, ...]]:
    with contextlib.closing(sqlite3.connect(folder / "doorward" / "doorward.db")) as database:
        return database.execute("SELECT name, stable_id, node_key, ipv4 FROM nodes ORDER BY name").fetchall()


@interop
@pytest.mark.usefixtures("_programs")
def test_it_is_checked_and_goes_on_with_the_same_nodes(folder: Path) -> None:
    me = pwd.getpwuid(os.geteuid()).pw_name
    for name in ("laptop", "server", "vault"):
        assert not (folder / name).exists()
    said = f"I am {me} on a machine of the tailnet, without a key"
    shown = _check(folder)
    assert shown.count(said) == 2
    assert f"opened from laptop, knows {me}: without a click" in shown
    assert "/machines shows 4 machines, and a way into server: by a link that works once" in shown
    assert _left(folder) == []
    nodes, known_hosts = _nodes(folder), (folder / "known_hosts").read_text()
    assert {"laptop", "server", "vault"} <= {node[0] for node in nodes}
    # What somebody has made of the policy meanwhile stays.
    with contextlib.closing(sqlite3.connect(folder / "doorward" / "doorward.db")) as database:
        policies = database.execute("SELECT count(*) FROM policy_versions").fetchall()
    assert _check(folder).count(said) == 2
    with contextlib.closing(sqlite3.connect(folder / "doorward" / "doorward.db")) as database:
        assert database.execute("SELECT count(*) FROM policy_versions").fetchall() == policies
    assert _left(folder) == []
    assert (_nodes(folder), (folder / "known_hosts").read_text()) == (nodes, known_hosts)


@interop
@pytest.mark.usefixtures("_programs")
def test_the_line_on_the_screen_works_and_trusts_the_right_host_key_alone(folder: Path) -> None:
    with _shown(folder) as shown:
        line, asks = (line.strip() for line in shown.screen.splitlines() if line.strip().startswith("ssh -F"))
        assert line == f"ssh -F {folder}/ssh_config server"
        assert asks == f"ssh -F {folder}/ssh_config vault"
        done = subprocess.run(
            [*line.split(), "echo there; exit 4"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=20,
        )
        assert (done.stdout, done.stderr, done.returncode) == ("there\n", "", 4)
        for command in ("nodes list", "policy get", "audit list"):
            (line,) = (line.strip() for line in shown.screen.splitlines() if f"doorward {command}" in line)
            assert subprocess.run(line.split(), capture_output=True, check=False).returncode == 0, line
        (line,) = (line for line in shown.screen.splitlines() if "link to make one" in line)
        assert "/invite/" not in shown.screen, "a link is for eyes only, and this is a pipe"
        assert "/signin/link/" not in shown.screen
        (opens,) = (line for line in shown.screen.splitlines() if "opens the console" in line)
        kept = Path(opens.rpartition(" ")[2])
        assert re.fullmatch(r"http://localhost:\d+/signin/link/[a-z2-7]{32}\n", kept.read_text())
        assert kept.stat().st_mode & 0o777 == 0o600
        assert "http://localhost:" in Path(line.rpartition(" ")[2]).read_text()
        hosts = folder / "known_hosts"
        good = hosts.read_text()
        names, kind, key = good.splitlines()[0].split()
        tampered = key[:-12] + ("A" * 8 if key[-12:-4] != "A" * 8 else "B" * 8) + key[-4:]
        for text in (f"{names} {kind} {tampered}\n", ""):
            hosts.write_text(text)
            refused = _ssh(folder, "echo there")
            assert (refused.returncode, refused.stdout) == (255, "")
            assert "Host key verification failed" in refused.stderr
        hosts.write_text(good)
        assert _ssh(folder, "echo there").stdout == "there\n"
        shown.process.send_signal(signal.SIGINT)
        assert shown.process.wait(10) == 0
    assert _left(folder) == []


@pytest.mark.parametrize("terminal", [True, False])
async def test_who_cannot_sign_in_is_given_a_link_on_a_terminal_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    file, passkeys = folder / "invitation-ann.txt", 0
    file.write_text("https://door.test:8443/invite/secret\nhttp://localhost:8080/invite/secret\n")

    async def doorward(*arguments: str) -> str:
        match arguments:
            case ("users", "list", "--json"):
                return '[{"name": "ann"}]'
            case ("users", "show", "ann", "--json"):
                user = {"id": 1, "name": "ann", "display_name": "", "email": "", "role": "owner", "nodes": 0}
                return json.dumps(
                    user | {"created": "2026-01-02T03:04:05Z", "suspended": False, "passkeys": passkeys}
                )
            case ("users", "invite", "ann"):
                return str(file)
        raise AssertionError(arguments)

    monkeypatch.setattr(module, "_account", lambda: "ann")
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=terminal, color_system=None, width=200)
    client = ClientPaths(tailscale=Path("/x"), tailscaled=Path("/y"), version=(1, 102, 4))
    demo = module._Demo(folder, client, console)
    monkeypatch.setattr(demo, "_doorward", doorward)
    demo._explain("http://127.0.0.1:8080", "", await demo._link(), None)
    assert ("\n    http://localhost:8080/invite/secret\n" in screen.getvalue()) is terminal
    assert ("secret" in screen.getvalue()) is terminal
    assert (str(file) in screen.getvalue()) is not terminal
    passkeys = 1
    assert await demo._link() == ""


@interop
@pytest.mark.usefixtures("_programs")
def test_the_machine_that_asks_has_its_page_shown_and_goes_on_after_a_yes(folder: Path) -> None:
    with _shown(folder) as shown:
        asks, approves = (
            next(line.strip() for line in shown.screen.splitlines() if words in line)
            for words in ("ssh_config vault", "checks approve 1")
        )
        with subprocess.Popen(
            [*asks.split(), "echo there"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as waits:
            assert shown.process.stdout is not None
            told = iter(shown.process.stdout.readline, "")
            line = next(line for line in told if "An ssh to vault waits for you" in line)
            link = line.split()[-1]
            assert link.startswith("http://localhost:")
            with urllib.request.urlopen(link, timeout=20) as answer:
                page = answer.read().decode()
            assert waits.stderr is not None
            code = next(line.split()[-1] for line in waits.stderr if "Its code is" in line)
            assert code in page
            assert (
                subprocess.run(approves.split(), capture_output=True, check=False, timeout=20).returncode == 0
            )
            assert waits.communicate(timeout=20)[0] == "there\n"
        shown.process.send_signal(signal.SIGINT)
        assert shown.process.wait(10) == 0


@interop
@pytest.mark.usefixtures("_programs")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_told_to_stop_it_stops_everything(folder: Path, number: signal.Signals) -> None:
    with _shown(folder) as shown:
        assert len(_left(folder)) >= 4  # itself, the server, two daemons
        shown.process.send_signal(number)
        shown.process.send_signal(number)  # impatience cuts nothing short
        assert shown.process.wait(10) == 0
        assert shown.process.stdout is not None
        assert "stopping" in shown.process.stdout.read()
    assert _left(folder) == []


@interop
@pytest.mark.usefixtures("_programs")
@pytest.mark.parametrize("begun", [" serve ", "tailscaled "], ids=["the server starts", "the machines start"])
def test_told_to_stop_while_it_comes_up_it_stops(folder: Path, begun: str) -> None:
    with subprocess.Popen(_command(folder), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        while not any(begun in line for line in _left(folder)):
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert _left(folder) == []


@interop
@pytest.mark.usefixtures("_programs")
def test_killed_it_leaves_nothing(folder: Path) -> None:
    with _shown(folder) as shown:
        shown.process.kill()
        shown.process.wait()
        _until_nothing_is_left(folder, 5)
    _check(folder)


@interop
@pytest.mark.usefixtures("_programs")
def test_a_server_that_ends_by_itself_ends_the_demo_with_the_reason(folder: Path) -> None:
    with _shown(folder) as shown:
        (serve,) = (line.split()[0] for line in _left(folder) if " serve " in line)
        os.kill(int(serve), signal.SIGKILL)
        assert shown.process.wait(10) == 1
        assert shown.process.stdout is not None
        said = shown.process.stdout.read()
        assert "doorward: doorward ended by itself\n" in said
        assert "Traceback" not in said
    assert _left(folder) == []


@interop
@pytest.mark.usefixtures("_programs")
def test_a_long_path_with_strange_letters_does_as_well(folder: Path) -> None:
    deep = folder / ("a folder with a long name, % and $HOME " * 4).strip()
    assert len(str(deep)) > 108
    _check(deep)


@interop
@pytest.mark.root
@pytest.mark.usefixtures("_programs")
def test_it_works_for_a_user_without_rights(folder: Path) -> None:
    require_root()
    setpriv = require("setpriv")
    account = pwd.getpwnam(another_account())
    os.chown(folder, account.pw_uid, account.pw_gid)
    # Root's programs and interpreter are not for others to read: copies are.
    client = require_client()
    bin_folder = folder / "bin"
    bin_folder.mkdir()
    for program in (client.tailscale, client.tailscaled):
        shutil.copy(program, bin_folder)
    bin_folder.chmod(0o755)
    environ = {
        "PATH": f"{bin_folder}:/usr/bin:/bin",
        "HOME": str(folder),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "PYTHONDONTWRITEBYTECODE": "1",
        # What a shell that became somebody else may still say.
        "LOGNAME": "root",
        "USER": "root",
    }
    become = [str(setpriv), f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--init-groups", "--"]
    done = subprocess.run(
        [*become, *_command(folder / "demo", "--check")],
        env=environ,
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
        timeout=55,
    )
    if "Permission denied" in done.stderr and "doorward" not in done.stdout:
        # No program is missing: this checkout, or its interpreter, is in a folder that is root's alone.
        pytest.skip(f"{account.pw_name} may not read this checkout: {done.stderr.strip()[-200:]}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"I am {account.pw_name} on a machine" in done.stdout


def test_without_the_programs_it_says_what_to_do(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_client", lambda environ: None)
    with pytest.raises(Unavailable, match="no stock tailscale") as refused:
        module.demo(data_dir=folder)
    assert refused.value.cure == "Run: doorward setup client"
    found = ClientPaths(Path("/bin/true"), Path("/bin/true"), (1, 102, 4))
    monkeypatch.setattr(module, "find_client", lambda environ: found)
    monkeypatch.setenv("PATH", str(folder))
    with pytest.raises(Unavailable, match="no ssh"):
        module.demo(data_dir=folder)
    assert list(folder.iterdir()) == []


def test_an_account_without_a_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 3_999_999_999)
    with pytest.raises(Unavailable, match="user 3999999999 has no name"):
        module._account()


def test_paths_are_what_they_are_in_ssh_config_and_in_the_shell() -> None:
    hostile = Path('/tmp/a b/100%/$(touch x)/"q"')
    assert module._literal(hostile) == '/tmp/a b/100%%/$(touch x)/"q"'
    shown = subprocess.run(
        ["/bin/sh", "-c", f"printf %s {module._quoted(hostile)}"], capture_output=True, text=True, check=True
    )
    assert shown.stdout == str(hostile).replace("%", "%%")
