"""More of what a shell in a browser has to stand: machines that start anew, hours of sleep, a hundred megabytes, a link that loses
packets, and addresses and people that it is not for.

What is marked so is too long for every run: `make stands` runs it.
"""

import asyncio
import contextlib
import json
import os
import signal
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.bundle import built
from tests.support.chromium import pin_of
from tests.support.clients import StockClient
from tests.support.desk import Desk, at_desk, ssh_to
from tests.support.devtools import PlainChromium, Tab, plain_chromium
from tests.support.machines import knows_door
from tests.support.netns import switch
from tests.support.passing import passing
from tests.support.programs import require_root
from tests.support.provider import CLIENT_ID, CLIENT_SECRET, RealProvider
from tests.support.server import Server
from tests.support.terminal import Terminal
from tests.support.waiting import eventually

pytestmark = [pytest.mark.interop, pytest.mark.root, pytest.mark.timeout(400)]

POLICY = ssh_to("root", "autogroup:nonroot")
SHIFTED = Path(__file__).parent.parent / "support" / "shifted"
SHOTS = os.environ.get("DOORWARD_SHOTS", "")  # a folder: what was on the screen, to be looked at
HOUR = 3600
MIB = 1 << 20
# While a hundred megabytes pass through a page: what it may keep of them, and the space that all of the browser may work in.
KEPT = 10 * MIB
SPACE = 300 * MIB
AHEAD = 20 * MIB  # what may be on its way: in windows, buffers and the relay


@pytest.fixture(scope="module")
async def place() -> AsyncIterator[tuple[Desk, StockClient]]:
    require_root()
    async with at_desk("server", policy=POLICY, LOGIN_LOOPBACK_HTTP="true") as (desk, (server,)):
        yield desk, server


@contextlib.asynccontextmanager
async def shell(desk: Desk, browser: PlainChromium, *, before: str = "") -> AsyncIterator[Terminal]:
    terminal = await Terminal.at(desk, browser, "server", "root", before=before)
    try:
        await terminal.opened()
        await terminal.run("stty -echo; PS1='$ '; clear")
        yield terminal
    finally:
        await terminal.tab.close()


async def shot(tab: Tab, name: str) -> None:
    if SHOTS:
        await tab.picture(Path(SHOTS) / f"stands-{name}.png")


@pytest.mark.heavy
async def test_a_machine_that_starts_anew_ends_its_shell_and_gives_another(
    place: tuple[Desk, StockClient], browser: PlainChromium
) -> None:
    desk, server = place
    async with shell(desk, browser) as terminal:
        await terminal.run("kept=42")
        await server.kill()
        await server.start()
        await server.wait_until("Running")
        # Whoever types hears that it is gone; the page says what that means.
        await terminal.type("echo it is $kept\n")
        said = await terminal.ended(150)
        assert "is gone" in said or "is lost" in said, said
        assert "Open it again" in said
        await shot(terminal.tab, "rebooted")
        await terminal.again()
        await terminal.run("PS1='$ '; echo it is :$kept:")
        await terminal.shows("it is ::")


class Asleep:
    """A laptop that is closed: nothing of the browser runs, and its connections die."""

    def __init__(self, desk: Desk, browser: PlainChromium, shift: Path) -> None:
        self._desk = desk
        self._browser = browser
        self._shift = shift

    async def for_hours(self, hours: float) -> None:
        """Sleep until the server's clock says that it is so many hours after its true time."""
        self._browser.sleep()
        os.kill(self._desk.server.worker_pid(), signal.SIGKILL)

        async def is_away() -> bool:
            return all(not tab["online"] for tab in await self.tabs())

        await eventually(is_away, 90)
        part = self._shift.with_suffix(".new")
        part.write_text(str(hours * HOUR), encoding="ascii")
        part.replace(self._shift)

    async def tabs(self) -> list[dict[str, object]]:
        """The nodes that are tabs, as the server has them."""
        nodes = await self._desk.server.json("nodes", "list")
        return [node for node in nodes if "-tab-" in node["name"]]


@pytest.mark.heavy
async def test_two_hours_of_sleep_cost_nothing_and_more_than_the_grace_costs_the_shell(
    browser: PlainChromium, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_root()
    shift = tmp_path / "shift"
    shift.write_text("0", encoding="ascii")
    monkeypatch.setenv("PYTHONPATH", str(SHIFTED), prepend=":")
    monkeypatch.setenv("CLOCK_SHIFT_FILE", str(shift))
    async with at_desk("server", policy=POLICY, CONSOLE_GRACE=str(3 * HOUR)) as (desk, _):
        laptop = Asleep(desk, browser, shift)
        async with shell(desk, browser) as terminal:
            await terminal.run("kept=42")
            try:
                await laptop.for_hours(2)
                await asyncio.sleep(3)  # what falls due is looked at every second
                assert len(await laptop.tabs()) == 1
            finally:
                browser.wake()
            await terminal.run("echo it is $kept", within=120)
            await terminal.shows("it is 42")
            try:
                await laptop.for_hours(6)

                async def is_over() -> bool:
                    return not await laptop.tabs()

                await eventually(is_over)
            finally:
                browser.wake()
            said = await terminal.ended(120)
            await shot(terminal.tab, "slept-too-long")
            assert "again" in said, said
            await terminal.again()
            await terminal.run("PS1='$ '; echo it is :$kept:")
            await terminal.shows("it is ::")


# Counts what the page is given of the host's bytes: only A to P, which no prompt and no title here has.
COUNTING = """
const table = Uint32Array.from({length: 256}, (_, byte) => {
    for (let bit = 0; bit < 8; bit++) byte = byte & 1 ? 0xedb88320 ^ (byte >>> 1) : byte >>> 1;
    return byte;
});
window.Worker = class extends Worker {
    constructor(...all) {
        super(...all);
        this.addEventListener("message", ({data}) => {
            if (data.kind !== "data") return;
            let {count, crc} = window.arrived ?? {count: 0, crc: -1};
            for (const byte of data.data) {
                if (byte < 65 || byte > 80) continue;
                count++;
                crc = table[(crc ^ byte) & 255] ^ (crc >>> 8);
            }
            window.arrived = {count, crc};
        });
    }
};
"""
BEGIN = "void (window.arrived = {count: 0, crc: -1})"
ARRIVED = "({count: arrived.count, crc: (arrived.crc ^ -1) >>> 0})"
LETTERS = bytes.maketrans(b"0123456789abcdef", b"ABCDEFGHIJKLMNOP")


@pytest.mark.heavy
async def test_a_hundred_megabytes_arrive_whole_and_the_page_does_not_keep_them(
    place: tuple[Desk, StockClient], browser: PlainChromium, tmp_path: Path
) -> None:
    desk, _ = place
    letters = os.urandom(49_500_000).hex().encode().translate(LETTERS)
    lines = [letters[begin : begin + 99] for begin in range(0, len(letters), 99)]
    file = tmp_path / "big"
    file.write_bytes(b"\n".join(lines) + b"\nat the end\n")
    assert file.stat().st_size >= 100_000_000
    async with shell(desk, browser, before=COUNTING) as terminal:
        # With as much as it keeps to be looked at again.
        await terminal.run(f"head -c 10000000 {file}", within=90)
        await terminal.tab.run(BEGIN)
        begun, most, held = browser.memory(), 0, await _held(terminal.tab)
        async with asyncio.TaskGroup() as group:
            running = group.create_task(terminal.run(f"cat {file}; : > {tmp_path}/written", within=350))
            while not (tmp_path / "written").exists() and not running.done():
                most = max(most, browser.memory())
                await asyncio.wait([running], timeout=0.5)
            # The program on the host was as slow as the page that shows it.
            assert (await terminal.tab.run(ARRIVED))["count"] > len(letters) - AHEAD
        await terminal.shows("at the end")
        assert await terminal.tab.run(ARRIVED) == {"count": len(letters), "crc": zlib.crc32(letters)}
        growth = await _held(terminal.tab) - held
        assert growth < KEPT, f"{growth / MIB:.1f} MiB more"
        assert most - begun < SPACE, f"{begun / MIB:.0f} MiB, then {most / MIB:.0f} MiB"


async def _held(tab: Tab) -> int:
    """Bytes that a page cannot do without, as its garbage is collected."""
    await tab.ask("HeapProfiler.collectGarbage")
    usage = await tab.ask("Runtime.getHeapUsage")
    return int(usage["usedSize"] + usage["embedderHeapUsedSize"] + usage["backingStorageSize"])


@pytest.mark.heavy
async def test_a_link_that_loses_packets_loses_nothing_of_a_shell(
    browser: PlainChromium, tmp_path: Path
) -> None:
    require_root()
    built()
    with switch() as net, net.host("at") as at, net.host("here") as here, net.host("there") as there:
        async with Server(namespace=at.name, host="0.0.0.0", shown=at.address) as doorward:
            port = doorward.listens_at[1]
            with here.carrying(port, at.address):
                async with StockClient("server", namespace=there.name) as server:
                    await doorward.user("alice")
                    await doorward.set_policy(POLICY)
                    await server.up(doorward.url, await doorward.key("--user", "alice"), ssh=True)
                    desk = Desk(doorward)
                    await desk.knows("server")
                    with here.losing(0.02):
                        sent_again = _sent_again(at.run("cat", "/proc/net/snmp").stdout)
                        async with shell(desk, browser, before=COUNTING) as terminal:
                            letters = os.urandom(1_500_000).hex().encode().translate(LETTERS)
                            (tmp_path / "some").write_bytes(letters)
                            await terminal.tab.run(BEGIN)
                            await terminal.run(f"fold -w 99 {tmp_path}/some", within=120)
                            assert await terminal.tab.run(ARRIVED) == {
                                "count": len(letters),
                                "crc": zlib.crc32(letters),
                            }
                            for number in range(20):
                                await terminal.run(f"echo {number} >> {tmp_path}/typed")
                            typed = (tmp_path / "typed").read_text().split()
                            assert typed == [str(number) for number in range(20)]
                        # And it did lose some.
                        assert _sent_again(at.run("cat", "/proc/net/snmp").stdout) > sent_again


def _sent_again(snmp: str) -> int:
    """TCP segments that a host had to send again."""
    names, numbers = (row.split() for row in snmp.splitlines() if row.startswith("Tcp:"))
    return int(numbers[names.index("RetransSegs")])


async def test_over_plain_http_it_says_why_there_is_no_terminal(
    place: tuple[Desk, StockClient], tmp_path: Path
) -> None:
    desk, _ = place
    options = ["--host-resolver-rules=MAP *.home.arpa 127.0.0.1", "--disable-features=HttpsUpgrades"]
    async with _renaming(desk) as port, plain_chromium(tmp_path, options) as browser:
        # Under a name that is no door's there are no pages.
        tab = await browser.tab()
        await tab.go(f"http://server.home.arpa:{desk.server.listens_at[1]}/terminal/server/root")
        await tab.shows("not served under this name")
        await tab.shows(desk.origin)
        await shot(tab, "wrong-door")
        # Behind a proxy that hides the name there are, and the page itself sees where it is.
        origin = f"http://proxy.home.arpa:{port}"
        await browser.cookie(tab, origin, desk.cookie, desk.secret)
        await tab.go(f"{origin}/terminal/server/root")
        await tab.shows("This address is not safe enough for a terminal")
        await tab.shows(
            f"Open it at https://door.tailnet.internal:{desk.server.door_port}/terminal/server/root"
        )
        await shot(tab, "no-secure-context")
        await tab.close()


@contextlib.asynccontextmanager
async def _renaming(desk: Desk) -> AsyncIterator[int]:
    """A proxy that tells the server another name than the browser has asked for."""
    named = [f"Host: localhost:{desk.server.listens_at[1]}".encode(), b"Connection: close"]

    def change(head: bytes) -> bytes:
        first, *rest = head.rstrip().split(b"\r\n")
        kept = [row for row in rest if not row.lower().startswith((b"host:", b"connection:"))]
        return b"\r\n".join([first, *named, *kept]) + b"\r\n\r\n"

    async with passing(desk.server.listens_at, change) as port:
        yield port


async def test_who_is_known_outside_and_nobody_here_is_told_how_to_be_linked(
    place: tuple[Desk, StockClient], tmp_path: Path
) -> None:
    desk, _ = place
    back = f"{desk.origin}/signin/callback/corp"
    async with (
        RealProvider({"u-eve": {"name": "Eve"}}, redirect_uri=back) as corp,
        plain_chromium(tmp_path) as browser,
    ):
        secret = tmp_path / "client-secret"
        secret.write_text(CLIENT_SECRET, encoding="ascii")
        told = ["--issuer", corp.issuer, "--client-id", CLIENT_ID, "--client-secret-file", str(secret)]
        await desk.server.run("providers", "add", "corp", *told, "--domains", "example.com")
        tab = await browser.tab()
        await tab.go(f"{desk.origin}/terminal/server/root")
        await tab.holds("document.querySelector('button[value=corp]') !== null")
        await tab.run("document.querySelector('button[value=corp]').click()")
        await _be(tab, "u-eve")
        await tab.shows("Corp says who you are there, and you are nobody here")
        await tab.shows("doorward users link NAME corp u-eve")
        await shot(tab, "not-linked")
        # What the page says to do is enough, and the person is led to where they wanted to go.
        await desk.server.run("users", "link", "alice", "corp", "u-eve")
        await tab.run("document.querySelector('button[value=corp]').click()")
        terminal = Terminal(tab)
        await terminal.opened()
        await tab.close()


async def _be(tab: Tab, account: str) -> None:
    """Sign in at the provider, and agree to everything."""
    form = "document.querySelector('form [name=prompt]')?.value"
    await tab.holds(f"{form} === 'login'")
    await tab.run(
        f"document.querySelector('[name=login]').value = {account!r}; document.querySelector('[name=password]').value = 'any';"
        "document.querySelector('form').submit()"
    )
    await tab.holds(f"{form} === 'consent'")
    await tab.run("document.querySelector('form').submit()")


async def test_a_device_that_is_nobody_s_is_asked_who_sits_before_it(
    place: tuple[Desk, StockClient], tmp_path: Path
) -> None:
    desk, _ = place
    policy = json.loads(POLICY)
    policy["tagOwners"] = {"tag:kiosk": []}
    await desk.server.set_policy(json.dumps(policy))
    async with StockClient("kiosk") as kiosk:
        await kiosk.up(desk.server.url, await desk.server.key("--tag", "tag:kiosk"))
        await desk.server.own_node()
        await knows_door(kiosk)
        options = [
            f"--ignore-certificate-errors-spki-list={pin_of(desk.server)}",
            f"--proxy-server=socks5://localhost:{kiosk.socks_port}",
        ]
        async with plain_chromium(tmp_path, options) as browser:
            tab = await browser.tab()
            for page in ("machines", "terminal/server/root"):
                await tab.go(f"https://door.tailnet.internal:{desk.server.door_port}/{page}")
                await tab.shows("Sign in to tailnet.internal")
                # What it was to be is not forgotten.
                await tab.holds(f"location.search === '?next=/{page}'")
            await shot(tab, "nobody-s-device")
