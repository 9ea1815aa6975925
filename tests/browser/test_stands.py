"""What a shell in a browser has to stand: a relay that starts anew, sleep, a policy that changes, floods, and hosts that mean harm.

What is marked so is too long for every run: `make stands` runs it.
"""

import asyncio
import contextlib
import itertools
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.clients import StockClient
from tests.support.desk import Desk, at_desk, ssh_to
from tests.support.devtools import PlainChromium
from tests.support.programs import require_root
from tests.support.require import missing
from tests.support.signed_in import begin
from tests.support.terminal import Terminal
from tests.support.waiting import eventually, until

from doorward.clock import SystemClock
from doorward.model import Identity, Provider
from doorward.store import Database, signin, users

pytestmark = [pytest.mark.interop, pytest.mark.root, pytest.mark.timeout(300)]

POLICY = ssh_to("root", "autogroup:nonroot")
MANY = 10  # tabs at once
# The browser's graphics card has another name, and whoever asks for it is noted.
CARD = """
window.asked = false;
const ask = WebGL2RenderingContext.prototype.getParameter;
WebGL2RenderingContext.prototype.getParameter = function (what) {
    if (what !== 0x1F01 && what !== 0x9246) return ask.call(this, what);
    window.asked = true;
    return NAME;
};
"""
# As a build: ten thousand lines a second, where they are taken; a file tells that it began, and then how many there were.
PRINTS = """import pathlib, sys, time
told = pathlib.Path(sys.argv[1])
told.write_text("")
began, count = time.monotonic(), 0
while not told.with_name("enough").exists():
    print("".join(f"{count + at} of the many lines that a build prints\\n" for at in range(1000)), end="", flush=True)
    count += 1000
    time.sleep(max(0, began + count / 10_000 - time.monotonic()))
told.write_text(str(count))
"""
ANSWERS = 10  # seconds in which a shell answers, whatever others print
MORE = 300 << 20  # bytes that a browser may take while ten shells print without end
SIZES = [(width, height) for width in range(400, 1300, 70) for height in (300, 700)]
WORDS = "grüße 漢字 🚪 e\u0301."


@pytest.fixture(scope="module")
async def place() -> AsyncIterator[tuple[Desk, StockClient]]:
    require_root()
    async with at_desk("server", policy=POLICY) as (desk, (server,)):
        yield desk, server


@pytest.fixture
async def desk(place: tuple[Desk, StockClient]) -> Desk:
    """Signed in anew: what a test does to a session is its own."""
    await place[0].sign_in()
    return place[0]


@contextlib.asynccontextmanager
async def shell(desk: Desk, browser: PlainChromium) -> AsyncIterator[Terminal]:
    terminal = await Terminal.at(desk, browser, "server", "root")
    try:
        await terminal.opened()
        await terminal.run("stty -echo; PS1='$ '; clear")
        yield terminal
    finally:
        await terminal.tab.close()


async def tabs_of(server: StockClient) -> list[str]:
    """The tabs that a machine has among its peers."""
    peers = ((await server.status())["Peer"] or {}).values()
    return [peer["HostName"] for peer in peers if peer["OS"] == "js"]


async def test_the_shell_goes_on_when_the_server_s_worker_was_killed(
    desk: Desk, browser: PlainChromium
) -> None:
    async with shell(desk, browser) as terminal:
        await terminal.run("kept=42")
        os.kill(desk.server.worker_pid(), signal.SIGKILL)
        await terminal.run("echo it is $kept", within=90)
        await terminal.shows("it is 42")


@pytest.mark.heavy
async def test_the_shell_goes_on_after_sleep(
    desk: Desk, browser: PlainChromium, place: tuple[Desk, StockClient]
) -> None:
    async with shell(desk, browser) as terminal:
        await terminal.type("for i in 1 2 3 4 5 6; do sleep 1; echo slept $i; done\n")
        await terminal.shows("slept 1")
        browser.sleep()
        try:
            # The relay is gone when it wakes: what sleep does to every connection.
            os.kill(desk.server.worker_pid(), signal.SIGKILL)
            await place[1].wait_until("Running")
            await asyncio.sleep(6)  # for so long the shell writes to somebody who does not hear
        finally:
            browser.wake()
        await terminal.shows("slept 6")
        await terminal.run("true")


async def test_a_policy_that_changes_and_a_sign_out_end_it_at_once_and_the_machine_forgets_the_tab(
    desk: Desk, browser: PlainChromium, place: tuple[Desk, StockClient]
) -> None:
    _, server = place
    async with shell(desk, browser) as terminal:
        assert await tabs_of(server) != []
        await desk.server.set_policy(ssh_to())
        assert "polic" in (await terminal.ended(20)).lower()
        await terminal.says("No node any more")
    await _nobody_left(server)
    await desk.server.set_policy(POLICY)
    await desk.knows("server", any_account=True)
    async with shell(desk, browser) as terminal, shell(desk, browser) as other:
        for session in (await desk.call("GET", f"/users/{desk.user}/sessions")).json():
            await desk.call("DELETE", f"/users/{desk.user}/sessions/{session['id']}")
        for one in (terminal, other):
            assert "sign" in (await one.ended(20)).lower()
    await _nobody_left(server)


async def test_who_is_unlinked_is_out_and_told_by_what_they_had_signed_in(
    browser: PlainChromium, place: tuple[Desk, StockClient]
) -> None:
    server, desk = place[0].server, Desk(place[0].server)
    async with await Database.open(server.folder / "doorward.db", clock=SystemClock()) as database:
        user = await database.read(users.by_name, desk.user)
        assert user is not None
        now = SystemClock().now()
        corp = Provider(id=0, name="corp", issuer="https://id.test", client_id="doorward", created=now)
        made = await database.run(signin.insert_provider, corp)
        subject = Identity(id=0, provider_id=made.id, subject="s", user_id=user.id, created=now)
        await database.run(signin.insert_identity, subject)
        desk.secret = await database.run(begin, user.id, desk.origin, method="provider:corp")
    async with shell(desk, browser) as terminal:
        asking = await Terminal.at(desk, browser, "server")
        await asking.says("As whom?")
        await server.run("users", "unlink", desk.user, "corp")
        await terminal.ended()
        await terminal.tab.run("document.querySelector('.pane.current .edge a').click()")
        await terminal.says("Use a passkey")
        await asking.tab.run("document.querySelector('.accounts button').click()")
        for text in ("You are not linked to a user of this tailnet", "link you to corp again", "Sign in"):
            await asking.says(text)
        await asking.tab.close()


async def _nobody_left(server: StockClient) -> None:
    async def is_gone() -> bool:
        return not await tabs_of(server)

    await eventually(is_gone, 30)


async def test_a_stolen_cookie_reaches_nothing_that_its_person_does_not(
    desk: Desk, place: tuple[Desk, StockClient]
) -> None:
    machine = (await desk.machine("server"))["id"]
    key = f"nodekey:{os.urandom(32).hex()}"
    own = next(one for one in (await desk.call("GET", "/console/machines")).json()["machines"])
    made = await desk.call("POST", "/console/tabs", {"node_key": key, "machine": machine, "account": "root"})
    assert made.status_code == 201, made.text
    tab = made.json()["id"]
    for target, account in ((999_999, "root"), (own["id"], ""), (machine, "x" * 500)):
        wider = await desk.call(
            "POST", f"/console/tabs/{tab}/targets", {"machine": target, "account": account}
        )
        assert wider.status_code >= 400, wider.text
    # From another page, or as an API that is not the page's own, it is worth nothing.
    foreign = await desk.call(
        "POST",
        "/console/tabs",
        {"node_key": key, "machine": machine, "account": "root"},
        Origin="https://evil.example",
    )
    assert foreign.status_code == 403
    assert (await desk.call("POST", f"/console/tabs/{tab}/leave")).status_code == 204
    await _nobody_left(place[1])


@pytest.mark.heavy
async def test_ten_tabs_at_once_each_with_a_node_of_its_own_that_outlives_doorward_s_restart(
    desk: Desk, browser: PlainChromium, place: tuple[Desk, StockClient], tmp_path: Path
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        terminals = [await stack.enter_async_context(shell(desk, browser)) for _ in range(MANY)]
        assert len(await tabs_of(place[1])) == MANY
        for number, terminal in enumerate(terminals):
            # Those behind others draw nothing, and work all the same.
            await terminal.run(f"echo {number} > {tmp_path}/{number}")
            assert (tmp_path / str(number)).read_text() == f"{number}\n"
        # Doorward is stopped and started, and none of them hears of it.
        await desk.server.stop()
        await desk.server.start()
        for number, terminal in enumerate(terminals):
            await terminal.run(f"echo {number} >> {tmp_path}/{number}", within=120)
            assert (tmp_path / str(number)).read_text() == f"{number}\n" * 2
    await _nobody_left(place[1])


@pytest.mark.heavy
async def test_floods_pastes_split_characters_and_storms_of_sizes_lose_nothing(
    desk: Desk, browser: PlainChromium, tmp_path: Path
) -> None:
    async with shell(desk, browser) as terminal:
        # As fast as it goes, and the last line is there.
        await terminal.run("seq 1 100000", within=90)
        await terminal.shows("100000")
        await _takes_a_megabyte(terminal, tmp_path)
        # Each byte in a write of its own.
        program = tmp_path / "split.py"
        program.write_text(
            "import os, time\n"
            f"for byte in {WORDS!r}.encode():\n"
            "    os.write(1, bytes([byte])); time.sleep(0.002)\n"
        )
        await terminal.run(f"clear; python3 {program}; echo")
        await terminal.shows(WORDS)
        # Many sizes, of which the last counts.
        for width in (*range(300, 1200, 60), 1000):
            await _resized(terminal, width, 600)
        await _host_knows_its_size(terminal, tmp_path)


@pytest.mark.heavy
async def test_a_storm_of_sizes_while_much_is_printed_tears_nothing(
    desk: Desk, browser: PlainChromium, tmp_path: Path
) -> None:
    async with shell(desk, browser) as terminal, asyncio.TaskGroup() as group:
        printing = group.create_task(terminal.run("seq 300000", within=120))
        sizes = itertools.cycle(SIZES)
        storm = 0
        while not printing.done() or storm < len(SIZES):
            await _resized(terminal, *next(sizes))
            storm += 1
        await _resized(terminal, 1000, 600)
        await _settled(terminal)
        shown = [row for row in await terminal.shown() if row.isdecimal()]
        assert shown == [str(number) for number in range(300_001 - len(shown), 300_001)]
        assert len(shown) > 10
        await _host_knows_its_size(terminal, tmp_path)


@pytest.mark.heavy
async def test_ten_shells_of_a_page_print_at_once_and_another_answers_and_takes_a_paste(
    desk: Desk, browser: PlainChromium, tmp_path: Path
) -> None:
    program = tmp_path / "prints.py"
    program.write_text(PRINTS)
    async with shell(desk, browser) as terminal:
        for number in range(MANY):
            await terminal.type(f"python3 {program} {tmp_path}/{number}\n")
            await _another(terminal, number + 2)
        await terminal.run("stty -echo; PS1='$ '; clear")
        for number in range(MANY):
            await until((tmp_path / f"{number}").exists, 60)
        begun = browser.memory()
        for _ in range(10):
            assert await terminal.run("true") < ANSWERS
        await _takes_a_megabyte(terminal, tmp_path)
        # They print all the while, and only what can be scrolled back to is kept of it.
        assert browser.memory() - begun < MORE
        (tmp_path / "enough").touch()
        await until(lambda: all((tmp_path / str(one)).read_text().isdecimal() for one in range(MANY)), 120)
        assert await terminal.run("true") < ANSWERS


async def _resized(terminal: Terminal, width: int, height: int) -> None:
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    await terminal.tab.ask("Emulation.setDeviceMetricsOverride", **size)


async def _another(terminal: Terminal, number: int) -> None:
    """One terminal more on the page, which is then the one that has the keys."""
    await terminal.tab.run("document.querySelector('[aria-label=\"New terminal\"]').click()")
    await terminal.tab.holds("document.querySelector('dialog [role=option]') !== null")
    await terminal.tab.run(
        "[...document.querySelectorAll('dialog [role=option]')].find(one => one.innerText.includes('root')).click()"
    )
    await terminal.tab.holds(f"document.querySelectorAll('[role=tab]').length === {number}")
    await terminal.opened()


async def _settled(terminal: Terminal) -> tuple[int, int]:
    """Its size, once what the page says does not change any more, and the host has been told."""
    seen: list[tuple[int, int]] = []

    async def is_still() -> bool:
        seen.append(await terminal.size())
        return len(seen) > 10 and len(set(seen[-10:])) == 1

    await eventually(is_still, 20)
    return seen[-1]


async def _host_knows_its_size(terminal: Terminal, folder: Path) -> None:
    """The host has been told the size that the page has, once that stays."""
    columns, rows = await _settled(terminal)
    await terminal.run(f"stty size > {folder}/size")
    assert (folder / "size").read_text().split() == [str(rows), str(columns)]


async def _takes_a_megabyte(terminal: Terminal, folder: Path) -> None:
    """A paste goes whole into a program that counts it, once that listens: before, the shell's own line editor has the keys."""
    text = "paste " * 174_762 + "over"
    await terminal.type(
        f"stty raw; printf '\\033]0;%s\\007' listening; head -c {len(text)} > {folder}/pasted;"
        " stty sane -echo; printf '\\033]0;%s\\007' pasted"
    )
    await terminal.timed("listening")
    await terminal.paste(text)
    await terminal.tab.holds("document.title.startsWith('pasted')", 90)
    assert (folder / "pasted").read_text() == text


@pytest.mark.parametrize(("card", "canvas"), [("llvmpipe (LLVM 15.0.6, 256 bits)", False), ("A Card", True)])
async def test_a_card_draws_the_screen_and_where_there_is_none_elements_do(
    desk: Desk, browser: PlainChromium, card: str, *, canvas: bool
) -> None:
    terminal = await Terminal.at(
        desk, browser, "server", "root", before=CARD.replace("NAME", json.dumps(card))
    )
    try:
        await terminal.opened()
        if not await terminal.tab.run(
            "document.createElement('canvas').getContext('webgl2', {failIfMajorPerformanceCaveat: true}) !== null"
        ):
            missing("this browser has no WebGL here")
        await terminal.tab.holds("window.asked")
        has_canvas = "document.querySelector('.pane.current .xterm canvas') !== null"
        if canvas:
            await terminal.tab.holds(has_canvas)
        await terminal.run(
            "PS1='$ '; seq 3000; echo seen 3001"
        )  # a prompt's own title would take the place of the one that is waited for
        await terminal.shows("seen 3001")
        assert await terminal.tab.run(has_canvas) is canvas
    finally:
        await terminal.tab.close()


@pytest.mark.heavy
async def test_a_hostile_host_draws_on_its_screen_and_does_nothing_else(
    desk: Desk, browser: PlainChromium, tmp_path: Path
) -> None:
    program, heard = tmp_path / "hostile.py", tmp_path / "heard"
    program.write_text(HARM.format(pieces=HOSTILE, heard=str(heard)))
    async with shell(desk, browser) as terminal:
        await terminal.run(f"python3 {program}", within=90)
        # What a terminal answers by itself are a few numbers, and nothing that the host has chosen.
        answers = heard.read_bytes()
        assert len(answers) < 2000
        assert not any(word in answers for word in (b"stolen", b"evil", b"xxx", b"img", b"\r", b"\n"))
        page = await terminal.tab.run(
            "({title: document.title, frames: document.querySelectorAll('iframe').length,"
            " scripts: [...document.scripts].filter(one => !one.src && one.type !== 'application/json').length,"
            " path: location.pathname})"
        )
        assert page["path"] == "/terminal/server/root"
        assert (page["frames"], page["scripts"]) == (0, 0)
        assert len(page["title"]) < 300
        assert "<img" not in await terminal.tab.run("document.querySelector('.pane-title')?.innerHTML ?? ''")
        # The clipboard is asked about.
        assert "clipboard" in await terminal.tab.run("document.querySelector('dialog[open]').innerText")
        await terminal.tab.run("document.querySelectorAll('dialog button').forEach(one => one.click())")
        await terminal.run("clear; echo alive")
        await terminal.shows("alive")


# Writes all of it, and what follows from any bytes at all; then asks the terminal how it is, and hears all answers until that one.
HARM = """import os, sys, termios, tty
before = termios.tcgetattr(0)
tty.setraw(0)
for piece in {pieces!r}:
    sys.stdout.buffer.write(piece.encode("utf-8", "surrogateescape"))
sys.stdout.buffer.write(b"\\033c" + os.urandom(200_000) + b"\\033\\\\\\033c\\033[5n")
sys.stdout.buffer.flush()
heard = b""
while not heard.endswith(b"\\033[0n"):
    heard += os.read(0, 65536)
termios.tcsetattr(0, termios.TCSANOW, before)
open({heard!r}, "wb").write(heard)
"""
HOSTILE = [
    "\033]0;" + "x" * 100_000 + "\007",  # a title without end
    "\033]0;<img src=x onerror=alert(1)>\u202e\007",
    "\033]52;c;c3RvbGVu\007",  # the clipboard, written
    "\033]52;c;?\007",  # and read
    "\033]8;;javascript:alert(1)\033\\click\033]8;;\033\\",
    "\033]8;;https://evil.example/\033\\https://door.example/\033]8;;\033\\",
    '\033[21t\033[20t\033[>c\033[6n\033[c\033P$q"p\033\\\033[14t\033[18t',  # reports that would be typed back
    "\033[8;1;1t\033[3;0;0t\033[2t\033[9;1t",  # the window moved and made small
    "\033]4;" + ";".join(f"{index};#{index:06x}" for index in range(256)) + "\007",
    "\033Pq" + "#0;2;0;0;0~-" * 1000 + "\033\\",  # pictures
    "\033]1337;File=inline=1:" + "A" * 10_000 + "\007",
    "\033[" + "9" * 10_000 + "C" + "\033[99999;99999H\033[2147483647b" + "\033[1;1r",
    "\udcff\udcfe\udcc0\udc80" * 100,  # no UTF-8
    "e" + "\u0301" * 5000,
    "\033[?1049h\033[?1000h\033[?2004h\033[?1h\033=",
    "\007" * 500,
]
