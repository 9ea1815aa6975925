"""The program's side of the lines that ``tests.support.house.Program`` speaks."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

Verb = Callable[..., Awaitable[Any]]
_LONGEST = 1 << 22


async def serve(verbs: Mapping[str, Verb]) -> None:
    """Answer each line ``{"do": NAME, ...}`` by what the verb of this name gives or raises, until there are no more."""
    reader = asyncio.StreamReader(limit=_LONGEST)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    while line := await reader.readline():
        given = json.loads(line)
        try:
            answer: dict[str, Any] = {"done": await verbs[given.pop("do")](**given)}
        except Exception as error:  # noqa: BLE001 - whatever it is, the test is told
            answer = {"error": type(error).__name__, "message": str(error), "told": {}}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
