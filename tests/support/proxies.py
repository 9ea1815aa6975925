"""nginx and Caddy before a real ``doorward serve``, with the settings that the guide gives: only addresses and files are others."""

import asyncio
import contextlib
import os
import re
import ssl
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from tests.support.programs import require
from tests.support.relay import make_leaf
from tests.support.server import Server, free_port
from tests.support.waiting import until
from tests.support.workers import write_certificate
from websockets.asyncio.client import connect
from websockets.typing import Origin, Subprotocol

from doorward.engine.processes import stop, tied_to_us

PROXIES = ("nginx", "caddy")
GUIDE = Path(__file__).parents[2] / "docs" / "guide" / "proxies.md"
DOOR = "door.example.com"
INTRANET = "intranet.example.com"

Change = Callable[[str], str]


def block(first: str) -> str:
    """The guide's settings whose first line is this comment."""
    found = [
        text
        for text in re.findall(r"```\n(.*?)```", GUIDE.read_text(), re.DOTALL)
        if text.startswith(f"# {first}")
    ]
    assert len(found) == 1, f"{len(found)} in the guide for {first}"
    return str(found[0])


@dataclass
class Behind:
    """A server, and the proxy that people and nodes come by.

    Attributes:
        url: control's address, at the proxy.
        door: the people's.
        authority: a file with all certificates to trust.
    """

    server: Server
    port: int
    url: str
    door: str
    authority: Path

    @property
    def origin(self) -> str:
        """The door's, without its path."""
        return "/".join(self.door.split("/")[:3])

    def trust(self) -> ssl.SSLContext:
        """Whoever trusts them."""
        return ssl.create_default_context(cafile=str(self.authority))

    @contextlib.asynccontextmanager
    async def browser(
        self, *, source: str = "127.0.0.1", **headers: str
    ) -> AsyncIterator[httpx2.AsyncClient]:
        """A browser that goes to the door by the proxy, from an address of this machine."""
        host = self.origin.removeprefix("https://")

        async def named(request: httpx2.Request) -> None:
            request.headers["Host"] = host
            request.extensions["sni_hostname"] = host.partition(":")[0]

        transport = httpx2.AsyncHTTPTransport(verify=self.trust(), local_address=source)
        async with httpx2.AsyncClient(
            transport=transport,
            base_url=f"https://127.0.0.1:{self.port}",
            headers=headers,
            event_hooks={"request": [named]},
            timeout=20,
        ) as client:
            yield client

    def tab(self, **options: Any) -> connect:
        """A tab's WebSocket to the relay."""
        given = {"subprotocols": [Subprotocol("derp")], "origin": Origin(self.origin), "compression": None}
        return connect(
            f"wss://{self.origin.removeprefix('https://')}/derp",
            host="127.0.0.1",
            port=self.port,
            ssl=self.trust(),
            proxy=None,
            **(given | options),
        )


@contextlib.asynccontextmanager
async def behind(
    kind: str, *, path: str = "", change: Change = str, environ: Mapping[str, str] | None = None
) -> AsyncIterator[Behind]:
    """A server behind a proxy of this kind.

    Args:
        kind: ``nginx`` or ``caddy``.
        path: of the door; with one the door is at ``intranet.example.com``.
        change: what somebody has made of the proxy's settings.
        environ: more of doorward's settings.
    """
    port = free_port()
    host = INTRANET if path else DOOR
    url, door = f"https://localhost:{port}", f"https://{host}:{port}{path}"
    with tempfile.TemporaryDirectory(prefix="dw-proxy-", ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        authority = await asyncio.to_thread(_certificates, folder, host)
        given = {
            "DOORWARD_TRUSTED_PROXIES": "127.0.0.1",
            "DOORWARD_RELAY_PROXIED": "true",
            "DOORWARD_RELAY_LISTEN": "127.0.0.1",
            "DOORWARD_TLS_DOOR_CERT": str(folder / "door.pem"),
            "DOORWARD_TLS_DOOR_KEY": str(folder / "door.key"),
        }
        server = Server(extra=["--door", door, "--url", url], environ=given | dict(environ or {}))
        listens = server.url.removeprefix("http://")
        server.url = url
        async with server:
            run = _nginx if kind == "nginx" else _caddy
            async with run(folder, port, host, listens, path, change):
                yield Behind(server, port, url, door, authority)


def _certificates(folder: Path, host: str) -> Path:
    """``control`` and ``door`` with their keys; returns the file with all there is to trust."""
    folder.chmod(0o755)  # its processes may give up root's rights
    leaf = make_leaf()  # for localhost and 127.0.0.1
    (folder / "control.pem").write_bytes(leaf.pem)
    (folder / "control.key").write_bytes(leaf.key_pem)
    cert, key, authority = write_certificate(folder, host)
    cert.rename(folder / "door.pem")
    key.rename(folder / "door.key")
    for file in folder.glob("*.key"):
        file.chmod(0o644)  # thrown away in a minute
    trusted = folder / "trusted.pem"
    trusted.write_bytes(authority.read_bytes() + leaf.pem)
    return trusted


def _settled(text: str, folder: Path, listens: str) -> str:
    """The guide's settings with the places of this machine."""
    return text.replace("127.0.0.1:8080", listens).replace("/etc/ssl/", f"{folder}/")


@contextlib.asynccontextmanager
async def _nginx(
    folder: Path, port: int, host: str, listens: str, path: str, change: Change
) -> AsyncIterator[None]:
    program = require("nginx")
    passing, names = block("/etc/nginx/doorward.conf"), block("/etc/nginx/conf.d/doorward.conf")
    if path:
        inside = block("in nginx, the server of intranet.example.com").replace("/tailnet", path)
        head, _, door = names.rpartition(
            "    location / {\n        include /etc/nginx/doorward.conf;\n    }\n"
        )
        names = head.replace(DOOR, host) + inside + door
    names = names.replace("203.0.113.5:443", f"127.0.0.1:{port}").replace("control.example.com", "localhost")
    passing, names = change(passing), change(names)
    (folder / "doorward.conf").write_text(_settled(passing, folder, listens))
    names = names.replace("/etc/nginx/doorward.conf", f"{folder}/doorward.conf")
    (folder / "nginx.conf").write_text(
        f"daemon off;\npid {folder}/nginx.pid;\nerror_log {folder}/proxy.log notice;\nworker_processes 1;\n"
        + ("user root;\n" if os.geteuid() == 0 else "")
        + "events {}\nhttp {\naccess_log off;\n"
        + "".join(
            f"{name}_temp_path {folder}/{name};\n"
            for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        + _settled(names, folder, listens)
        + "}\n"
    )
    command = [str(program), "-p", str(folder), "-c", str(folder / "nginx.conf")]
    async with _running(command, folder, "start worker process ", {}):
        yield


@contextlib.asynccontextmanager
async def _caddy(
    folder: Path, port: int, host: str, listens: str, path: str, change: Change
) -> AsyncIterator[None]:
    program = require("caddy")
    sites = block("/etc/caddy/Caddyfile")
    if path:
        inside = block("in Caddy, the site intranet.example.com").replace("/tailnet", path)
        head, _, door = sites.rpartition("    reverse_proxy 127.0.0.1:8080\n")
        sites = head.replace(DOOR, host) + inside + door
    # Where control is an address, clients name none in TLS, and one in Host.
    control = f"https://localhost:{port}, https://127.0.0.1:{port} {{"
    sites = (
        sites.replace("203.0.113.5", "127.0.0.1")
        .replace("control.example.com {", control)
        .replace(f"{host} {{", f"https://{host}:{port} {{")
    )
    options = f"{{\n    admin off\n    auto_https off\n    default_sni localhost\n    storage file_system {folder}/kept\n}}\n"
    (folder / "Caddyfile").write_text(options + _settled(change(sites), folder, listens))
    command = [str(program), "run", "--adapter", "caddyfile", "--config", str(folder / "Caddyfile")]
    places = dict.fromkeys(("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"), str(folder))
    async with _running(command, folder, "serving initial configuration", places):
        yield


@contextlib.asynccontextmanager
async def _running(
    command: Sequence[str], folder: Path, ready: str, environ: Mapping[str, str]
) -> AsyncIterator[None]:
    said = folder / "proxy.log"
    said.touch()
    with (folder / "output").open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *tied_to_us(command), stdout=output, stderr=output, env={**os.environ, **environ}
        )

    def log() -> str:
        return said.read_text(errors="replace") + (folder / "output").read_text(errors="replace")

    def listens() -> bool:
        assert process.returncode is None, log()
        return ready in log()

    try:
        await until(listens, 30)
        yield
    except BaseException:
        print(f"--- what the proxy said ---\n{log()[-4000:]}")  # noqa: T201 - pytest shows it with the failure
        raise
    finally:
        await stop(process, 10)
