"""People who have signed in at the console of a real server, in a browser on doorward's own machine."""

import contextlib
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx2
from tests.support.bundle import built
from tests.support.clients import StockClient
from tests.support.devtools import PlainChromium, Tab
from tests.support.machines import machines
from tests.support.server import Server
from tests.support.signed_in import begin
from tests.support.waiting import eventually

from doorward.clock import SystemClock
from doorward.login.doors import place_of
from doorward.login.sessions import cookie_name
from doorward.store import Database, users


class Desk:
    """A person's browser at the second door of a server.

    Args:
        server: whose console it is.
        user: who sits there; exists.
    """

    def __init__(self, server: Server, user: str = "alice") -> None:
        self.server = server
        self.user = user
        self.origin = f"http://localhost:{server.listens_at[1]}"
        self.cookie = cookie_name(place_of(self.origin))
        self.secret = ""  # of the cookie, once signed in

    async def sign_in(self, *, proven_ago: timedelta = timedelta(0)) -> str:
        """Have a session as a sign-in makes one; returns the cookie's secret."""
        async with await Database.open(self.server.folder / "doorward.db", clock=SystemClock()) as database:
            person = await database.read(users.by_name, self.user)
            assert person is not None, f"no {self.user}"
            self.secret = await database.run(begin, person.id, self.origin, proven_ago=proven_ago)
        return self.secret

    async def open(self, browser: PlainChromium, path: str) -> Tab:
        """A page of the console in a new tab, signed in."""
        tab = await browser.tab()
        await browser.cookie(tab, self.origin, self.cookie, self.secret or await self.sign_in())
        await tab.go(f"{self.origin}{path}")
        return tab

    async def call(self, method: str, path: str, body: Any = None, **headers: str) -> httpx2.Response:
        """One call of the API, as a page of the console makes it."""
        sent = {"Origin": self.origin, "Sec-Fetch-Site": "same-origin", **headers}
        cookies = {self.cookie: self.secret or await self.sign_in()}
        async with httpx2.AsyncClient(trust_env=False, timeout=30, cookies=cookies) as client:
            return await client.request(method, f"{self.origin}/api/v1{path}", json=body, headers=sent)

    async def machine(self, name: str) -> dict[str, Any]:
        """What the console knows of a machine."""
        known = (await self.call("GET", "/console/machines")).json()["machines"]
        found: dict[str, Any] = next(one for one in known if one["name"] == name)
        return found

    async def knows(self, name: str, **facts: Any) -> None:
        """Wait until the console knows these facts of a machine; without any, that it takes Tailscale SSH."""
        wanted = facts or {"online": True, "ssh": "tailscale"}

        async def is_known() -> bool:
            machine = await self.machine(name)
            return machine | wanted == machine

        await eventually(is_known, 30)


@contextlib.asynccontextmanager
async def at_desk(*names: str, policy: str, **settings: str) -> AsyncIterator[tuple[Desk, list[StockClient]]]:
    """Alice at her desk, signed in, and machines of hers that take Tailscale SSH; ``settings`` as ``CONSOLE_GRACE="2s"``."""
    built()
    environ = {f"DOORWARD_{name}": value for name, value in settings.items()}
    async with Server(environ=environ) as server, machines(server, *names) as clients:
        await server.set_policy(policy)
        for client in clients:
            await client.cli("set", "--ssh")
        desk = Desk(server)
        await desk.sign_in()
        for name in names:
            await desk.knows(name)
        yield desk, clients


def ssh_to(*accounts: str, action: str = "accept", **more: str) -> str:
    """A policy in which people reach their own devices, and ssh to them as these accounts; without any, as nobody."""
    rule = {
        "action": action,
        "src": ["autogroup:member"],
        "dst": ["autogroup:self"],
        "users": accounts,
        **more,
    }
    grant = {"src": ["autogroup:member"], "dst": ["autogroup:self"], "ip": ["*"]}
    return json.dumps({"grants": [grant], "ssh": [rule] if accounts else []})
