import os
from pathlib import Path

import pytest

from doorward.engine.programs import ProgramError, cache_folder, find_client, parse_version, version_of


def _program(folder: Path, name: str, says: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return path


def _both(folder: Path, says: str) -> Path:
    _program(folder, "tailscale", says)
    return _program(folder, "tailscaled", says)


@pytest.fixture
def environ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    # The machine's own programs must not be found by these tests.
    monkeypatch.setattr("doorward.engine.programs._SYSTEM_FOLDERS", ())
    return {
        "PATH": f"{tmp_path / 'path'}:/nowhere",
        "HOME": str(tmp_path),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("1.102.4-ERR-BuildInfo\n  long version: x", (1, 102, 4)),
        ("1.80.3", (1, 80, 3)),
        ("go1.26.8", (1, 26, 8)),
        ("go1.27", (1, 27, 0)),
        ("1.103.0-dev20260101", (1, 103, 0)),
        ("", None),
        ("devel", None),
        ("v1.2.3", None),
    ],
)
def test_parse_version(text: str, version: tuple[int, int, int] | None) -> None:
    assert parse_version(text) == version


def test_the_cache_folder_follows_the_base_directory_specification() -> None:
    assert cache_folder({"HOME": "/h", "XDG_CACHE_HOME": "/c"}) == Path("/c/doorward")
    assert cache_folder({"HOME": "/h", "XDG_CACHE_HOME": "relative"}) == Path("/h/.cache/doorward")
    assert cache_folder({"HOME": "/h"}) == Path("/h/.cache/doorward")


def test_path_comes_before_the_cache(tmp_path: Path, environ: dict[str, str]) -> None:
    assert find_client(environ) is None
    made = _both(tmp_path / "cache/doorward/bin", "1.102.4")
    found = find_client(environ)
    assert found is not None
    assert found.tailscaled == made
    installed = _both(tmp_path / "path", "1.80.3")
    found = find_client(environ)
    assert found == (installed.with_name("tailscale"), installed, (1, 80, 3))


@pytest.mark.parametrize("says", ["1.78.1", "nonsense", "0.99.0"])
def test_programs_on_path_that_are_too_old_or_strange_are_passed_over(
    tmp_path: Path, environ: dict[str, str], says: str
) -> None:
    _both(tmp_path / "path", says)
    assert find_client(environ) is None
    made = _both(tmp_path / "cache/doorward/bin", "1.102.4")
    found = find_client(environ)
    assert found is not None
    assert found.tailscaled == made


def test_both_programs_must_be_new_enough(tmp_path: Path, environ: dict[str, str]) -> None:
    _program(tmp_path / "path", "tailscaled", "1.102.4")
    assert find_client(environ) is None
    _program(tmp_path / "path", "tailscale", "1.78.0")
    assert find_client(environ) is None


def test_off_finds_nothing(tmp_path: Path, environ: dict[str, str]) -> None:
    _both(tmp_path / "path", "1.102.4")
    assert find_client(environ, "off") is None


def test_a_named_daemon(tmp_path: Path, environ: dict[str, str]) -> None:
    daemon = _program(tmp_path / "mine", "tailscaled", "1.90.0")
    with pytest.raises(ProgramError, match="no tailscale beside"):
        find_client(environ, str(daemon))
    on_path = _program(tmp_path / "path", "tailscale", "1.90.0")
    assert find_client(environ, str(daemon)) == (on_path, daemon, (1, 90, 0))
    beside = _program(tmp_path / "mine", "tailscale", "1.90.0")
    assert find_client(environ, str(daemon)) == (beside, daemon, (1, 90, 0))


@pytest.mark.parametrize(
    ("says", "message"), [("1.70.0", "older than 1.80"), ("?", "does not run"), (None, "does not run")]
)
def test_a_named_daemon_that_cannot_serve_is_an_error(
    tmp_path: Path, environ: dict[str, str], says: str | None, message: str
) -> None:
    daemon = _program(tmp_path / "mine", "tailscaled", says) if says else tmp_path / "none"
    with pytest.raises(ProgramError, match=message) as refused:
        find_client(environ, str(daemon))
    assert "doorward setup client" in refused.value.cure


def test_an_update_is_noticed(tmp_path: Path) -> None:
    program = _program(tmp_path, "p", "1.80.0")
    assert version_of(program) == (1, 80, 0)
    _program(tmp_path, "p", "1.90.0")
    os.utime(program, ns=(5, 5))
    assert version_of(program) == (1, 90, 0)
    program.write_text("#!/bin/sh\nexit 1\n")
    assert version_of(program) is None
    program.unlink()
    assert version_of(program) is None
