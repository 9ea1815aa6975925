"""Headscale, with a relay of its own: a tailnet that is not doorward's."""

import asyncio
import json
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.support.golang import headscale_program
from tests.support.relay import HOST, RunningRelay, running_relay
from tests.support.server import free_port

from doorward.engine.processes import stop, tied_to_us

DOMAIN = "net.example"


class Headscale:
    """A server that runs. Made by ``running_headscale``."""

    def __init__(self, program: Path, folder: Path, port: int) -> None:
        self._program = program
        self._folder = folder
        self.url = f"http://{HOST}:{port}"
        self.process: asyncio.subprocess.Process | None = None

    async def run(self, *arguments: str, check: bool = True) -> str | None:
        """What ``headscale ARGUMENTS`` says; None where it fails, without ``check``."""
        settings = str(self._folder / "config.yaml")
        process = await asyncio.create_subprocess_exec(
            self._program,
            "--config",
            settings,
            "--output",
            "json",
            *arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        async with asyncio.timeout(30):
            out, err = await process.communicate()
        assert not check or process.returncode == 0, f"headscale {arguments}: {out!r} {err!r}"
        return None if process.returncode else out.decode()

    async def json(self, *arguments: str) -> Any:
        """The same, decoded."""
        return json.loads(await self.run(*arguments) or "")

    async def user(self, name: str) -> str:
        """Add a user; their number."""
        return str((await self.json("users", "create", name))["id"])

    async def key(self, *arguments: str) -> str:
        """A new auth key."""
        return str((await self.json("preauthkeys", "create", *arguments))["key"])

    async def set_policy(self, text: str) -> None:
        """Put a policy in force."""
        file = self._folder / "next.hujson"
        file.write_text(text, encoding="utf-8")
        await self.run("policy", "set", "--file", str(file))


@asynccontextmanager
async def running_headscale() -> AsyncIterator[Headscale]:
    """Start it, wait until it answers, and stop it with the block."""
    program = await asyncio.to_thread(headscale_program)
    with tempfile.TemporaryDirectory(prefix="dw-hs-", ignore_cleanup_errors=True) as name:
        folder, port = Path(name), free_port()
        async with running_relay(stun=True) as relay:
            (folder / "derp.yaml").write_text(_derp_map(relay), encoding="utf-8")
            (folder / "config.yaml").write_text(json.dumps(_settings(folder, port)), encoding="utf-8")
            with (folder / "log").open("wb") as log:
                started = Headscale(program, folder, port)
                process = started.process = await asyncio.create_subprocess_exec(
                    *tied_to_us([program, "--config", folder / "config.yaml", "serve"]),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            try:
                async with asyncio.timeout(40):
                    while await started.run("users", "list", check=False) is None:
                        assert process.returncode is None, (folder / "log").read_text()[-3000:]
                        await asyncio.sleep(0.1)
                yield started
            except BaseException:
                print(f"--- the end of Headscale's log ---\n{(folder / 'log').read_text()[-4000:]}")  # noqa: T201 - pytest shows it with the failure
                raise
            finally:
                await stop(process, 5)


def _derp_map(relay: RunningRelay) -> str:
    # JSON is YAML but for the key, a number. Headscale's names of fields are the protocol's in lower case.
    entry = {name.lower(): value for name, value in relay.derp_node().items()}
    region = {"regionid": 900, "regioncode": "own", "regionname": "Own", "nodes": [entry]}
    return f"regions: {{900: {json.dumps(region)}}}\n"


def _settings(folder: Path, port: int) -> dict[str, Any]:
    return {
        "server_url": f"http://{HOST}:{port}",
        "listen_addr": f"{HOST}:{port}",
        "metrics_listen_addr": "",
        "grpc_listen_addr": f"{HOST}:{free_port()}",
        "noise": {"private_key_path": str(folder / "noise.key")},
        "prefixes": {"v4": "100.64.0.0/10", "v6": "fd7a:115c:a1e0::/48"},
        "derp": {
            "server": {"enabled": False},
            "urls": [],
            "paths": [str(folder / "derp.yaml")],
            "auto_update_enabled": False,
        },
        "disable_check_updates": True,
        "database": {"type": "sqlite", "sqlite": {"path": str(folder / "db.sqlite")}},
        "policy": {"mode": "database"},
        "dns": {"magic_dns": True, "base_domain": DOMAIN, "override_local_dns": False},
        "unix_socket": str(folder / "s"),
        "unix_socket_permission": "0700",
        "logtail": {"enabled": False},
        "log": {"level": "info", "format": "text"},
    }
