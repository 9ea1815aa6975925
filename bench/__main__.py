"""``python -m bench``: everything that is measured, one table after the other."""

import runpy
import sys

MODULES = ("bench.journeys", "bench.control", "bench.relay")

for module in MODULES:
    print(f"\n## {module}\n", flush=True)
    sys.argv = [module]
    runpy.run_module(module, run_name="__main__")
