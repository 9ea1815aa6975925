"""``python -m tests.interop.clients [pytest's arguments]``: every client, a table, and 1 where one fails."""

import subprocess
import sys

import pytest
from tests.interop.clients.table import Table


def main() -> int:
    """Run and tell."""
    # In a process of its own: what it imports pytest wants to import itself.
    subprocess.run([sys.executable, "-m", "tests.support.programs", "heavy"], check=True)
    table = Table()
    ended = pytest.main(["-m", "client", *(sys.argv[1:] or ["tests/interop"])], plugins=[table])
    for line in table.lines():
        print(line)  # noqa: T201 - it is what was asked for
    return int(ended)


if __name__ == "__main__":
    sys.exit(main())
