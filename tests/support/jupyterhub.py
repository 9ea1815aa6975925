"""JupyterHub with npm's ``configurable-http-proxy`` before it, set up with nothing but what ``doorward apps create`` prints for it."""

import asyncio
import contextlib
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
from tests.support.house import House
from tests.support.npm import installed, node
from tests.support.server import free_port
from tests.support.venv import interop_python
from tests.support.waiting import eventually

from doorward.engine.processes import stop, tied_to_us

HOST = "hub.example.com"
# Where this machine differs from one of the tailnet: the hub's own requests go through the laptop's proxy.
_MACHINE = """
c.JupyterHub.bind_url = "http://127.0.0.1:{port}"
c.JupyterHub.hub_port = {hub}
c.ConfigurableHTTPProxy.command = ["{node}", "{proxy}"]
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{api}"
c.JupyterHub.db_url = "sqlite:///{folder}/hub.sqlite"
c.JupyterHub.cookie_secret_file = "{folder}/cookie_secret"
c.JupyterHub.default_url = "/hub/home"
c.OAuthenticator.http_request_kwargs = {{
    "proxy_host": "localhost", "proxy_port": {through}, "ca_certs": "{authority}"
}}
from tornado.httpclient import AsyncHTTPClient
AsyncHTTPClient.configure("tornado.curl_httpclient.CurlAsyncHTTPClient")
"""
_PACKAGES = Path(__file__).parent / "hub"


@contextlib.asynccontextmanager
async def jupyterhub(house: House, settings: str) -> AsyncIterator[int]:
    """Serve it.

    Args:
        house: whose door it sends people to.
        settings: what was printed, and what its administrator adds.

    Returns:
        Its port on this machine; people call it ``https://hub.example.com``.
    """
    packages = await asyncio.to_thread(installed, _PACKAGES)
    python = await asyncio.to_thread(interop_python)
    with tempfile.TemporaryDirectory(prefix="dw-hub-", ignore_cleanup_errors=True) as temporary:
        folder, port = Path(temporary), free_port()
        machine = _MACHINE.format(
            folder=folder,
            port=port,
            hub=free_port(),
            api=free_port(),
            node=node(),
            proxy=packages / "node_modules" / "configurable-http-proxy" / "bin" / "configurable-http-proxy",
            through=house.laptop.http_port,
            authority=house.authority,
        )
        (folder / "jupyterhub_config.py").write_text(settings + machine)
        environ = house.environ | {"PATH": f"{python.parent}{os.pathsep}{house.environ['PATH']}"}
        log = folder / "log"
        with log.open("wb") as said:
            command: list[str | Path] = [
                python,
                "-m",
                "jupyterhub",
                "--config",
                folder / "jupyterhub_config.py",
            ]
            process = await asyncio.create_subprocess_exec(
                *tied_to_us(command), cwd=folder, stdout=said, stderr=said, env=environ
            )
        try:
            await eventually(lambda: _answers(process, port), 60)
            yield port
        except BaseException:
            print(log.read_text(errors="replace")[-6000:])  # noqa: T201 - pytest shows it with the failure
            raise
        finally:
            await stop(process, 15)


async def _answers(process: asyncio.subprocess.Process, port: int) -> bool:
    assert process.returncode is None, "JupyterHub ended"
    with contextlib.suppress(httpx2.HTTPError):
        async with httpx2.AsyncClient(trust_env=False) as client:
            return (await client.get(f"http://127.0.0.1:{port}/hub/health")).status_code == 200
    return False
