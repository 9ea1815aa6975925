"""What can keep a shell from a browser, each brought about for real: the page says what it is, and what to do."""

import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.clients import StockClient
from tests.support.desk import Desk, at_desk, ssh_to
from tests.support.devtools import PlainChromium, plain_chromium
from tests.support.openssh import run
from tests.support.passing import passing
from tests.support.programs import require_root
from tests.support.sshd import running_sshd
from tests.support.terminal import Terminal

pytestmark = [pytest.mark.interop, pytest.mark.root, pytest.mark.timeout(180)]

OLD = "diffie-hellman-group14-sha256"
SHOTS = os.environ.get("DOORWARD_SHOTS", "")  # a folder: what was on the screen, to be looked at


class Scene:
    """Who is there."""

    def __init__(self, desk: Desk, server: StockClient, other: StockClient) -> None:
        self.desk = desk
        self.server = server
        self.other = other  # for what breaks a machine


@pytest.fixture(scope="module")
async def scene() -> AsyncIterator[Scene]:
    require_root()
    async with at_desk("server", "other", policy=ssh_to("autogroup:nonroot")) as (desk, (server, other)):
        yield Scene(desk, server, other)


async def refused(scene: Scene, browser: PlainChromium, place: str, *texts: str, shot: str) -> Terminal:
    """Open a terminal by its address, and read why it is none."""
    terminal = await Terminal.at(scene.desk, browser, *place.split("/"))
    for text in texts:
        await terminal.says(text)
    if SHOTS:
        await terminal.tab.picture(Path(SHOTS) / f"refused-{shot}.png")
    return terminal


@pytest.mark.parametrize(
    ("place", "shot", "texts"),
    [
        ("nowhere/root", "no-such-machine", ["There is no machine called nowhere", "list of machines"]),
        (
            "server/root",
            "not-allowed",
            ["The policy does not let you enter server as root", "ask an administrator"],
        ),
        (
            "server/nobody-here",
            "no-account",
            ["server has no account nobody-here", "make this one on the machine"],
        ),
        ("server/*", "star", ["* is no account", "Choose an account that exists there"]),
        ("server/daemon", "ended", ["ended at once, with status 0", "Open again"]),
    ],
)
async def test_what_the_machine_or_the_policy_does_not_have(
    scene: Scene, browser: PlainChromium, place: str, shot: str, texts: list[str]
) -> None:
    terminal = await refused(scene, browser, place, *texts, shot=shot)
    await terminal.tab.close()


async def test_a_machine_that_goes_loses_ssh_or_has_another_key_says_so_and_heals(
    scene: Scene, browser: PlainChromium
) -> None:
    desk, other = scene.desk, scene.other
    # Its keys are read at each connection; what it has told everybody are those it started with.
    keys = list((other.folder / "ssh").glob("ssh_host_*_key"))
    assert keys
    kept = {key: key.read_bytes() for key in keys}
    for key in keys:
        kind = key.name.removeprefix("ssh_host_").removesuffix("_key")
        key.unlink()
        await run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(key)])
    changed = await refused(
        scene,
        browser,
        "other/daemon",
        "other shows a different key",
        "SHA256:",
        "restart",
        shot="host-key-changed",
    )
    await changed.tab.close()
    for key, content in kept.items():
        key.write_bytes(content)
    await other.cli("set", "--ssh=false")
    await desk.knows("other", ssh="unknown")
    off = await refused(
        scene, browser, "other/daemon", "other takes no ssh", "tailscale set --ssh", shot="ssh-off"
    )
    await other.cli("down")
    await desk.knows("other", online=False)
    await off.tab.close()
    away = await refused(scene, browser, "other/daemon", "other is offline", "tailscaled", shot="offline")
    # The page goes on by itself, once there is a way.
    await other.cli("up", "--ssh", f"--login-server={desk.server.url}", "--hostname=other")
    await away.says("ended at once")
    await away.tab.close()


async def test_a_proxy_that_passes_no_upgrade_is_named_with_the_lines_that_it_lacks(
    scene: Scene, tmp_path: Path
) -> None:
    async with _no_upgrades(scene.desk) as port:
        options = [f"--proxy-server=http://127.0.0.1:{port}", "--proxy-bypass-list=<-loopback>"]
        async with plain_chromium(tmp_path, options) as browser:
            await refused(
                scene,
                browser,
                "server/daemon",
                "The way to the relay is blocked",
                "proxy_set_header Upgrade $http_upgrade;",
                "reverse_proxy",
                shot="relay-blocked",
            )


@contextlib.asynccontextmanager
async def _no_upgrades(desk: Desk) -> AsyncIterator[int]:
    """A proxy that passes requests on, and neither tunnels nor upgrades."""
    origin = desk.origin.encode()

    def change(head: bytes) -> bytes | None:
        return None if head.startswith(b"CONNECT ") else head.replace(b" " + origin, b" ", 1)

    async with passing(desk.server.listens_at, change) as port:
        yield port


async def test_an_old_ssh_server_has_nothing_in_common_and_an_unknown_one_is_asked_about_first(
    scene: Scene, browser: PlainChromium
) -> None:
    desk = scene.desk
    async with StockClient("bare") as bare, running_sshd([], settings={"KexAlgorithms": OLD}) as old:
        await bare.up(desk.server.url, await desk.server.key("--user", "alice"))
        await bare.cli("serve", "--bg", "--tcp=22", f"tcp://127.0.0.1:{old.port}")
        await desk.knows("bare", online=True)
        terminal = await refused(
            scene, browser, "bare/daemon", "no algorithm in common", "curve25519", shot="no-common-algorithm"
        )
        await terminal.tab.close()
        async with running_sshd([], settings={}) as new:
            await bare.cli("serve", "--bg", "--tcp=22", f"tcp://127.0.0.1:{new.port}")
            terminal = await refused(
                scene, browser, "bare/daemon", "Is this the key of bare?", "SHA256:", shot="host-key"
            )
        await terminal.tab.close()
