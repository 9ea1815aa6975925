"""People in a real browser: they come in, take their devices in, say yes or no to an ssh, and are put out."""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Page
from tests.interop.test_check import ME, asking, policy
from tests.support.chromium import chromium, is_for_everybody
from tests.support.clients import StockClient
from tests.support.machines import machines
from tests.support.openssh import OpenSSH
from tests.support.server import Server
from tests.support.waiting import eventually, promptly, until

pytestmark = [pytest.mark.interop, pytest.mark.timeout(180)]

# alice is let into a server that is nobody's.
OPEN = {
    "tagOwners": {"tag:server": []},
    "grants": [{"src": ["*"], "dst": ["*"], "ip": ["*"]}],
    "ssh": [
        {"action": "accept", "src": ["alice"], "dst": ["tag:server"], "users": ["autogroup:nonroot", "root"]}
    ],
}
SHOTS = os.environ.get("DOORWARD_SHOTS", "")  # a folder: what was on the screen, to be looked at


async def look(page: Page, name: str) -> None:
    """Look at a page as everybody does: it has to be usable by all."""
    await is_for_everybody(page)
    if SHOTS:
        await page.screenshot(path=f"{SHOTS}/{name}.png", full_page=True)


async def link_of(server: Server, *arguments: str) -> str:
    """A one-time link, from the file that it is written into where nobody looks at a terminal."""
    made = await server.json("users", "invite", *arguments)
    return link_in(Path(made["file"]))


def link_in(file: Path) -> str:
    assert file.stat().st_mode & 0o777 == 0o600
    text = file.read_text(encoding="utf-8")
    return next(word for word in text.split() if "/invite/" in word)


async def first_link(server: Server) -> str:
    """The link of the first owner, once `serve` has said where it is: it is made beside all else that starts."""
    file = server.folder / "first-administrator.txt"
    await until(lambda: str(file) in server.log.read_text())
    return link_in(file)


def local(server: Server, link: str) -> str:
    """The same link on doorward's own machine."""
    return f"http://localhost:{server.url.rpartition(':')[2]}/invite/{link.rpartition('/')[2]}"


async def come_in(page: Page, link: str, name: str = "", *, first: bool = True) -> None:
    """Take an invitation, make a passkey, and keep the codes that come with the first."""
    await page.goto(link)
    await look(page, "invite")
    if name:
        await page.fill("#name", name)
    await page.click("button.enter")
    await page.wait_for_selector("text=Make a passkey,")
    await look(page, "enrol")
    await page.click("button.enter:enabled")
    if first:
        await page.wait_for_selector("text=Keep these codes")
        await look(page, "codes")
        await page.click("text=I have kept them")
    await page.wait_for_url("**/me")


@contextlib.asynccontextmanager
async def joining(client: StockClient, server: Server) -> AsyncIterator[str]:
    """``tailscale up`` without a key; the link that it shows. It has to be in by the end."""
    process = await asyncio.create_subprocess_exec(
        str(client.client.tailscale),
        f"--socket={client.socket}",
        "up",
        f"--login-server={server.url}",
        f"--hostname={client.name}",
        "--json",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    text = ""
    async with asyncio.timeout(30):
        while '"AuthURL"' not in text or not text.rstrip().endswith("}"):
            text += (await process.stdout.readline()).decode()
    yield str(json.loads(text)["AuthURL"])
    async with asyncio.timeout(30):
        await process.communicate()


async def test_the_first_owner_lets_a_device_in_and_a_check_asks_for_the_passkey(tmp_path: Path) -> None:
    async with (
        Server() as server,
        StockClient("laptop") as laptop,
        chromium(server, tmp_path / "here") as here,
    ):
        # The first owner comes in by the link that `serve` wrote down when it started.
        link = await first_link(server)
        await come_in(here, local(server, link), "alice")
        await look(here, "me")
        # `tailscale up` shows a link; it leads to a page where something can be decided, on this machine.
        async with joining(laptop, server) as shown:
            await here.goto(shown)
            await look(here, "join-elsewhere")
            await here.click("text=http://localhost")
            await here.wait_for_selector("text=Is this your device?")
            await look(here, "join")
            await here.click("text=Yes, let it in")
            await here.wait_for_selector("text=laptop is in")
            await look(here, "join-in")
        await laptop.wait_until("Running")
        await server.own_node()
        async with StockClient("server") as other:
            await other.up(server.url, await server.key("--user", "alice"))
            await other.cli("set", "--ssh")
            await server.set_policy(policy("check", checkPeriod="1h"))
            ssh = await OpenSSH.between(laptop, "server")
            async with chromium(server, tmp_path / "laptop", through=laptop, phone=True) as page:
                await decide_checks(server, page, ssh)


async def decide_checks(server: Server, page: Page, ssh: OpenSSH) -> None:
    """On her own laptop she is known, and asked for a passkey nevertheless: of the door, where she has none yet."""
    door = f"https://door.tailnet.internal:{server.door_port}"
    async with asking(ssh) as one:
        link = (await one.hears(r"https://\S+/check/\S+"))[0]
        assert link.startswith(f"{door}/check/")
        await page.goto(link)
        assert await page.inner_text(".match") == await one.code()
        await look(page, "check")
        await page.click("text=Yes, it is me")
        await page.wait_for_selector("text=alice has no passkey here")
        await look(page, "check-no-passkey")
        await come_in(page, await link_of(server, "alice"), first=False)
        await page.goto(link)
        await page.click("text=Yes, it is me")
        await page.wait_for_selector("text=may enter")
        await look(page, "check-yes")
        assert await one.ends() == (0, "in\n")
    # Within the period nobody is asked.
    assert (await ssh.run(ME, "echo again")).stdout == "again\n"
    await server.set_policy(policy("check", checkPeriod="always"))
    async with asking(ssh) as one:
        link = (await one.hears(r"https://\S+/check/\S+"))[0]
        await page.goto(link)
        await page.click("text=No, the code differs")
        await page.wait_for_selector("text=was turned away")
        await look(page, "check-no")
        code, _ = await one.ends()
        assert code != 0
        assert "denied" in one.said
    decided = await server.json("audit", "list", "--action", "ssh.check.")
    assert [(each["action"], each["actor"]) for each in decided] == [
        ("ssh.check.approve", "user:alice"),
        ("ssh.check.deny", "user:alice"),
    ]


async def test_who_is_suspended_is_out_in_the_middle_of_an_ssh_and_of_a_page(tmp_path: Path) -> None:
    async with (
        Server() as server,
        machines(server, "laptop") as (laptop,),
        StockClient("server") as other,
        chromium(server, tmp_path / "browser", through=laptop, dark=True) as page,
    ):
        await server.set_policy(json.dumps(OPEN))
        await other.up(server.url, await server.key("--tag", "tag:server"))
        await other.cli("set", "--ssh")
        await server.own_node()
        ssh = await OpenSSH.between(laptop, "server")
        # Zero clicks for reading: the laptop says whose it is.
        door = f"https://door.tailnet.internal:{server.door_port}"
        await page.goto(f"{door}/me")
        await page.wait_for_selector("text=Known by your device")
        await come_in(page, await link_of(server, "alice"))
        await look(page, "me-dark")
        beats = tmp_path / "beats"  # written by what runs in the session, while it has one to speak to
        beating = f"echo in; while sleep 0.1; do echo x; echo x >> {beats}; done"
        async with ssh.session(f"{ME}@server", beating) as process:
            assert process.stdout is not None
            async with asyncio.timeout(30):
                assert await process.stdout.readline() == b"in\n"
            await server.user("bob", "--role", "owner")

            async def is_alive() -> bool:
                before = beats.stat().st_size if beats.exists() else 0
                await asyncio.sleep(1)
                return beats.exists() and beats.stat().st_size > before

            await eventually(is_alive)
            await server.run("users", "suspend", "alice")

            async def is_over() -> bool:
                return not await is_alive()

            # Her own ssh is not told: no packet reaches her any more.
            await promptly(is_over, 10)

        async def nobody() -> bool:
            with contextlib.suppress(Exception):
                await page.goto(f"{door}/me", timeout=3000)
                return "/signin" in page.url or "suspended" in await page.content()
            return True  # the door does not answer to that laptop any more

        await eventually(nobody, 20)
