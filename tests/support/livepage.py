"""The node of a page of the console, run by Node.js: what it is told to do, and what it tells."""

import asyncio
import contextlib
import json
from collections.abc import Callable
from typing import Any, Self

from tests.support.desk import Desk
from tests.support.livenode import script
from tests.support.npm import node

from doorward.engine.processes import stop

Event = dict[str, Any]
PATIENCE = 60.0


class LivePage:
    """A page of somebody who sits at a desk. ``async with`` starts it and ends it; ``heard`` is all that it has told.

    Args:
        desk: where they are signed in.
    """

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.heard: list[Event] = []
        self._terminals = 0
        self._news = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._group = asyncio.TaskGroup()

    async def __aenter__(self) -> Self:
        program = script("page")
        cookie = f"{self.desk.cookie}={self.desk.secret or await self.desk.sign_in()}"
        self._process = await asyncio.create_subprocess_exec(
            node(),
            program,
            json.dumps({"origin": self.desk.origin, "cookie": cookie}),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        await self._group.__aenter__()
        self._group.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process is not None
        await stop(self._process, 1)
        await self._group.__aexit__(None, None, None)

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self.heard.append(json.loads(line))
            self._news.set()
        self._news.set()

    def tell(self, do: str, **more: Any) -> None:
        """Have it do something."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **more}).encode() + b"\n")

    def open(self, machine: int | str, account: str) -> int:
        """Open a terminal; its number."""
        self.tell("open", machine=machine, account=account)
        self._terminals += 1
        return self._terminals - 1

    def said(self, event: str, number: int | None = None) -> list[Event]:
        """All that was told of one kind, of one terminal where it is of one."""
        return [
            one for one in self.heard if one["event"] == event and (number is None or one.get("id") == number)
        ]

    def printed(self, number: int) -> str:
        """What a terminal has printed."""
        return "".join(one["text"] for one in self.said("data", number))

    async def until(self, holds: Callable[[], Any]) -> Any:
        """Wait until something that it tells is so; what ``holds`` gives then. It has ended when it tells nothing more."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                while not (found := holds()):
                    self._news.clear()
                    await self._news.wait()
                return found
        raise AssertionError(f"it never was so; the last that was heard: {self.heard[-12:]}")

    async def ended(self, number: int) -> Event:
        """How a terminal ended, once it has."""
        return (await self.until(lambda: self.said("end", number)))[-1]  # type: ignore[no-any-return]
