"""Which version of a client the tests use: out of the lock that it comes from, or as its package manager says."""

import json
import re
import subprocess
from pathlib import Path

_SUPPORT = Path(__file__).parent
_REQUIREMENTS = _SUPPORT.parents[1] / "requirements"


def version_of(name: str, source: str) -> str:
    """The version.

    Args:
        name: the package.
        source: ``npm:FOLDER`` (of tests/support), ``go:FOLDER``, ``pypi:dev``, ``pypi:interop`` or ``debian``.
    """
    kind, _, where = source.partition(":")
    if kind == "npm":
        lock = json.loads((_SUPPORT / where / "package-lock.json").read_text(encoding="utf-8"))
        return str(lock["packages"][f"node_modules/{name}"]["version"])
    if kind == "go":
        return _found(rf"(?m)^(?:require )?\s*{re.escape(name)} v(\S+)", _SUPPORT / where / "go.mod")
    if kind == "pypi":
        return _found(rf"(?m)^{re.escape(name)}==(\S+)", _REQUIREMENTS / f"{where}.txt")
    if kind == "debian":
        asked = ["dpkg-query", "-W", "-f=${Version}", name]
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    raise ValueError(source)


def _found(pattern: str, file: Path) -> str:
    found = re.search(pattern, file.read_text(encoding="utf-8"))
    if found is None:
        raise LookupError(f"{file}: {pattern}")
    return found[1]
