"""``doorward ssh browser``: opens the page on which a person is asked about an ssh, where the client only announces it.

Control has the client at the source of an ssh open the page. Clients with a window do; elsewhere (Linux) the daemon says it on its bus
and nothing happens. This listens there. What arrives is a wish of whoever is control, so nothing is opened but a check's page
at the door that was known when this machine was set up, and no more than a few in a minute.
"""

import asyncio
import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

from doorward.cli import output
from doorward.cli.known_hosts import DEFAULT_SOCKET
from doorward.engine.base import EngineError
from doorward.engine.localapi import WATCH_CALMLY, WATCH_STATE, LocalApi
from doorward.errors import BadInput, NotFound

MOST, SPAN = 5, 60.0  # pages in so many seconds: a person answers one at a time
REMEMBERED = 100  # pages that are not opened twice
RETRY = 5.0  # seconds until a daemon that went away is asked again
_DOOR = re.compile(
    r"https?://(?:[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*|\[[0-9a-f:]+\])(?::[0-9]{1,5})?"
    r"(?:/[A-Za-z0-9_-][A-Za-z0-9._-]*)*"
)

Opened = Callable[[str], Coroutine[Any, Any, None]]


def browser(*, door: str, socket: Path = Path(DEFAULT_SOCKET)) -> None:
    """Open the page of an ssh that waits for you in your browser, by itself, until it is stopped.

    `doorward ssh setup` starts it with your session where systemd does that. It opens the pages of checks at this door and
    nothing else, with $BROWSER or else xdg-open. Clients with a window of their own need none of this.

    Example: `doorward ssh browser --door https://door.example.com`

    Args:
        door: The address at which doorward asks people.
        socket: Where tailscaled listens.
    """
    pages = Pages(door)
    command_for(f"{pages.door}/", os.environ)  # better said now than when somebody waits
    asyncio.run(watch(LocalApi(socket), pages, _open, _say))


def plain_door(door: str) -> str:
    """A door's address as its pages begin. Raises BadInput for anything but a scheme, a host, a port and a plain path."""
    found = door.removesuffix("/")
    if not _DOOR.fullmatch(found):
        raise BadInput(f"{door!r} is not a door", cure="Write it as https://door.example.com.")
    return found


class Pages:
    """Which of the links that arrive are opened.

    Args:
        door: the only one whose pages are.
    """

    def __init__(self, door: str) -> None:
        self.door = plain_door(door)
        # All of the link, to the end: what follows would be for somebody else to choose.
        self._page = re.compile(re.escape(self.door) + "/check/[a-z2-7]{32}")
        self._known: deque[str] = deque(maxlen=REMEMBERED)
        self._times: deque[float] = deque(maxlen=MOST)

    def admit(self, link: str, now: float) -> bool:
        """Whether to open this, at ``now`` seconds; what is admitted is remembered."""
        if not self._page.fullmatch(link) or link in self._known:
            return False
        if len(self._times) == MOST and now - self._times[0] < SPAN:
            return False
        self._known.append(link)
        self._times.append(now)
        return True


async def watch(
    daemon: LocalApi, pages: Pages, opened: Opened, say: Callable[[str], None], *, retry: float = RETRY
) -> None:
    """Open what the daemon announces and ``pages`` admits, until cancelled; a daemon that goes away is waited for.

    ``say`` gets a sentence whenever it is heard and when it no longer is.
    """
    said, listening = "", f"Listening for pages of {pages.door}."
    now = asyncio.get_running_loop().time
    async with asyncio.TaskGroup() as group:
        while True:
            try:
                # The state comes at once, and shows that we are heard.
                async with contextlib.aclosing(daemon.watch(WATCH_CALMLY | WATCH_STATE)) as notices:
                    async for notice in notices:
                        if said != listening:
                            said = listening
                            say(said)
                        link = notice.browse_to_url
                        if link is not None and pages.admit(link, now()):
                            group.create_task(opened(link))
            except EngineError as error:
                if said != error.sentence():
                    said = error.sentence()
                    say(said)
            await asyncio.sleep(retry)


def command_for(link: str, environ: Mapping[str, str]) -> list[str]:
    """The command that opens a link: the first of $BROWSER that is there, else the platform's. Raises NotFound."""
    platform = "open" if sys.platform == "darwin" else "xdg-open"
    for each in (*environ.get("BROWSER", "").split(os.pathsep), platform):
        try:
            words = shlex.split(each)
        except ValueError:
            continue
        if words and shutil.which(words[0], path=environ.get("PATH")):
            given = [word.replace("%s", link) for word in words]
            return given if given != words else [*words, link]
    raise NotFound("there is no program to open links with", cure="Install xdg-utils, or set BROWSER.")


def _say(sentence: str) -> None:
    output.line(sentence)
    sys.stdout.flush()


async def _open(link: str) -> None:
    try:
        command = command_for(link, os.environ)
        # In a session of its own: the browser goes on when this is stopped.
        process = await asyncio.create_subprocess_exec(
            *command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
        )
    except (OSError, NotFound) as error:
        output.note(f"doorward: {link} cannot be opened: {error}")
        return
    await process.wait()
