"""The demo's console: the link that opens it, and the check that it does.

The link is made anew at every start, for the owner, and works once, on this computer. It is a secret, so it is shown on a terminal
alone; elsewhere only the file that it is in is named.
"""

import asyncio
import json
import re
from pathlib import Path

import httpx2
from rich.console import Console

from doorward.errors import Unavailable

_PATIENCE = 20.0  # seconds until a page has answered


def told_of(file: Path, *, shown: bool) -> str:
    """What to do with the link in a file; the link itself only where it is ``shown`` to somebody who reads it now."""
    if not shown:
        return f"The link that opens the console in a browser, good once and for an hour, is in {file}\n\n"
    return (
        "Open the console in a browser on this computer, by a link that works once; there SSH beside a machine is a shell.\n\n"
        f"    [bold green]{link_in(file)}[/bold green]\n\n"
    )


def link_in(file: Path) -> str:
    """The link in a file that ``doorward users sign-in`` has made."""
    return file.read_text(encoding="utf-8").strip()


async def check(
    link: str, machine: str, console: Console, *, transport: httpx2.AsyncBaseTransport | None = None
) -> int:
    """Open the console by a link, as a browser would; 0 if it shows ``machine`` with a way in, and 1 if not.

    Raises Unavailable where the page does not answer.
    """
    try:
        async with (
            asyncio.timeout(_PATIENCE),
            httpx2.AsyncClient(follow_redirects=True, timeout=_PATIENCE, transport=transport) as browser,
        ):
            asked = await browser.get(link)
            # The button of the page.
            opened = await browser.post(
                link, data={}, headers={"Content-Type": "application/x-www-form-urlencoded"}
            )
            again = await browser.get(link)
    except (httpx2.HTTPError, TimeoutError) as error:
        raise Unavailable(
            "the console does not answer", cure="The log of doorward says why.", detail=str(error)
        ) from None
    found = re.search(r'id="bootstrap">(.*?)</script>', opened.text, re.DOTALL)
    machines = json.loads(found[1])["machines"] if found else []
    ways = [one for one in machines if one["name"] == machine and (one["ways"] or one["any_account"])]
    works = (asked.status_code, opened.status_code, again.status_code) == (200, 200, 404) and bool(ways)
    said = f"shows {len(machines)} machines, and a way into {machine}" if works else "does not open"
    console.print(f"{opened.url} {said}: by a link that works once", highlight=False, soft_wrap=True)
    return 0 if works else 1
