"""A browser's tab without a browser: its protocols run by Node.js, and what its page asks of the API."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any, Self

from nacl.bindings import crypto_scalarmult_base
from tests.support.desk import Desk
from tests.support.livenode import script
from tests.support.npm import node

PATIENCE = 60.0


class LiveTab:
    """A tab of somebody who has signed in.

    Args:
        desk: where they sit.
        number: which; its key follows from it.
    """

    def __init__(self, desk: Desk, number: int = 1) -> None:
        self.desk = desk
        self.private = bytes([number]) * 32
        self.key = "nodekey:" + crypto_scalarmult_base(self.private).hex()
        self.tab: dict[str, Any] = {}
        self.banners = ""
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        program = script("tab")
        self._process = await asyncio.create_subprocess_exec(
            node(),
            program,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        process = self._process
        assert process is not None
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    # -- what its page asks

    async def open(self, machine: str, account: str) -> dict[str, Any]:
        """Have it made a node, and dial its relay and the machine."""
        machines = (await self.desk.call("GET", "/console/machines")).json()["machines"]
        number = next(one["id"] for one in machines if one["name"] == machine)
        body = {"node_key": self.key, "machine": number, "account": account}
        answer = await self.desk.call("POST", "/console/tabs", body)
        assert answer.status_code == 201, answer.text
        self.tab = answer.json()
        return self.tab

    async def state(self) -> dict[str, Any]:
        """How it is, as its page is told."""
        answer: dict[str, Any] = (await self.desk.call("GET", f"/console/tabs/{self.tab['id']}")).json()
        return answer

    async def is_over(self) -> bool:
        """Whether its page is told that it is over."""
        return bool((await self.state()).get("state") == "over")

    # -- what it does

    async def tell(self, do: str, **more: Any) -> None:
        """Have it do something."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write((json.dumps({"do": do, **more}) + "\n").encode())
        await self._process.stdin.drain()

    async def hear(self) -> dict[str, Any]:
        """What came of the last thing that it was told."""
        assert self._process is not None
        assert self._process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            while line := await self._process.stdout.readline():
                said: dict[str, Any] = json.loads(line)
                if "banner" not in said:
                    return said
                self.banners += said["banner"]
        raise AssertionError("the tab's program has ended")

    async def banner(self, word: str) -> str:
        """Wait until the host has said a word, and no answer has come."""
        assert self._process is not None
        assert self._process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            while word not in self.banners:
                said = json.loads(await self._process.stdout.readline())
                assert "banner" in said, said
                self.banners += said["banner"]
        return self.banners

    async def do(self, what: str, **more: Any) -> dict[str, Any]:
        """Have it do something; what came of it."""
        await self.tell(what, **more)
        said = await self.hear()
        assert "did" in said, said
        found: dict[str, Any] = said["did"]
        return found

    async def dial(self, family: int = 0) -> None:
        """The relay of its door, and a tunnel to its only target."""
        (target,) = self.tab["targets"]
        (region,) = self.tab["relays"]["regions"].values()
        await self.do(
            "dial",
            url=region["urls"][0].removesuffix("/derp").replace("ws", "http", 1),
            private=self.private.hex(),
            peer=target["node_key"].removeprefix("nodekey:"),
            local=self.tab["addresses"][family],
            remote=target["addresses"][family],
        )

    def keys(self) -> list[str]:
        """The host keys of its only target."""
        return [line.split()[1] for line in self.tab["targets"][0]["host_keys"]]

    async def ssh(self, account: str) -> int:
        """A shell that repeats what it hears; its process id."""
        pid: int = (await self.do("ssh", user=account, keys=self.keys()))["pid"]
        return pid

    async def works(self, text: str, seconds: float = 30) -> bool:
        """Whether the shell still repeats."""
        return bool((await self.do("say", text=text, within=seconds))["heard"])


@contextlib.asynccontextmanager
async def shell(
    desk: Desk, machine: str, account: str, number: int = 1
) -> AsyncIterator[tuple[LiveTab, int]]:
    """A tab with a shell on a machine, and the shell's process id."""
    async with LiveTab(desk, number) as tab:
        await tab.open(machine, account)
        await tab.dial()
        yield tab, await tab.ssh(account)
