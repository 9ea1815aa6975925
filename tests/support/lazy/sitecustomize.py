"""Loaded by every Python that has this folder on PYTHONPATH: doorward writes nothing of what it observes before an hour is over.

What is in its database until then was written at once.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType


class _Lazy(MetaPathFinder):
    """Changes the module when it is loaded: to load it here would hold up every start of doorward."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "doorward.tailnet.observe":
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        assert spec is not None
        loader = spec.loader
        assert loader is not None
        execute = loader.exec_module

        def changed(module: ModuleType) -> None:
            execute(module)
            module.FLUSH_INTERVAL = 3600.0  # type: ignore[attr-defined]

        loader.exec_module = changed  # type: ignore[method-assign]
        return spec


sys.meta_path.insert(0, _Lazy())
