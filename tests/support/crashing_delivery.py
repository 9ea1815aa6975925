"""A program that adds audit events as fast as it can, delivers them to a file, and says how many are committed, until killed.

Run as ``python tests/support/crashing_delivery.py LOCATION FILE``.
"""

import asyncio
import sys
from pathlib import Path

from tests.support.auditing import add_many

from doorward.audit.delivery import Delivery
from doorward.audit.destinations import FileDestination
from doorward.clock import SystemClock
from doorward.store import Database, audit


async def write(database: Database) -> None:
    while True:
        await database.run(add_many, 3)
        seq, _ = await database.read(audit.head)
        sys.stdout.write(f"{seq}\n")
        sys.stdout.flush()


async def deliver(delivery: Delivery) -> None:
    while True:
        await delivery.step()


async def main(location: str, file: Path) -> None:
    clock = SystemClock()
    database = await Database.open(location, clock=clock)
    async with asyncio.TaskGroup() as group:
        group.create_task(write(database))
        group.create_task(deliver(Delivery(database, FileDestination(file), clock, lambda: 0)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
