"""A program that redeems codes as fast as it can and says which were acknowledged, until killed.

Run as ``python tests/support/redeeming.py LOCATION``, over a database with one app and its grants.
"""

import asyncio
import sys

from tests.support import nouns

from doorward.clock import SystemClock
from doorward.issuer.grants.authorization_code import Redemption, redeem_all
from doorward.store import Database, apps
from doorward.tailnet import secrets


async def main(location: str) -> None:
    async with await Database.open(location, clock=SystemClock()) as database:
        (app,) = await database.read(apps.load_all)
        number = 1
        while (grant := await database.read(apps.grant_by_id, number)) is not None:
            token = secrets.make("dwrefresh", number.to_bytes(24))
            if await database.share(redeem_all, Redemption(app, grant.id, token, nouns.NOW)):
                sys.stdout.write(f"{grant.id}\n")
                sys.stdout.flush()
            number += 1


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
