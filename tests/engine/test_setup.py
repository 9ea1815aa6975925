"""A real Go builds real programs, from a module proxy that is a folder, so that no network is needed."""

import io
import os
import shutil
import subprocess
import threading
import zipfile
from pathlib import Path

import pytest
from tests.support.clock import FakeClock
from tests.support.require import missing

from doorward.engine.programs import ProgramError
from doorward.engine.setup import OLDEST_GO, Progress, build, setup_client

MODULE = "example.com/tiny"
GOOD = 'package main\n\nfunc main() { print("1.102.4-%s\\n") }\n'
BAD = "package main\n\nfunc main() { undefined() }\n"


def _publish(proxy: Path, version: str, programs: dict[str, str]) -> None:
    """Put a version of MODULE into the folder ``proxy``, as the module proxy's protocol lays it out."""
    folder = proxy / MODULE / "@v"
    folder.mkdir(parents=True, exist_ok=True)
    module = f"module {MODULE}\n\ngo 1.21\n"
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr(f"{MODULE}@{version}/go.mod", module)
        for name, source in programs.items():
            archive.writestr(f"{MODULE}@{version}/cmd/{name}/main.go", source)
    (folder / f"{version}.zip").write_bytes(content.getvalue())
    (folder / f"{version}.mod").write_text(module)
    with (folder / "list").open("a") as versions:
        versions.write(f"{version}\n")
    (folder / f"{version}.info").write_text(f'{{"Version":"{version}"}}')


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    go = shutil.which("go")
    if go is None:
        missing("go is missing; to get it: install Go, doorward setup client would bring its own")
    version = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, check=True).stdout
    if tuple(int(part) for part in version.strip().removeprefix("go").split(".")) < OLDEST_GO:
        missing(f"Go is {version.strip()}; install a newer one")
    # Each test's programs are its own, or Go would find them compiled already.
    _publish(tmp_path / "proxy", "v1.0.0", {"one": GOOD % tmp_path.name, "two": GOOD % tmp_path.parent})
    _publish(tmp_path / "proxy", "v1.1.0", {"one": BAD})
    return {
        "PATH": f"{Path(go).parent}:/usr/bin:/bin",
        "HOME": str(tmp_path),
        "GOPROXY": (tmp_path / "proxy").as_uri(),
        "GONOSUMDB": MODULE,  # a made-up module has no public checksum
        "GOFLAGS": "-mod=readonly",  # whatever the machine has set must not matter
        "GOMODCACHE": str(tmp_path / "modules"),
        "GOCACHE": os.environ.get("GOCACHE") or str(Path.home() / ".cache" / "go-build"),
    }


@pytest.fixture(autouse=True)
def _writable(tmp_path: Path) -> object:
    yield
    # Go keeps modules read-only, and pytest could not remove them.
    for folder, _, _ in os.walk(tmp_path / "modules"):
        Path(folder).chmod(0o755)


PACKAGES = [f"{MODULE}/cmd/one", f"{MODULE}/cmd/two"]


def test_programs_are_built_once_and_run(tmp_path: Path, environ: dict[str, str]) -> None:
    seen: list[Progress] = []
    clock = FakeClock()

    def report(progress: Progress) -> None:
        seen.append(progress)
        clock.advance(1)

    one, two = build(PACKAGES, "v1.0.0", tmp_path / "bin", report, environ, clock)
    assert (
        subprocess.run([one], capture_output=True, text=True, check=True).stderr
        == f"1.102.4-{tmp_path.name}\n"
    )
    assert two.exists()
    assert seen[0] == Progress("building one and two v1.0.0", 0, 0, 0.0)
    assert seen[-1].downloaded == 1
    assert seen[-1].compiled >= 2
    assert [progress.elapsed for progress in seen] == list(range(len(seen)))
    assert sorted(path.name for path in (tmp_path / "bin").iterdir()) == [".lock", "one", "two"]
    seen.clear()
    assert build(PACKAGES, "v1.0.0", tmp_path / "bin", report, environ) == [one, two]
    assert seen == []
    # Only what is missing is made again.
    two.unlink()
    build(PACKAGES, "v1.0.0", tmp_path / "bin", report, environ)
    assert seen[0].stage == "building two v1.0.0"


def test_two_at_once_share_one_build(tmp_path: Path, environ: dict[str, str]) -> None:
    stages: list[str] = []
    ready = threading.Barrier(3)

    def run() -> None:
        ready.wait()
        build(PACKAGES, "v1.0.0", tmp_path / "bin", lambda progress: stages.append(progress.stage), environ)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts = {stage: stages.count(stage) for stage in stages}
    assert counts["waiting for another doorward that builds the same"] == 2
    # One build: its packages were told of, and nobody else's.
    assert set(counts) == {"building one and two v1.0.0", "waiting for another doorward that builds the same"}
    assert (tmp_path / "bin/one").exists()


def test_a_build_that_fails_says_what_the_compiler_said_and_leaves_nothing(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    with pytest.raises(ProgramError, match="undefined: undefined") as failed:
        build(f"{MODULE}/cmd/one", "v1.1.0", tmp_path / "bin", environ=environ)
    assert failed.value.message.startswith("building one v1.1.0 failed; go said:\n")
    assert "try again" in failed.value.cure
    assert [path.name for path in (tmp_path / "bin").iterdir()] == [".lock"]


def test_a_version_that_is_not_there(tmp_path: Path, environ: dict[str, str]) -> None:
    with pytest.raises(ProgramError, match=r"v9\.9\.9"):
        build(f"{MODULE}/cmd/one", "v9.9.9", tmp_path / "bin", environ=environ)


def test_a_build_that_is_interrupted_leaves_nothing(tmp_path: Path, environ: dict[str, str]) -> None:
    def interrupt(progress: Progress) -> None:
        if progress.downloaded:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(PACKAGES, "v1.0.0", tmp_path / "bin", interrupt, environ)
    assert [path.name for path in (tmp_path / "bin").iterdir()] == [".lock"]
    assert build(PACKAGES, "v1.0.0", tmp_path / "bin", environ=environ)[0].exists()


def test_a_client_that_is_there_is_not_made_again(
    tmp_path: Path, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("doorward.engine.programs._SYSTEM_FOLDERS", ())
    (tmp_path / "path").mkdir()
    for name in ("tailscale", "tailscaled"):
        (tmp_path / "path" / name).write_text("#!/bin/sh\necho 1.102.4\n")
        (tmp_path / "path" / name).chmod(0o755)
    told: list[Progress] = []
    found = setup_client(told.append, {**environ, "PATH": str(tmp_path / "path")})
    assert found.tailscaled == tmp_path / "path/tailscaled"
    assert told == []


def test_a_go_that_is_too_old_is_not_used_and_the_way_out_is_named(
    tmp_path: Path, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "path").mkdir()
    (tmp_path / "path/go").write_text("#!/bin/sh\necho go1.21.0\n")
    (tmp_path / "path/go").chmod(0o755)
    # An interpreter with neither pip nor uv beside it, as a minimal container has.
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ProgramError, match="neither Go nor pip nor uv") as failed:
        build(PACKAGES, "v1.0.0", tmp_path / "bin", environ={**environ, "PATH": str(tmp_path / "path")})
    assert "1.26.6" in failed.value.cure
