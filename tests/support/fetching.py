"""A plain web request in tests: over TCP, TLS or a Unix socket, or through a stock client's SOCKS5 proxy, by curl."""

import json
from typing import Any, NamedTuple

from tests.support.netns import Host
from tests.support.openssh import run
from tests.support.programs import require


class Answer(NamedTuple):
    """What came back."""

    status: int
    text: str

    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.text)


async def fetch(url: str, *options: str, inside: Host | None = None) -> Answer:
    """Fetch with curl and more of its options, perhaps in a namespace.

    Raises AssertionError, with curl's words, where no answer came.
    """
    done = await run(
        [
            *(inside.command() if inside is not None else ()),
            str(require("curl")),
            "--silent",
            "--show-error",
            "--max-time",
            "40",
            "--write-out",
            "\n%{http_code}",
            *options,
            url,
        ]
    )
    text, _, status = done.stdout.rpartition("\n")
    return Answer(int(status), text)
