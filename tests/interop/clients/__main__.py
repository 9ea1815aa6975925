"""``python -m tests.interop.clients [pytest's arguments]``: every client, a table, and 1 where one fails."""

import sys

import pytest
from tests.interop.clients.table import Table
from tests.support.meeting import AGENTS
from tests.support.npm import installed
from tests.support.programs import prepare
from tests.support.venv import interop_python


def main() -> int:
    """Run and tell."""
    prepare()
    interop_python()
    installed(AGENTS)
    table = Table()
    ended = pytest.main(["-m", "client", *(sys.argv[1:] or ["tests/interop"])], plugins=[table])
    for line in table.lines():
        print(line)  # noqa: T201 - it is what was asked for
    return int(ended)


if __name__ == "__main__":
    sys.exit(main())
