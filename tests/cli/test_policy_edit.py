"""The commands that change one thing, and the editor."""

import sys
from pathlib import Path

import pytest
from anyio import to_thread
from tests.cli.conftest import Play
from tests.support.scripts import run_captured
from tests.support.world import World

from doorward.policy import DEFAULT_POLICY


async def test_the_script_of_policy_edit(play_script: Play) -> None:
    assert await play_script("policy_edit") > 10


def editor(folder: Path, code: str) -> str:
    """An editor that does this to the text of the file it is given."""
    script = folder / "editor.py"
    script.write_text(
        "import sys, pathlib\n"
        "file = pathlib.Path(sys.argv[1])\n"
        "text = file.read_bytes().decode()\n"
        f"{code}\n"
        "file.write_bytes(text.encode())\n"
    )
    return f"{sys.executable} '{script}'"


@pytest.fixture
def drafts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where texts are kept while they are edited."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.delenv("VISUAL", raising=False)
    return tmp_path


def left(drafts: Path) -> list[Path]:
    """The texts that are still kept."""
    return list(drafts.glob("policy-*.hujson"))


async def edit(*words: str) -> tuple[int, list[str], list[str]]:
    return await to_thread.run_sync(run_captured, ["policy", "edit", *words])


async def test_what_is_saved_is_in_force(world: World, drafts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDITOR", editor(drafts, "text = '// mine\\r\\n' + text"))
    assert await edit("--comment", "mine") == (0, ["The policy is in force, as version 2."], [])
    version = await world.registry.current_policy()
    assert (version.text, version.comment) == ("// mine\r\n" + DEFAULT_POLICY, "mine")
    assert left(drafts) == []


async def test_what_is_saved_unchanged_changes_nothing(
    world: World, drafts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDITOR", editor(drafts, "pass"))
    assert await edit() == (0, ["Nothing was changed; version 1 stays in force."], [])
    assert left(drafts) == []
    assert len(await world.registry.policy_history()) == 1


async def test_a_refused_text_is_kept(world: World, drafts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDITOR", editor(drafts, "text = '{'"))
    code, out, err = await edit()
    (kept,) = left(drafts)
    assert (code, out) == (1, [])
    assert err[0] == f"Your text is kept in {kept}."
    assert err[1].startswith(f"{kept}:1:2: ")
    assert kept.read_text() == "{"
    assert kept.stat().st_mode & 0o777 == 0o600


async def test_what_somebody_else_set_meanwhile_is_not_overwritten(
    world: World, drafts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meanwhile = (
        "import subprocess, os\n"
        "other = pathlib.Path(sys.argv[0]).with_name('other')\n"
        "other.write_text('{}')\n"
        "subprocess.run([sys.executable, '-m', 'doorward', 'policy', 'set', str(other)], check=True, capture_output=True)\n"
        "text = '// mine\\n' + text"
    )
    monkeypatch.setenv("EDITOR", editor(drafts, meanwhile))
    code, _, err = await edit()
    assert code == 1
    assert err[0].startswith("Your text is kept in ")
    assert "version 2 of the policy is in force, set by cli" in err[1]
    assert world.registry.policy_text == "{}"


async def test_an_editor_that_is_not_there(
    world: World, drafts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDITOR", "no-such-editor-here")
    code, _, err = await edit()
    assert (code, err[1]) == (1, "  Set EDITOR to the one you use.")
    assert left(drafts) == []
    monkeypatch.setenv("EDITOR", "false")
    code, _, err = await edit()
    assert code == 1
    assert "ended with exit code 1" in err[0]
    file = drafts / "owner.hujson"
    file.write_text("{}")
    await world.registry.own_policy(file)
    code, _, err = await edit()
    assert (code, err[0]) == (1, f"doorward: the policy is owned by {file}")
