"""ssh between two stock nodes: by identity, with host keys from the netmap, as the policy says and no longer than it does."""

import asyncio
import contextlib
import getpass
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.clients import StockClient
from tests.support.machines import machines
from tests.support.openssh import OpenSSH, another_account, run
from tests.support.programs import require_root
from tests.support.server import Server
from tests.support.waiting import eventually

pytestmark = pytest.mark.interop

REACH = '"grants": [{"src": ["autogroup:member"], "dst": ["autogroup:self"], "ip": ["*"]}]'


def ssh_policy(*accounts: str) -> str:
    """People reach their own devices, and may ssh to them as these accounts."""
    users = ", ".join(f'"{account}"' for account in accounts)
    rule = (
        f'{{"action": "accept", "src": ["autogroup:member"], "dst": ["autogroup:self"], "users": [{users}]}}'
    )
    return f'{{{REACH}, "ssh": [{rule if accounts else ""}]}}'


@contextlib.asynccontextmanager
async def _from_laptop(server: Server) -> AsyncIterator[tuple[StockClient, OpenSSH]]:
    """A laptop, and a machine with SSH on."""
    async with machines(server, "laptop", "server") as (laptop, other):
        await other.cli("set", "--ssh")
        yield laptop, await OpenSSH.between(laptop, "server")


async def test_the_account_that_runs_the_daemon_gets_in_by_identity_alone(server: Server) -> None:
    me = getpass.getuser()
    async with _from_laptop(server) as (laptop, ssh):
        done = await ssh.run(me, "whoami; echo to stderr >&2; exit 3", check=False)
        assert (done.stdout, done.returncode) == (f"{me}\n", 3)
        assert "to stderr" in done.stderr
        # The stock client's own ssh command takes the host keys from the netmap by itself.
        own = await laptop.cli("ssh", f"{me}@server", "echo", "by tailscale ssh")
        assert own.stdout == "by tailscale ssh\n"


async def test_a_host_key_that_the_netmap_does_not_vouch_for_is_refused(server: Server) -> None:
    async with _from_laptop(server) as (laptop, ssh):
        strangers = laptop.folder / "strangers"
        await run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(strangers)])
        key = strangers.with_suffix(".pub").read_text().rpartition(" ")[0]
        (laptop.folder / "known-server").write_text(f"server {key}\n")
        done = await ssh.run(getpass.getuser(), "true", check=False)
        assert done.returncode == 255
        assert "Host key verification failed" in done.stderr


@pytest.mark.root
async def test_root_may_become_any_account_but_what_the_policy_leaves_out(server: Server) -> None:
    require_root()
    other = another_account()
    async with _from_laptop(server) as (_, ssh):
        assert (await ssh.run("root", "id -u")).stdout == "0\n"
        assert (await ssh.run(other, "whoami")).stdout == f"{other}\n"
        await server.set_policy(ssh_policy("autogroup:nonroot"))

        async def is_refused() -> bool:
            refused = await ssh.run("root", "true", check=False)
            return 'tailnet policy does not permit you to SSH as user "root"' in refused.stderr

        await eventually(is_refused)
        assert (await ssh.run(other, "whoami")).stdout == f"{other}\n"
        # Numbers that name root in the account database are root, too.
        for spelling in ("0", "00"):
            assert (await ssh.run(spelling, "id -u", check=False)).returncode == 255


async def test_a_policy_without_ssh_refuses_in_the_client_s_own_words(server: Server) -> None:
    async with _from_laptop(server) as (_, ssh):
        assert (await ssh.run(getpass.getuser(), "true")).returncode == 0
        await server.set_policy(ssh_policy())

        async def is_refused() -> bool:
            refused = await ssh.run(getpass.getuser(), "true", check=False)
            return "tailnet policy does not permit you to SSH to this node" in refused.stderr

        await eventually(is_refused)


async def test_a_revoked_session_ends_at_once(server: Server) -> None:
    async with _from_laptop(server) as (_, ssh), ssh.session(f"{getpass.getuser()}@server", "cat") as session:
        assert session.stdin is not None
        assert session.stdout is not None
        assert session.stderr is not None
        session.stdin.write(b"still here\n")
        async with asyncio.timeout(30):
            assert await session.stdout.readline() == b"still here\n"
        now = asyncio.get_running_loop().time
        began = now()
        await server.set_policy(ssh_policy())
        # At once; where a command takes long by itself, because the machine does much else, as long as two of them.
        async with asyncio.timeout(max(3, 2 * (now() - began))):
            assert b"Access revoked." in await session.stderr.read()
            assert await session.wait() != 0


async def test_variables_are_accepted_where_the_policy_says_so(server: Server) -> None:
    rule = """{"action": "accept", "src": ["autogroup:member"], "dst": ["autogroup:self"],
        "users": ["autogroup:nonroot", "root"], "acceptEnv": ["GREET*"]}"""
    async with _from_laptop(server) as (_, ssh):
        ask = [
            *("-o", "SetEnv=GREETING=hello OTHER=lost"),
            f"{getpass.getuser()}@server",
            'echo "${GREETING:-none} ${OTHER:-none}"',
        ]
        assert (await run(ssh.command("ssh", *ask))).stdout == "none none\n"
        await server.set_policy(f'{{{REACH}, "ssh": [{rule}]}}')

        async def is_accepted() -> bool:
            return (await run(ssh.command("ssh", *ask))).stdout == "hello none\n"

        await eventually(is_accepted)


async def test_files_go_over_by_scp_and_sftp(server: Server) -> None:
    me = getpass.getuser()
    content = bytes(range(256)) * 4000
    async with _from_laptop(server) as (laptop, ssh):
        there, back = laptop.folder / "there", laptop.folder / "back"
        source = laptop.folder / "source"
        source.write_bytes(content)
        await run(ssh.command("scp", str(source), f"{me}@server:{there}"))
        assert there.read_bytes() == content
        batch = laptop.folder / "batch"
        batch.write_text(f"get {there} {back}\nrm {there}\n")
        await run(ssh.command("sftp", "-b", str(batch), f"{me}@server"))
        assert back.read_bytes() == content
        assert not there.exists()


async def test_ports_are_forwarded_both_ways(server: Server) -> None:
    async with _from_laptop(server) as (laptop, ssh):
        greeter = await asyncio.start_unix_server(_greet, laptop.folder / "greeter")
        local, remote = laptop.folder / "local", laptop.folder / "remote"
        web = await asyncio.start_server(_greet, "127.0.0.1", 0)
        port = web.sockets[0].getsockname()[1]
        async with (
            greeter,
            web,
            ssh.session(
                *("-N", "-L", f"{local}:127.0.0.1:{port}", "-R", f"{remote}:{laptop.folder / 'greeter'}"),
                f"{getpass.getuser()}@server",
            ),
        ):
            for end in (local, remote):
                reader, writer = await _connected(end)
                async with asyncio.timeout(30):
                    assert await reader.readline() == b"hello\n"
                writer.close()


async def _connected(end: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect as soon as somebody listens there, which is a moment after the file is there."""
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
                return await asyncio.open_unix_connection(end)
            await asyncio.sleep(0.02)


async def _greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"hello\n")
    await writer.drain()
    writer.close()
