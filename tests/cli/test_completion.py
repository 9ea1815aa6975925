"""Completion scripts: the shells themselves accept them, and bash completes with them."""

import shutil
import subprocess
from pathlib import Path

import pytest
from tests.support.require import missing
from tests.support.scripts import run_captured


def script(shell: str) -> str:
    code, out, err = run_captured(["completion", shell])
    assert (code, err) == (0, [])
    return "\n".join(out) + "\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_can_read_it(shell: str, tmp_path: Path) -> None:
    text = script(shell)
    for word in ("nodes", "approve", "json", "who-can"):
        assert word in text
    if shutil.which(shell) is None:
        missing(shell)
    file = tmp_path / "script"
    file.write_text(text)
    checked = subprocess.run([shell, "-n", str(file)], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


def complete(*words: str) -> list[str]:
    """What bash offers after these words, of which the last is being typed."""
    program = script("bash") + (
        f"\nCOMP_WORDS=({' '.join(words)} {'' if words[-1] else chr(39) * 2})\nCOMP_CWORD={len(words) - 1}\n"
        "name=$(complete -p doorward | sed 's/.*-F \\([^ ]*\\).*/\\1/')\n$name doorward\n"
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    found = subprocess.run(["bash", "--norc", "-c", program], capture_output=True, text=True, check=True)
    return [line.strip() for line in found.stdout.splitlines()]


def test_bash_completes_commands_and_options() -> None:
    if shutil.which("bash") is None:
        missing("bash")
    assert set(complete("doorward", "no")) == {"nodes"}
    assert {"list", "approve"} <= set(complete("doorward", "nodes", ""))
    assert "--json" in complete("doorward", "nodes", "list", "--j")
    assert "auditor" in complete("doorward", "users", "create", "ann", "--role", "au")


def test_other_shells_are_a_usage_error() -> None:
    code, _, err = run_captured(["completion", "tcsh"])
    assert code == 2
    assert "bash" in err[0]
