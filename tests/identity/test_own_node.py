"""A node for an app, of a real daemon at a real doorward: who calls, what is reachable beside it, and what ends."""

import asyncio
import contextlib
import os
import ssl
import sys
from collections.abc import AsyncIterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn
from tests.identity.test_identity import examples
from tests.support.clients import StockClient
from tests.support.fetching import fetch
from tests.support.programs import OLDEST_CLIENT, require_client
from tests.support.server import Server, free_port
from tests.support.waiting import eventually

from doorward import identity
from doorward.engine.base import EngineError
from doorward.engine.localapi import Opening
from doorward.engine.processes import stop, tied_to_us
from doorward.identity.own_node import _meets, load_pair

CAP = "example.com/cap/wiki"


def policy(port: str) -> str:
    grant = f'{{"src": ["autogroup:member"], "dst": ["tag:wiki"], "ip": ["tcp:{port}"], "app": {{"{CAP}": [{{"a": 1}}]}}}}'
    return f'{{"tagOwners": {{"tag:wiki": ["autogroup:admin"]}}, "grants": [{grant}]}}'


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    require_client()
    async with Server() as started:
        yield started


@contextlib.asynccontextmanager
async def _other_program() -> AsyncIterator[int]:
    """Something else that listens on this computer's loopback; its port."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.0 200 OK\r\n\r\nprivate")
        writer.close()

    port = free_port()
    async with await asyncio.start_server(answer, "127.0.0.1", port):
        yield port


async def _get(laptop: StockClient, url: str, *options: str, seconds: int = 3) -> str | None:
    """What the app says to somebody at the laptop; None where nobody is reached."""
    proxy = f"socks5h://127.0.0.1:{laptop.socks_port}"
    try:
        return (await fetch(url, "--proxy", proxy, "--max-time", str(seconds), *options)).text
    except AssertionError:
        return None


@pytest.mark.interop
async def test_the_guide_s_example_is_a_node_that_knows_its_callers_and_opens_nothing_else(
    server: Server, tmp_path: Path
) -> None:
    port = free_port()
    program = tmp_path / "wiki.py"
    program.write_text(examples()[2].replace("8000", str(port)), encoding="utf-8")
    await server.user("alice")
    await server.set_policy(policy(str(port)))
    environ = os.environ | {
        "TS_CONTROL_URL": server.url,
        "TS_AUTHKEY": await server.key("--tag", "tag:wiki"),
        "XDG_STATE_HOME": str(tmp_path),
    }
    async with _other_program() as other, StockClient("laptop") as laptop:
        await laptop.up(server.url, await server.key("--user", "alice"))
        process = await asyncio.create_subprocess_exec(
            *tied_to_us([sys.executable, program]), stdout=asyncio.subprocess.PIPE, env=environ
        )
        try:
            assert process.stdout is not None
            async with asyncio.timeout(40):
                url = (await process.stdout.readline()).decode().strip()
            assert url == f"http://wiki.tailnet.internal:{port}"
            there = url.rpartition(":")[0]

            async def greeted() -> bool:
                said = await _get(laptop, url, "-H", "Tailscale-User-Login: eve")
                return said == "This is the wiki, alice"

            async def shut() -> bool:
                return await _get(laptop, url, seconds=1) is None

            await eventually(greeted, 20)
            assert await _get(laptop, f"{there}:{other}", seconds=1) is None
            # A program of this computer comes without an identity.
            with pytest.raises(httpx2.HTTPError):
                httpx2.get(f"http://127.0.0.1:{port}", trust_env=False)
            await server.set_policy(policy("*"))
            await eventually(shut, 20)
            assert await _get(laptop, f"{there}:{other}", seconds=1) is None
            await server.set_policy(policy(str(port)))
            await eventually(greeted, 20)
        finally:
            await stop(process, 6)


@pytest.mark.interop
@pytest.mark.parametrize("version", [None, OLDEST_CLIENT])
async def test_a_person_lets_it_in_by_link_and_a_wide_policy_keeps_it_from_serving(
    server: Server, tmp_path: Path, version: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(require_client(version).tailscaled.parent), prepend=os.pathsep)
    await server.user("alice")
    links: list[str] = []

    async def approve(link: str) -> None:
        links.append(link)
        await server.run("nodes", "approve", link, "--user", "alice")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("nobody gets here")

    async with identity.node(
        "notes", control=server.url, port=free_port(), folder=tmp_path / "n", on_link=approve
    ) as node:
        assert len(links) == 1
        assert node.name == "notes.tailnet.internal"
        with pytest.raises(EngineError, match="the policy lets others reach") as caught:
            await node.serve(app)
        assert "tcp:" in caught.value.cure
        assert (await node._api.prefs())["ShieldsUp"] is True
    # The second time it is known already.
    async with identity.node("notes", control=server.url, folder=tmp_path / "n", on_link=approve) as node:
        assert node.name == "notes.tailnet.internal"
    assert len(links) == 1


@pytest.mark.interop
async def test_the_guide_s_middleware_knows_who_comes_through_a_daemon(server: Server) -> None:
    await server.user("alice")
    await server.set_policy(
        f'{{"grants": [{{"src": ["*"], "dst": ["*"], "ip": ["*"], "app": {{"{CAP}": [{{"a": 1}}]}}}}]}}'
    )
    port = free_port()
    async with StockClient("host") as host, StockClient("laptop") as laptop:
        for client in (host, laptop):
            await client.up(server.url, await server.key("--user", "alice"))
        room: dict[str, Any] = {"Path": Path}
        exec(examples()[1].replace("Tailnet()", f"Tailnet(Path({str(host.socket)!r}))"), room)
        web = uvicorn.Server(uvicorn.Config(room["app"], port=port, log_config=None))
        async with asyncio.TaskGroup() as group:
            group.create_task(web.serve())
            try:
                url = f"http://host:{port}"

                async def greeted() -> bool:
                    return await _get(laptop, url) == f"alice ['{CAP}']"

                await eventually(greeted, 20)
                # This web server takes the caller's address from a header where it comes from loopback: nobody's then.
                refused = await _get(laptop, url, "-H", "X-Forwarded-For: 127.0.0.1")
                assert refused is not None
                assert "not known who is asking" in refused
                async with httpx2.AsyncClient(trust_env=False) as local:
                    assert (await local.get(f"http://127.0.0.1:{port}")).status_code == 401
            finally:
                web.should_exit = True


@pytest.mark.interop
async def test_a_key_that_is_no_good_is_a_refusal(server: Server, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"refused|not taken"):
        async with identity.node(
            "notes", control=server.url, auth_key="tskey-auth-none-x", folder=tmp_path / "n"
        ):
            pass


@pytest.mark.parametrize(
    ("address", "meets"),
    [
        ("100.64.0.5", True),
        ("100.64.0.6", False),
        ("100.64.0.0/24", True),
        ("100.64.0.1-100.64.0.9", True),
        ("100.64.0.6-100.64.0.9", False),
        ("fd7a::/16", True),
        ("fd7b::1-fd7b::9", False),
        ("*", True),
        ("what is this", True),
    ],
)
def test_an_opening_is_about_us_or_not(address: str, meets: bool) -> None:
    ours = [ip_address("100.64.0.5"), ip_address("fd7a::5")]
    assert _meets(Opening(address=address, first=1, last=2), ours) is meets


def test_a_certificate_that_is_none_is_refused() -> None:
    with pytest.raises(EngineError):
        load_pair(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), b"no certificate")
