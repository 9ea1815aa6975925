"""A shell whose relay means harm: in Chromium, on a real machine, with a proxy between them that spoils what it passes on.

Too long for every run: `make stands` runs it.
"""

from pathlib import Path

import pytest
from tests.support.desk import at_desk, ssh_to
from tests.support.devtools import plain_chromium
from tests.support.hostile_relay import hostile_relay
from tests.support.programs import require_root
from tests.support.terminal import Terminal

pytestmark = [pytest.mark.interop, pytest.mark.root, pytest.mark.timeout(300), pytest.mark.heavy]

LINES = 100_000
WILES = {"lost", "repeated", "repeated late", "forged", "made up", "swapped"}


async def test_what_a_relay_loses_repeats_swaps_and_forges_changes_nothing_of_a_shell(tmp_path: Path) -> None:
    require_root()
    async with (
        at_desk("server", policy=ssh_to("root")) as (desk, _),
        hostile_relay(desk.server.listens_at) as relay,
    ):
        options = [f"--proxy-server=http://127.0.0.1:{relay.port}", "--proxy-bypass-list=<-loopback>"]
        async with plain_chromium(tmp_path, options) as browser:
            terminal = await Terminal.at(desk, browser, "server", "root")
            await terminal.opened()
            await terminal.run("stty -echo; PS1='$ '; clear; kept=42")
            for number in range(20):
                await terminal.run(f"echo {number} >> {tmp_path}/typed")
            assert (tmp_path / "typed").read_text().split() == [str(number) for number in range(20)]
            await terminal.run(f"seq 1 {LINES}", within=120)
            await terminal.shows(str(LINES))
            shown = [row for row in await terminal.shown() if row.isdecimal()]
            assert shown == [str(number) for number in range(LINES - len(shown) + 1, LINES + 1)]
            assert set(relay.done) == WILES
            # What cannot be understood ends the connection, and not the shell.
            relay.babble()
            await terminal.run("echo it is $kept", within=120)
            await terminal.shows("it is 42")
            assert relay.done["babbled"] > 0
            await terminal.tab.close()
