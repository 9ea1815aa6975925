"""Ending access: what is open between two stock clients ends at once, whatever it is, and comes back when it may."""

import asyncio
import contextlib
import getpass
import subprocess
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.clients import StockClient
from tests.support.flows import Flow, echo_server, flowing, through_socks
from tests.support.machines import all_ready
from tests.support.openssh import OpenSSH
from tests.support.processes import gone
from tests.support.server import Server, free_port
from tests.support.waiting import eventually, until

from doorward.engine.processes import stop

pytestmark = pytest.mark.interop

ME = getpass.getuser()
POLICY = """{
    "tagOwners": {"tag:server": []},
    "grants": [{"src": ["bob"], "dst": ["tag:server"], "ip": ["*"]}],
    "ssh": [{"action": "accept", "src": ["bob"], "dst": ["tag:server"], "users": ["autogroup:nonroot", "root"]}],
}"""
OWN = """{
    "grants": [{"src": ["autogroup:member"], "dst": ["autogroup:self"], "ip": ["*"]}],
    "ssh": [{"action": "accept", "src": ["autogroup:member"], "dst": ["autogroup:self"], "users": ["autogroup:nonroot", "root"]}],
}"""
AT_ONCE = 2.0  # seconds after the command has returned


class Place:
    """A laptop of bob's, and a server with SSH on that bob may reach."""

    def __init__(self, server: Server, laptop: StockClient, ssh: OpenSSH, echo: int) -> None:
        self.server, self.laptop, self.ssh, self.echo = server, laptop, ssh, echo

    @contextlib.asynccontextmanager
    async def piped(self, name: str, *arguments: str) -> AsyncIterator[Flow]:
        """An ssh that sends back what it is told."""
        async with self.ssh.session(*arguments) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            yield Flow(name, process.stdout, process.stdin)

    @contextlib.asynccontextmanager
    async def forwarded(self) -> AsyncIterator[Flow]:
        """A connection through ``ssh -N -L``."""
        port = free_port()
        async with self.ssh.session("-N", "-L", f"{port}:127.0.0.1:{self.echo}", f"{ME}@server"):
            reader, writer = await _connected(port)
            with contextlib.closing(writer):
                yield Flow("forward", reader, writer)

    @contextlib.asynccontextmanager
    async def plain(self) -> AsyncIterator[Flow]:
        """A TCP connection, and no ssh."""
        reader, writer = await through_socks(self.laptop.socks_port, "server", self.echo)
        with contextlib.closing(writer):
            yield Flow("tcp", reader, writer)

    @contextlib.asynccontextmanager
    async def everything(self) -> AsyncIterator[tuple[list[Flow], Path, Path]]:
        """One open connection of each kind, the socket of a ControlMaster, and the file with the session's process id."""
        # New ones each time: a master that was cut off leaves its socket behind.
        folder = Path(tempfile.mkdtemp(dir=self.laptop.folder))
        control, pid = folder / "control", folder / "pid"
        async with contextlib.AsyncExitStack() as stack:
            enter = stack.enter_async_context
            await enter(self.ssh.session("-N", "-M", "-S", str(control), f"{ME}@server"))
            await until(control.exists)
            flows = [
                await enter(self.piped("ssh", "-tt", f"{ME}@server", f"echo $$ > {pid}; exec cat")),
                await enter(self.piped("mux", "-tt", "-S", str(control), f"{ME}@server", "cat")),
                await enter(self.forwarded()),
                await enter(self.plain()),
            ]
            await enter(flowing(*flows))
            await until(lambda: all(flow.flows for flow in flows) and pid.exists() and bool(pid.read_text()))
            yield flows, control, pid

    async def new_session(self, control: Path, within: float) -> bytes:
        """What a new session on the multiplexed connection says within so many seconds."""
        process = await asyncio.create_subprocess_exec(
            *self.ssh.command("ssh", "-S", str(control), f"{ME}@server", "echo in"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        try:
            async with asyncio.timeout(within):
                out, _ = await process.communicate()
        except TimeoutError:
            return b""
        finally:
            await stop(process, 1)
        return out

    async def ends(self, *command: str) -> None:
        """The command ends all that is open, at once, and lets nothing new in."""
        async with self.everything() as (flows, control, pid):
            assert await self.new_session(control, 30) == b"in\n"
            number = pid.read_text().strip()
            now = asyncio.get_running_loop().time
            began = now()
            await self.server.run(*command)
            done = now()
            # Two commands start and end in that time on a machine at leisure; where it is none, they say how long that is.
            at_once = max(AT_ONCE, 2 * (done - began))
            assert await self.new_session(control, at_once + 1) == b""
            await until(lambda: now() > done + at_once + 0.5, at_once + 30)
            late = {flow.name: flow.last - done for flow in flows}
            assert all(seconds < at_once for seconds in late.values()), late
            # On the server what ran in the terminal is gone, too.
            await until(lambda: gone(number))

    async def reaches(self, within: float = 90) -> None:
        """A new ssh gets in."""

        async def gets_in() -> bool:
            with contextlib.suppress(TimeoutError):
                done = await self.ssh.run(ME, "echo in", check=False)
                return done.stdout == "in\n"
            return False

        await eventually(gets_in, within)


async def _connected(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(OSError):
                return await asyncio.open_connection("127.0.0.1", port)
            await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def place(policy: str, *owner: str) -> AsyncIterator[Place]:
    """A laptop of bob's, and a server whose auth key is made so."""
    async with (
        Server() as server,
        echo_server() as echo,
        StockClient("server") as target,
        StockClient("laptop") as laptop,
    ):
        await server.user("bob")
        await server.set_policy(policy)
        await target.up(server.url, await server.key(*owner), ssh=True)
        await laptop.up(server.url, await server.key("--user", "bob"))
        await all_ready([target, laptop])
        yield Place(server, laptop, await OpenSSH.between(laptop, "server"), echo)


async def test_what_is_open_ends_when_two_nodes_are_kept_apart_or_one_is_suspended() -> None:
    async with place(POLICY, "--tag", "tag:server") as here:
        await here.ends("nodes", "cut", "laptop", "server", "--for", "1h")
        await here.server.run("nodes", "uncut", "server", "laptop")
        await here.reaches()
        await here.ends("nodes", "suspend", "laptop")
        await here.server.run("nodes", "restore", "laptop")
        await here.reaches()


async def test_what_is_open_ends_when_a_person_is_suspended_or_deleted_between_their_own_devices_too() -> (
    None
):
    async with place(OWN, "--user", "bob") as here:
        await here.ends("users", "suspend", "bob")
        await here.server.run("users", "restore", "bob")
        await here.reaches()
        await here.ends("users", "delete", "bob", "--with-nodes", "--yes")
        await here.laptop.wait_until("NeedsLogin")


# Who gets in


@contextlib.asynccontextmanager
async def up_by_link(
    server: Server, client: StockClient, *extra: str, other_than: str = ""
) -> AsyncIterator[tuple[str, "asyncio.Task[subprocess.CompletedProcess[str]]"]]:
    """``tailscale up`` without a key: the link it shows, which is no longer an earlier one, and the command as it waits."""
    shown = ""

    async def is_shown() -> bool:
        nonlocal shown
        shown = (await client.status())["AuthURL"]
        return shown not in {"", other_than}

    async with asyncio.TaskGroup() as group:
        up = group.create_task(client.up(server.url, extra=extra, within=40, check=False))
        await eventually(is_shown)
        yield shown, up


async def node(server: Server, name: str) -> dict[str, Any]:
    (found,) = [node for node in await server.json("nodes", "list") if node["name"] == name]
    assert isinstance(found, dict)
    return found


async def test_a_device_waits_for_an_administrator_and_is_in_at_once_when_one_approves() -> None:
    async with (
        Server() as server,
        StockClient("laptop") as laptop,
        StockClient("other") as other,
        asyncio.TaskGroup() as group,
    ):
        await server.user("bob")
        await other.up(server.url, await server.key("--user", "bob"))
        await server.run("nodes", "approval", "on")
        up = group.create_task(laptop.up(server.url, await server.key("--user", "bob"), within=40))
        await laptop.wait_until("NeedsMachineAuth")
        said = await laptop.cli("status", check=False)
        assert (said.returncode, "not yet approved" in said.stdout) == (1, True)
        assert any("doorward nodes approve laptop" in text for text in (await laptop.status())["Health"])
        assert not (await laptop.status())["Peer"]
        assert "waits for approval" in (await server.run("nodes", "list")).stdout
        assert "laptop" not in (await other.cli("status")).stdout
        await server.run("nodes", "approve", "laptop")
        await laptop.wait_until("Running")
        assert (await up).returncode == 0
        assert "pong from laptop" in await other.ping("laptop")
        # One that is vouched for does not wait.
        await laptop.up(
            server.url, await server.key("--user", "bob", "--preapproved"), extra=["--force-reauth"]
        )
        await laptop.wait_until("Running")


async def test_signing_in_again_by_link_is_the_same_device_for_the_same_person_only() -> None:
    async with Server() as server, StockClient("laptop") as laptop:
        for name in ("ann", "bob"):
            await server.user(name)
        async with up_by_link(server, laptop) as (link, up):
            await server.run("nodes", "approve", link, "--user", "ann")
            assert (await up).returncode == 0
        first = await node(server, "laptop")
        status = await laptop.wait_until("Running")
        # Because they want to.
        async with up_by_link(server, laptop, "--force-reauth") as (link, up):
            (waiting,) = await server.json("nodes", "waiting")
            assert waiting["known_as"] == [{"node": "laptop", "user": "ann"}]
            assert waiting["came_from"] == "127.0.0.1"
            await server.run("nodes", "approve", link, "--user", "ann")
            assert (await up).returncode == 0
        again = await laptop.wait_until("Running")
        assert again["Self"]["PublicKey"] != status["Self"]["PublicKey"]
        assert again["TailscaleIPs"] == status["TailscaleIPs"]
        # Because the key has ended. First somebody says no.
        await server.run("nodes", "expire", "laptop", "--yes")
        await laptop.wait_until("NeedsLogin")
        async with up_by_link(server, laptop) as (link, up):
            await server.run("nodes", "deny", link)
            denied = await up
            assert (denied.returncode, "somebody denied it" in denied.stderr) == (1, True)
        async with up_by_link(server, laptop, other_than=link) as (fresh, up):
            await server.run("nodes", "approve", fresh, "--user", "ann")
            assert (await up).returncode == 0
        assert (await laptop.wait_until("Running"))["TailscaleIPs"] == status["TailscaleIPs"]
        assert (await node(server, "laptop"))["id"] == first["id"]
        # The daemon, which asked on and on, was told once: more would have ended the `tailscale up` that asked anew.
        assert server.log.read_text().count("registration refused") == 1
        # For another person it is another device.
        async with up_by_link(server, laptop, "--force-reauth") as (link, up):
            await server.run("nodes", "approve", link, "--user", "bob")
            await up
        assert (await node(server, "laptop-1"))["user"] == "bob"
        assert (await node(server, "laptop"))["user"] == "ann"
