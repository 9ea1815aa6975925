"""Rules of the tree that no linter checks."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = ROOT / "src" / "doorward"
MODULES = sorted(SOURCES.rglob("*.py"))
LONGEST = 600  # lines; a module that grows past it holds more than one thing

# Modules whose promise is kept by other tests than a twin's, each with where.
NO_TWIN = {
    "__main__.py": "tests/cli",
    "model/nouns.py": "tests/test_model.py",
    "model/signin.py": "tests/test_model.py",
    "model/tabs.py": "tests/test_model.py",
    "protocol/tailcfg/filter.py": "tests/protocol/tailcfg/test_codec.py: types without behaviour",
    "protocol/tailcfg/hostinfo.py": "tests/protocol/tailcfg/test_codec.py: types without behaviour",
    "protocol/tailcfg/ssh.py": "tests/protocol/tailcfg/test_codec.py: types without behaviour",
    "store/defining.py": "tests/store/test_tables.py: every table is written with it",
    "store/signin_tables.py": "tests/store/test_tables.py: part of the tables",
    "tailnet/settings.py": "tests/tailnet/test_netmap.py: types without behaviour",
    "tailnet/units.py": "tests/tailnet/test_registry.py: each is a transaction of the registry",
}


def _relative(path: Path) -> str:
    return path.relative_to(SOURCES).as_posix()


def _is_code(path: Path) -> bool:
    """True for a module that does something: more than a docstring, imports and a list of names."""
    if "migrations" in path.parts:
        return False
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return path.name != "__init__.py" or any(
        isinstance(part, ast.FunctionDef | ast.ClassDef) for part in body
    )


@pytest.mark.parametrize("path", MODULES, ids=_relative)
def test_every_module_says_what_it_is_for(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert docstring, "a module starts with a docstring"


@pytest.mark.parametrize("path", [path for path in MODULES if _is_code(path)], ids=_relative)
def test_every_module_has_a_twin(path: Path) -> None:
    if _relative(path) in NO_TWIN:
        return
    folder = ROOT / "tests" / path.relative_to(SOURCES).parent
    stem = path.parent.name if path.name == "__init__.py" else path.stem
    assert (folder / f"test_{stem}.py").exists()


def test_no_exception_outlives_its_module() -> None:
    assert [name for name in NO_TWIN if not (SOURCES / name).exists()] == []


@pytest.mark.parametrize("path", MODULES, ids=_relative)
def test_modules_stay_small(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST


def test_locks_hold_no_address() -> None:
    for lock in (ROOT / "requirements").glob("*.txt"):
        assert not re.search(r"https?://", lock.read_text(encoding="utf-8")), lock.name
    for lock in [*(ROOT / "tests").rglob("package-lock.json"), ROOT / "web" / "package-lock.json"]:
        assert '"resolved"' not in lock.read_text(encoding="utf-8"), lock.parent.name


def test_every_dependency_has_its_reason() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    block = re.search(r"^dependencies = \[(.*?)^\]", text, re.DOTALL | re.MULTILINE)
    assert block
    names = re.findall(r'^\s+"([a-z0-9.]+)', block[1], re.MULTILINE)
    assert len(names) > 10
    reasons = (ROOT / "docs" / "decisions" / "0001-dependencies.md").read_text(encoding="utf-8").lower()
    assert [name for name in names if name not in reasons] == []
