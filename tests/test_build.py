"""What is published: an sdist and a wheel with the console's pages in them, as small as they are promised to be."""

import json
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from tests.support.bundle import ROOT, built

from doorward.console.bundle import Bundles

TERMINAL = "web/src/terminal/page.tsx"
# Bytes of brotli, without fonts: of all that a page ever loads, and of what it cannot do without.
MOST = {TERMINAL: 222_000, "web/src/console/page.tsx": 33_000}
AT_FIRST = {TERMINAL: 172_000, "web/src/console/page.tsx": 33_000}
# What is loaded once it is asked for, or once something needs it.
LATER = ("files-", "addon-search-", "addon-unicode-graphemes-", "addon-webgl-")
_BUILD = "import sys, hatchling.build as b; getattr(b, sys.argv[1])(sys.argv[2])"


def _hatch(root: Path, what: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", _BUILD, what, str(folder)]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The package without its bundle, and with nothing to build that from."""
    root = tmp_path / "tree"
    root.mkdir()
    for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / name, root)
    package = root / "src" / "doorward"
    (package / "console").mkdir(parents=True)
    shutil.copy(ROOT / "src" / "doorward" / "__init__.py", package)
    shutil.copy(ROOT / "src" / "doorward" / "console" / "__init__.py", package / "console")
    return root


def test_the_pages_are_in_what_is_published(tree: Path, tmp_path: Path) -> None:
    shutil.copytree(built(), tree / "src" / "doorward" / "console" / "static")
    for what in ("build_sdist", "build_wheel"):
        done = _hatch(tree, what, tmp_path)
        assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        in_wheel = {name.removeprefix("doorward/") for name in wheel.namelist()}
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as sdist:
        in_sdist = {name.partition("/src/doorward/")[2] for name in sdist.getnames()}
    files = {str(path.relative_to(built())) for path in built().rglob("*") if path.is_file()}
    expected = {f"console/static/{name}" for name in files}
    assert ".vite/manifest.json" in files
    assert expected <= in_wheel
    assert expected <= in_sdist


def test_nothing_is_published_without_pages(tree: Path, tmp_path: Path) -> None:
    (tree / "web").mkdir()
    (tree / "web" / "node_modules" / "vite").mkdir(parents=True)  # as if it were installed
    done = _hatch(tree, "build_wheel", tmp_path)
    assert done.returncode != 0
    assert "the console's pages cannot be built" in done.stderr
    assert list(tmp_path.glob("*.whl")) == []


def test_an_editable_install_needs_no_pages(tree: Path, tmp_path: Path) -> None:
    done = _hatch(tree, "build_editable", tmp_path)
    assert done.returncode == 0, done.stderr


def _all_it_loads(entry: str) -> dict[str, int]:
    """The bytes of each file that a page loads in the end: what it begins with, what it asks for later, and its Workers; no fonts."""
    folder = built()
    bundle = Bundles(folder).current()
    manifest = json.loads((folder / ".vite" / "manifest.json").read_bytes())
    chunks, files = [entry], set[str]()
    for name in chunks:  # grows while it is gone through
        chunk = manifest[name]
        files |= {chunk["file"], *chunk.get("css", ())}
        files |= {asset for asset in chunk.get("assets", ()) if asset.endswith(".js")}
        more = (*chunk.get("imports", ()), *chunk.get("dynamicImports", ()))
        chunks += [one for one in more if one not in chunks]
    sizes = {}
    for name in files:
        asset = bundle.asset(name.removeprefix("assets/"), frozenset({"br"}))
        assert asset is not None, name
        sizes[name] = len(asset.content)
    return sizes


@pytest.mark.parametrize("entry", MOST)
def test_a_page_is_small(entry: str) -> None:
    sizes = _all_it_loads(entry)
    assert sum(sizes.values()) <= MOST[entry], sizes
    later = [name for name in sizes if name.removeprefix("assets/").startswith(LATER)]
    assert len(later) == (len(LATER) if entry == TERMINAL else 0), sizes
    assert sum(size for name, size in sizes.items() if name not in later) <= AT_FIRST[entry], sizes
    assert any("worker" in name for name in sizes) is (entry == TERMINAL)


def test_the_bundle_asks_nobody_else() -> None:
    for path in (built() / "assets").iterdir():
        if path.suffix == ".css":
            text = path.read_text(encoding="utf-8")
            assert "http://" not in text
            assert "https://" not in text
