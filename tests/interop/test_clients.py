"""The stock clients that other tests drive, before there is anything to join."""

import asyncio
import json
import os

import pytest
from tests.support.clients import StockClient
from tests.support.programs import OLDEST_CLIENT, require_client

from doorward.engine.base import EngineError

pytestmark = pytest.mark.interop


@pytest.mark.parametrize("version", [None, OLDEST_CLIENT])
async def test_a_client_is_new_every_time_and_leaves_nothing(version: str | None) -> None:
    async with StockClient("laptop", client=require_client(version)) as client:
        status = await client.wait_until("NeedsLogin")
        assert status["Version"].startswith(".".join(map(str, client.client.version)))
        assert (await client.cli("version", "--json")).stdout.startswith("{")
        folder, pid = client.folder, client.pid
        assert client.log.exists()
    assert not folder.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_the_socks_proxy_keeps_its_port_over_a_kill_and_a_restart() -> None:
    async with StockClient("laptop") as client:
        port = client.socks_port
        assert port
        reader, writer = await asyncio.open_connection("localhost", port)
        writer.write(b"\x05\x01\x00")  # RFC 1928: version 5, one method, no authentication
        assert await reader.readexactly(2) == b"\x05\x00"
        writer.close()
        await client.kill()
        with pytest.raises(EngineError):
            await client.api.status()
        await client.start()
        await client.restart()
        assert client.socks_port == port
        _, writer = await asyncio.open_connection("localhost", port)
        writer.close()


async def test_a_refusal_by_the_command_is_shown() -> None:
    async with StockClient("laptop") as client:
        with pytest.raises(AssertionError, match="Logged out"):
            await client.ping("100.64.0.1")
        assert (await client.cli("status", check=False)).returncode == 1


async def test_up_without_anybody_there_ends_in_time() -> None:
    async with StockClient("laptop") as client:
        result = await client.up("http://127.0.0.1:9", "tskey-none", within=1, check=False)
        assert result.returncode != 0
        prefs = json.loads((await client.cli("debug", "prefs")).stdout)
        assert prefs["ControlURL"] == "http://127.0.0.1:9"
        assert prefs["Hostname"] == "laptop"
