"""ACME as a worker has it: a real worker, without an authority to talk to."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.support.pebble import presented
from tests.support.server import free_port
from tests.support.waiting import eventually
from tests.support.workers import Working, data_folder, settings_in, working

from doorward.config import Settings
from doorward.config.settings import Acme, PortSettings, Tls
from doorward.server.acme.folder import Answer, Folder

NOBODY = "https://127.0.0.1:9/dir"  # an authority that is not there


@pytest.fixture
def folder() -> Iterator[Path]:
    with data_folder() as name:
        yield name


def ordering(folder: Path, **acme: Any) -> Settings:
    port = free_port()
    values = {"directory": NOBODY, "agree": True, **acme}
    return settings_in(
        folder,
        listen=f"127.0.0.1:{port}",
        url=f"https://control.example.com:{port}",
        door="https://door.example.com",
        ports=PortSettings(door=free_port()),
        tls=Tls(acme=Acme(**values)),
    )


def _listen(running: Working) -> int:
    return int(running.settings.listen.rpartition(":")[2])


async def test_it_serves_at_once_and_says_what_it_lacks(folder: Path) -> None:
    async with working(ordering(folder)) as running:
        port = _listen(running)
        for name in ("control.example.com", "door.example.com"):
            leaf = await presented(port, name, running.trust())  # our own authority's, for the very name
            assert "doorward authority" in leaf.issuer.rfc4514_string()

        async def is_said() -> bool:
            parts = (await running.ask("GET", "/status"))["parts"]
            (part,) = [part for part in parts if part["name"] == "certificates"]
            return part["state"] == "failing" and "Connection refused" in part["text"]

        await eventually(is_said)
        found = [one for one in await running.ask("GET", "/doctor") if one["subject"] == "certificates"]
        assert sorted(one["level"] for one in found) == ["error", "error", "ok"]  # the relay's own is well
        assert all("firewall" in one["cure"] for one in found if one["level"] == "error")
        # The relay is on control's listener, by its name.
        assert running.worker._certificates.relay_is_public
        assert list(running.worker._sockets.relay) == []


async def test_the_plain_listener_knows_proofs_and_nothing_else(folder: Path) -> None:
    plain = free_port()
    settings = ordering(folder, challenge="http-01", listen=f"127.0.0.1:{plain}")
    async with working(settings) as running:
        kept = Folder(folder / "tls" / "acme")
        kept.keep_answers(
            (Answer(host="door.example.com", challenge="http-01", token="t", authorization="t.x"),)
        )
        path = "/.well-known/acme-challenge/t"
        async with httpx2.AsyncClient(verify=False, trust_env=False) as client:
            assert (await client.get(f"http://127.0.0.1:{plain}{path}")).text == "t.x"
            # Where port 80 leads to the public listener, it answers as well.
            assert (await client.get(f"https://127.0.0.1:{_listen(running)}{path}")).text == "t.x"
            for other in ("/key?v=100", "/metrics", "/api/v1/status", "/ca.pem"):
                answer = await client.get(f"http://127.0.0.1:{plain}{other}", headers={"host": "a"})
                assert answer.status_code == 404


async def test_without_acme_nothing_of_it_is_there(folder: Path) -> None:
    async with working(settings_in(folder)) as running:
        assert not (folder / "tls" / "acme").exists()
        parts = (await running.ask("GET", "/status"))["parts"]
        assert "certificates" not in {part["name"] for part in parts}


def test_a_worker_loads_none_of_the_libraries_until_it_orders() -> None:
    program = "import sys, doorward.server.worker; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "doorward.server.acme.service" not in done.stdout.split()  # nor our own part
    assert loaded.isdisjoint({"acme", "josepy", "OpenSSL", "requests", "urllib3", "dns"})
    assert "doorward" in loaded
