"""A shell in a browser's tab: how much is loaded, how soon it is there, and how fast it is then.

Chromium is plainly started, so that nobody listens in on its WebSockets, and sits on the server's machine. Both nodes use the
relay alone. The baseline is OpenSSH through a stock client that has to use the same relay, to the same machine.

*Cold* is the page by its address with an empty cache; *warm* is the same once more. Both end with the shell's first byte. An
*echo* is from a key's event in the page until the page's terminal has read what a program answered to it, with as long between
two keys as between those of a held one: without a pause each key would wait for the picture of the one before. *Bulk* is a file of
lines of text, from Enter until all of it has been through the terminal. Files go through the page's panel of files.
"""

import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tests.support.bundle import built
from tests.support.clients import StockClient
from tests.support.desk import Desk
from tests.support.devtools import PlainChromium, plain_chromium
from tests.support.machines import all_ready
from tests.support.server import Server
from tests.support.terminal import Terminal
from tests.support.waiting import eventually

from bench.journeys import first_byte, works
from bench.table import Better, Figures, Found, Group, Options, Row
from doorward.engine.processes import stop

HEADPLANE = 8_700  # kB, the gzipped program of Headplane's page, without its fonts (38.9 MB unpacked)
RELAYED = {"TS_DEBUG_ALWAYS_USE_DERP": "1"}
BETWEEN_KEYS = 1 / 30  # seconds; nobody types faster
LINE = "all work and no play makes a terminal a dull boy, and 80 columns are as many as he has\n"
ECHO = """import os, termios, tty
before = termios.tcgetattr(0)
tty.setraw(0)
count = 0
os.write(1, b"\\033]0;echo-0\\007")
while os.read(0, 1) == b"a":
    count += 1
    os.write(1, b"\\033]0;echo-%d.\\007" % count)
termios.tcsetattr(0, termios.TCSADRAIN, before)
os.write(1, b"\\033]0;echo-over\\007")
"""
_SIZES = """(() => {
    const all = [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")];
    const code = all.filter(one => /\\.(js|css)$|\\/terminal\\//.test(new URL(one.name).pathname));
    return code.map(one => [new URL(one.name).pathname, one.encodedBodySize]);
})()"""

_ENTRY = (
    "[...document.querySelectorAll('.files .entries button')].find(one => one.innerText.startsWith('text'))"
)
_GO = """(() => {
    const field = document.querySelector(".files form input");
    field.value = FOLDER;
    field.dispatchEvent(new Event("input", {bubbles: true}));
    field.form.requestSubmit();
})()"""
# Resolves once nothing moves any more.
_MOVED = """
    const began = performance.now();
    const before = document.querySelectorAll(".transfers > li").length;
    const finished = new Promise((resolve, reject) => {
        const watch = new MutationObserver(() => {
            const all = [...document.querySelectorAll(".transfers > li")];
            if (all.length === before) return;
            if (all.at(-1).matches(".failed, .stopped")) reject(new Error(all.at(-1).innerText));
            else if (all.at(-1).matches(".done")) resolve(performance.now() - began);
        });
        watch.observe(document.body, {childList: true, subtree: true, attributes: true, characterData: true});
    });
"""
_DROP = f"""(() => {{
    {_MOVED}
    const carried = new DataTransfer();
    carried.items.add(new File([new Uint8Array(SIZE)], "from-the-tab"));
    document.querySelector(".pane.current").dispatchEvent(
        new DragEvent("drop", {{dataTransfer: carried, bubbles: true, cancelable: true}}));
    return finished;
}})()"""
_CLICK = f"""(async () => {{
    let bytes = 0;
    const count = new WritableStream({{write: piece => {{ bytes += piece.length; }}}});
    window.showSaveFilePicker = async () => ({{createWritable: async () => count}});
    {_MOVED}
    {_ENTRY}.click();
    return [await finished, bytes];
}})()"""


@contextlib.asynccontextmanager
async def _office() -> AsyncIterator[tuple[Desk, StockClient]]:
    """Alice's browser, and her laptop; both see a machine called server."""
    built()
    async with (
        Server() as server,
        StockClient("laptop", environ=RELAYED) as laptop,
        StockClient("server", environ=RELAYED) as target,
    ):
        await server.user("alice")
        for client in (laptop, target):
            await client.up(server.url, await server.key("--user", "alice"))
        await target.cli("set", "--ssh")
        await all_ready([laptop, target])
        await eventually(lambda: works(laptop.ssh_command("root@server", "true")), within=30)
        desk = Desk(server)
        await desk.sign_in()
        yield desk, laptop


async def _opened(desk: Desk, browser: PlainChromium, *, cold: bool) -> tuple[float, Terminal]:
    """The seconds from the address to the first byte of the shell, and the terminal."""
    empty = await browser.tab()
    if cold:
        await empty.ask("Network.clearBrowserCache")
    await empty.close()
    terminal = await Terminal.at(desk, browser, "server", "root", reader=False)
    at = await terminal.tab.holds("performance.getEntriesByName('terminal:first-byte')[0]?.startTime")
    await terminal.opened()
    return at / 1000, terminal


async def bench_opening(options: Options) -> Found:
    """The page, and the way to the shell."""
    found = {name: Figures() for name in ("tab-page", "tab-cold", "tab-warm")}
    found["tab-page"].baseline.append(HEADPLANE)
    async with _office() as (desk, laptop):
        with tempfile.TemporaryDirectory(prefix="dw-bench-", ignore_cleanup_errors=True) as folder:
            async with plain_chromium(Path(folder)) as browser:
                for _ in range(options.rounds):
                    for name in ("tab-cold", "tab-warm"):
                        taken, terminal = await _opened(desk, browser, cold=name == "tab-cold")
                        found[name].samples.append(taken)
                        if name == "tab-cold":
                            await terminal.tab.holds(
                                "performance.now() > 2000"
                            )  # what comes after the first paint
                            sizes = await terminal.tab.run(_SIZES)
                            found["tab-page"].samples.append(sum(size for _, size in sizes) / 1000)
                        await terminal.tab.close()
                    command = laptop.ssh_command("root@server", "true")
                    taken = await first_byte(*command[:-1], "-tt")
                    found["tab-cold"].baseline.append(taken)
                    found["tab-warm"].baseline.append(taken)
    found["tab-page"].note = "its scripts, styles and Worker as they travel; Headplane's fonts are 12 MB more"
    return found


async def bench_using(options: Options) -> Found:
    """What it is like once it is open."""
    size, keys = (200_000, 20) if options.smoke else (30_000_000, 200)
    found = {name: Figures() for name in ("tab-echo", "tab-bulk", "tab-down", "tab-up")}
    with tempfile.TemporaryDirectory(prefix="dw-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "text").write_text(LINE * (size // len(LINE)))
        (folder / "echo.py").write_text(ECHO)
        (folder / "chromium").mkdir()
        whole = (folder / "text").stat().st_size
        megabytes = whole / 1e6
        async with _office() as (desk, laptop), plain_chromium(folder / "chromium") as browser:
            _, terminal = await _opened(desk, browser, cold=False)
            await _show(terminal, folder)
            for _ in range(options.rounds):
                echoes, theirs = (
                    await _echoes(terminal, folder, keys),
                    await _stock_echoes(laptop, folder, keys),
                )
                found["tab-echo"].samples.append(_p95(echoes))
                found["tab-echo"].baseline.append(_p95(theirs))
                bulk = await terminal.run(f"cat {folder}/text", within=300)
                found["tab-bulk"].samples.append(megabytes / bulk)
                down = megabytes / await _stock(laptop, f"cat {folder}/text", "-tt")
                found["tab-bulk"].baseline.append(down)
                up = megabytes / await _stock(laptop, "cat > /dev/null", sends=folder / "text")
                found["tab-up"].samples.append(megabytes / await _upload(terminal, folder, whole))
                found["tab-up"].baseline.append(up)
                found["tab-down"].samples.append(megabytes / await _download(terminal, whole))
                found["tab-down"].baseline.append(megabytes / await _stock(laptop, f"cat {folder}/text"))
            found["tab-bulk"].note = await _drawn_by(terminal)
    return found


async def _echoes(terminal: Terminal, folder: Path, keys: int) -> list[float]:
    """Milliseconds from each key to its answer."""
    await terminal.type(f"python3 {folder}/echo.py")
    await terminal.timed("echo-0")
    taken = []
    for number in range(1, keys + 1):
        await asyncio.sleep(BETWEEN_KEYS)
        taken.append(1000 * await terminal.timed(f"echo-{number}.", key="a", code=65))
    await terminal.timed("echo-over", key="q", code=81)
    return taken


async def _stock_echoes(laptop: StockClient, folder: Path, keys: int) -> list[float]:
    command = laptop.ssh_command("root@server", f"python3 {folder}/echo.py")
    process = await asyncio.create_subprocess_exec(
        *command[:-2],
        "-tt",
        *command[-2:],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    taken = []
    try:
        async with asyncio.timeout(60):
            await process.stdout.readuntil(b"\a")
            for _ in range(keys):
                await asyncio.sleep(BETWEEN_KEYS)
                began = time.perf_counter()
                process.stdin.write(b"a")
                await process.stdout.readuntil(b"\a")
                taken.append(1000 * (time.perf_counter() - began))
    finally:
        await stop(process, 1)
    return taken


def _p95(values: list[float]) -> float:
    return statistics.quantiles(values, n=20)[-1]


async def _stock(laptop: StockClient, command: str, *options: str, sends: Path | None = None) -> float:
    """Seconds that a command takes over OpenSSH, with all of its output."""
    whole = laptop.ssh_command("root@server", command)
    with (sends or Path(os.devnull)).open("rb") as given:
        began = time.perf_counter()
        process = await asyncio.create_subprocess_exec(
            *whole[:-2], *options, *whole[-2:], stdin=given, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert process.stdout is not None
        async with asyncio.timeout(300):
            while await process.stdout.read(1 << 20):
                pass
            await process.wait()
    if process.returncode:
        raise RuntimeError(f"ssh ended with {process.returncode}")
    return time.perf_counter() - began


async def _upload(terminal: Terminal, folder: Path, size: int) -> float:
    """Seconds for a file of so many bytes that is dropped on the terminal."""
    sent = folder / "from-the-tab"
    sent.unlink(missing_ok=True)
    taken: float = await terminal.tab.run(_DROP.replace("SIZE", str(size)), 300)
    if sent.stat().st_size != size:
        raise RuntimeError(f"{sent.stat().st_size} bytes arrived of {size}")
    return taken / 1000


async def _download(terminal: Terminal, size: int) -> float:
    """Seconds for the file of text, read to its end and kept nowhere."""
    taken, read = await terminal.tab.run(_CLICK, 300)
    if read != size:
        raise RuntimeError(f"{read} bytes arrived of {size}")
    return float(taken) / 1000


async def _show(terminal: Terminal, folder: Path) -> None:
    """Have the panel of files there, with a folder in it."""
    await terminal.tab.run("document.querySelector('.pane.current [aria-label=Files]').click()")
    await terminal.tab.holds("document.querySelector('.files .entries li') !== null")
    await terminal.tab.run(_GO.replace("FOLDER", json.dumps(str(folder))))
    await terminal.tab.holds(f"{_ENTRY} !== undefined")


async def _drawn_by(terminal: Terminal) -> str:
    """What draws the screen here."""
    with_canvas = await terminal.tab.run("document.querySelector('.pane.current .xterm canvas') !== null")
    return "drawn with WebGL, in software" if with_canvas else "drawn with elements: no WebGL here"


_BASE = "OpenSSH through a stock client, by the same relay"


def _row(name: str, what: str, unit: str, must: float, aim: float, **more: Any) -> Row:
    return Row(id=name, what=what, unit=unit, must=must, aim=aim, **{"baseline": _BASE, **more})


GROUPS = (
    Group(
        name="browser, opening",
        rows=(
            _row(
                "tab-page",
                "the terminal's page, all that it loads but fonts",
                "kB",
                300,
                150,
                baseline="Headplane's program alone, by its own figures",
            ),
            _row("tab-cold", "from the address to the first byte of the shell, empty cache", "s", 1.5, 0.6),
            _row("tab-warm", "the same, warm", "s", 0.8, 0.3),
        ),
        run=lambda options: asyncio.run(bench_opening(options)),
        seconds=60,
    ),
    Group(
        name="browser, using",
        rows=(
            _row("tab-echo", "a key's echo in the terminal, 95 of 100 within", "ms", 10, 4),
            _row("tab-bulk", "output through the terminal", "MB/s", 3, 10, better=Better.MORE),
            _row("tab-down", "a file from the machine (SFTP)", "MB/s", 5, 20, better=Better.MORE),
            _row("tab-up", "a file to the machine (SFTP)", "MB/s", 3, 15, better=Better.MORE),
        ),
        run=lambda options: asyncio.run(bench_using(options)),
        seconds=180,
    ),
)
