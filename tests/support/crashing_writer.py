"""A program that writes users, nodes and audit events as fast as it can and says what was acknowledged, until killed.

Run as ``python tests/support/crashing_writer.py LOCATION ROUND``.
"""

import asyncio
import sys
from itertools import count

from sqlalchemy import Connection
from tests.support import nouns

from doorward.clock import SystemClock
from doorward.store import Database, audit, nodes, users


def register(connection: Connection, number: int) -> str:
    """Three rows that belong together: all of them or none must be found afterwards."""
    person = users.insert(connection, nouns.user(number))
    node = nodes.insert(connection, nouns.node(number, person.id))
    audit.append(connection, "cli", "node.register", f"node:{node.stable_id}", {"number": number}, nouns.NOW)
    return node.stable_id


async def write(database: Database, numbers: "count[int]") -> None:
    while True:
        stable_id = await database.run(register, next(numbers))
        sys.stdout.write(stable_id + "\n")
        sys.stdout.flush()


async def main(location: str, attempt: int) -> None:
    database = await Database.open(location, clock=SystemClock())
    numbers = count(attempt * 100_000)
    async with asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(write(database, numbers))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
