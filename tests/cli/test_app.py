"""The program as a whole: what it loads, how it fails, and that everything in it explains itself."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cyclopts
import pytest
from tests.support.scripts import run_captured

from doorward import __version__
from doorward.cli.app import _COMMANDS, NAMES, program

HEAVY = {
    "sqlalchemy",
    "uvicorn",
    "starlette",
    "httpx2",
    "h2",
    "doorward.server",
    "doorward.tailnet",
    "doorward.store",
}
LOADED = "import sys; from doorward.cli.app import run; run({words}); print(*sys.modules, file=sys.stderr)"
CONTRACT = """
serve relay demo ca status doctor completion
users create, users list, users invite, users sign-in, users uninvite, users passkeys, users sessions, users sign-out, users show, users role, users suspend, users restore, users delete
users identities, users link, users unlink
providers add, providers list, providers show, providers change, providers test, providers remove
keys create, keys list, keys revoke
nodes list, nodes show, nodes approve, nodes rename, nodes expire, nodes delete, nodes tags, nodes routes, nodes waiting
nodes ping, nodes attributes, nodes suspend, nodes restore, nodes cut, nodes cuts, nodes uncut, nodes deny, nodes approval
nodes key-lifetime, nodes host-keys, dns get, dns set
policy get, policy set, policy check, policy compile, policy diff, policy reach, policy who-can, policy rollback
policy history, policy history show, policy history diff, policy what-can, policy review
policy edit, policy add-member, policy remove-member, policy add-tag-owner, policy remove-tag-owner
policy set-host, policy add-grant, policy add-ssh, policy remove-rule
tokens create, tokens list, tokens revoke
apps create, apps list, apps show, apps rotate, apps delete, apps import, apps approve, apps invite, apps sessions, apps sign-out
ssh setup, ssh known-hosts, ssh browser, ssh checks list, ssh checks approve, ssh checks deny
audit list, audit show, audit tail, audit verify, audit export, audit checkpoints, audit key
setup client
"""


def commands(at: cyclopts.App, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], cyclopts.App]]:
    """Every command that does something, with its words."""
    names = [name for name in at if not name.startswith("-")]
    if not names or at.default_command is not None:
        yield path, at
    for name in names:
        yield from commands(at[name], (*path, name))


ROOT = program(*NAMES)
EVERY = dict(commands(ROOT))


def started(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "doorward", *arguments],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def test_the_contract_holds() -> None:
    first, *rest = CONTRACT.strip().splitlines()
    expected = {(word,) for word in first.split()} | {
        tuple(words.split()) for line in rest for words in line.split(", ")
    }
    assert set(EVERY) == expected


@pytest.mark.parametrize("name", NAMES)
def test_a_command_s_one_line_is_the_first_of_its_page(name: str) -> None:
    (line,) = (text for each, _, text in _COMMANDS if each == name)
    assert ROOT[name].help.strip().startswith(line.rstrip("."))


@pytest.mark.parametrize("words", EVERY, ids=" ".join)
def test_every_command_has_a_page(words: tuple[str, ...]) -> None:
    code, out, err = run_captured([*words, "--help"])
    page = "\n".join(out)
    assert (code, err) == (0, [])
    assert "Usage: doorward " + " ".join(words) in page
    assert "Example" in page
    assert "Exit codes" in page
    if words not in {("completion",), ("setup", "client"), ("ssh", "known-hosts"), ("ssh", "browser")}:
        assert "--data-dir" in page


@pytest.mark.parametrize("flags", [(), ("--help",)], ids=str)
def test_the_page_of_a_group_says_what_each_command_in_it_does(flags: tuple[str, ...]) -> None:
    page = started("ssh", *flags).stdout  # some of whose commands are loaded late
    lines = {line[2:].split()[0]: line for line in page.splitlines() if re.match("│ [a-z]", line)}
    assert lines.keys() == {words[1] for words in EVERY if words[0] == "ssh"}
    for name, line in lines.items():
        assert re.search(rf"│ {name} +[A-Z]\w+ ", line), line


@pytest.mark.parametrize("words", EVERY, ids=" ".join)
def test_a_command_that_prints_a_table_prints_json(words: tuple[str, ...]) -> None:
    tables = {
        "list",
        "show",
        "waiting",
        "routes",
        "history",
        "reach",
        "who-can",
        "status",
        "doctor",
        "check",
        "diff",
    }
    if words[-1] in tables:
        assert any("--json" in line for line in run_captured([*words, "--help"])[1])


@pytest.mark.parametrize("words", EVERY, ids=" ".join)
def test_every_option_is_explained(words: tuple[str, ...]) -> None:
    for argument in EVERY[words].assemble_argument_collection(parse_docstring=True):
        if argument.show and argument.parse:
            assert argument.parameter.help, (words, argument.names)


def test_looking_at_nodes_loads_no_server() -> None:
    loaded = set(
        subprocess.run(
            [sys.executable, "-c", LOADED.format(words=["nodes", "list", "--help"])],
            capture_output=True,
            text=True,
            check=True,
        ).stderr.split()
    )
    assert "doorward.cli.nodes" in loaded
    assert not HEAVY & loaded
    others = {place.partition(":")[0] for name, place, _ in _COMMANDS if name != "nodes"}
    assert not others & loaded


def test_asking_for_help_loads_no_command() -> None:
    text = (
        "import sys\nfrom doorward.cli.app import run\nrun(['--help'])\nprint(*sys.modules, file=sys.stderr)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, check=True
    ).stderr.split()
    assert not {place.partition(":")[0] for _, place, _ in _COMMANDS} & set(loaded)


def test_the_program_from_outside(tmp_path: Path) -> None:
    version = started("--version")
    assert (version.returncode, version.stdout.strip(), version.stderr) == (0, __version__, "")
    nobody = started("nodes", "list", "--data-dir", str(tmp_path))
    assert nobody.returncode == 1
    assert nobody.stdout == ""
    assert nobody.stderr == (
        f"doorward: no doorward runs with the data directory {tmp_path}\n"
        "  Start it with `doorward serve`, or say which one you mean with --data-dir or --server.\n"
    )


def test_the_reader_of_a_pipe_may_leave() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "doorward", "completion", "bash"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.wait(20) == 1
        assert process.stderr.read() == b""


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("nodes lst", 'Unknown command "lst". Did you mean "list"?'),
        ("nodes list --colour red", "Unknown option: --colour"),
        ("nodes rename laptop", "NAME"),
        ("users create ann bob", "bob"),
        ("keys revoke x", "unable to convert"),
    ],
)
def test_a_wrong_command_line_says_what_is_wrong_and_where_help_is(line: str, words: str) -> None:
    code, out, err = run_captured(line.split())
    assert (code, out, len(err)) == (2, [], 2)
    assert err[0].startswith("doorward: ")
    assert words in err[0]
    assert re.fullmatch(r"  `doorward( \w+)* --help` shows how it is used\.", err[1])


def test_an_interrupt_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("doorward.cli.connection.Target.call", interrupted)
    code, out, err = run_captured(["nodes", "list"])
    assert (code, out, err) == (130, [], [])


@pytest.mark.parametrize("line", ["show --json laptop", "show laptop --json"])
def test_an_option_may_stand_before_or_after(line: str, tmp_path: Path) -> None:
    code, _, err = run_captured(["nodes", *line.split(), "--data-dir", str(tmp_path)])
    assert (code, err[0]) == (1, f"doorward: no doorward runs with the data directory {tmp_path}")


@pytest.mark.parametrize("line", ["users delete ann", "nodes delete laptop", "nodes expire laptop"])
def test_a_no_changes_nothing(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*_: object, **__: object) -> None:
        pytest.fail("the server was asked")

    monkeypatch.setattr("doorward.cli.connection.Target.call", asked)
    monkeypatch.setattr("doorward.cli.output.confirm", lambda _question, *, yes: yes)
    code, out, err = run_captured(line.split())
    assert (code, out, len(err)) == (1, [], 1)
    assert err[0].startswith("Nothing was ")
