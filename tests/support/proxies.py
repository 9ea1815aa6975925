"""nginx and Caddy before a real ``doorward serve``, with the settings that the guide gives: only addresses and files are others."""

import asyncio
import contextlib
import os
import re
import ssl
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx2
from cryptography.hazmat.primitives import serialization
from tests.support.programs import require
from tests.support.relay import make_leaf
from tests.support.server import Server, free_port
from tests.support.waiting import until
from websockets.asyncio.client import connect
from websockets.typing import Origin, Subprotocol

from doorward.clock import SystemClock
from doorward.engine.processes import stop, tied_to_us
from doorward.server.tls import Authority

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
        port: of the proxy, for control.
        door_port: and for people.
        url: control's address, at the proxy.
        door: the people's.
        authority: a file with all certificates to trust.
    """

    server: Server
    port: int
    door_port: int
    url: str
    door: str
    authority: Path

    @property
    def folder(self) -> Path:
        """Where the certificates are."""
        return self.authority.parent

    @property
    def path(self) -> str:
        """The door's."""
        return self.door.removeprefix(self.origin)

    @property
    def host(self) -> str:
        """The door's name."""
        return self.origin.removeprefix("https://").partition(":")[0]

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
            base_url=f"https://127.0.0.1:{self.door_port}",
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
            port=self.door_port,
            ssl=self.trust(),
            proxy=None,
            **(given | options),
        )


@contextlib.asynccontextmanager
async def behind(kind: str, *, path: str = "") -> AsyncIterator[Behind]:
    """A server behind a proxy of this kind, ``nginx`` or ``caddy``; the other arguments as for ``to_be_behind``."""
    async with to_be_behind(path=path) as made, standing(kind, made):
        yield made


@contextlib.asynccontextmanager
async def to_be_behind(
    *, path: str = "", host: str = "", environ: Mapping[str, str] | None = None
) -> AsyncIterator[Behind]:
    """A server that believes a proxy to stand before it.

    Args:
        path: of the door; with one the door is at ``intranet.example.com``.
        host: the door's name, where it is another; ``localhost`` is one that doorward finds, too.
        environ: more of doorward's settings.
    """
    port, door_port = free_port(), free_port()
    host = host or (INTRANET if path else DOOR)
    url, door = f"https://localhost:{port}", f"https://{host}:{door_port}{path}"
    with tempfile.TemporaryDirectory(prefix="dw-proxy-", ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        authority = await asyncio.to_thread(_certificates, folder, host)
        given = {
            "DOORWARD_TRUSTED_PROXIES": "127.0.0.1",
            "DOORWARD_RELAY_PROXIED": "true",
            "DOORWARD_RELAY_LISTEN": "127.0.0.1",
            "SSL_CERT_FILE": str(authority),
            "DOORWARD_TLS_DOOR_CERT": str(folder / "door.pem"),
            "DOORWARD_TLS_DOOR_KEY": str(folder / "door.key"),
        }
        server = Server(extra=["--door", door, "--url", url], environ=given | dict(environ or {}))
        server.url = url
        async with server:
            yield Behind(server, port, door_port, url, door, authority)


@contextlib.asynccontextmanager
async def standing(kind: str, made: Behind, change: Change = str) -> AsyncIterator[None]:
    """A proxy before it.

    Args:
        kind: ``nginx`` or ``caddy``.
        made: the server.
        change: what somebody has made of the guide's settings.
    """
    with tempfile.TemporaryDirectory(
        prefix=f"dw-{kind}-", dir=made.folder, ignore_cleanup_errors=True
    ) as temporary:
        run = _nginx if kind == "nginx" else _caddy
        async with run(Path(temporary), made, change):
            yield


def _certificates(folder: Path, host: str) -> Path:
    """``control`` and ``door`` with their keys; returns the file with all there is to trust."""
    folder.chmod(0o755)  # its processes may give up root's rights
    leaf = make_leaf()  # for localhost and 127.0.0.1
    (folder / "control.pem").write_bytes(leaf.pem)
    (folder / "control.key").write_bytes(leaf.key_pem)
    clock = SystemClock()
    authority = Authority.open(folder / "authority", clock)
    # doorward takes localhost for the address, since it may be either family's.
    addresses = (ip_address("127.0.0.1"),) if host == "localhost" else ()
    key, certificate = authority.issue((host,), addresses, clock.now())
    (folder / "door.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "door.key").write_bytes(key)
    for file in folder.glob("*.key"):
        file.chmod(0o644)  # thrown away in a minute
    trusted = folder / "trusted.pem"
    trusted.write_bytes(leaf.pem + authority.pem.encode())
    return trusted


def _settled(text: str, made: Behind) -> str:
    """The guide's settings with the places of this machine."""
    host, port = made.server.listens_at
    return text.replace("127.0.0.1:8080", f"{host}:{port}").replace("/etc/ssl/", f"{made.folder}/")


@contextlib.asynccontextmanager
async def _nginx(folder: Path, made: Behind, change: Change) -> AsyncIterator[None]:
    program = require("nginx")
    passing, names = block("/etc/nginx/doorward.conf"), block("/etc/nginx/conf.d/doorward.conf")
    if made.path:
        inside = block("in nginx, the server of intranet.example.com").replace("/tailnet", made.path)
        head, _, door = names.rpartition(
            "    location / {\n        include /etc/nginx/doorward.conf;\n    }\n"
        )
        names = head + inside + door
    for port in (made.port, made.door_port):
        names = names.replace("203.0.113.5:443", f"127.0.0.1:{port}", 1)
    names = names.replace("control.example.com", "localhost").replace(DOOR, made.host)
    passing, names = change(passing), change(names)
    (folder / "doorward.conf").write_text(_settled(passing, made))
    names = names.replace("/etc/nginx/doorward.conf", f"{folder}/doorward.conf")
    (folder / "nginx.conf").write_text(
        f"daemon off;\npid {folder}/nginx.pid;\nerror_log {folder}/proxy.log notice;\nworker_processes 1;\n"
        + ("user root;\n" if os.geteuid() == 0 else "")
        + "events {}\nhttp {\naccess_log off;\n"
        + "".join(
            f"{name}_temp_path {folder}/{name};\n"
            for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        + _settled(names, made)
        + "}\n"
    )
    command = [str(program), "-p", str(folder), "-c", str(folder / "nginx.conf")]
    async with _running(command, folder, "start worker process ", {}):
        yield


@contextlib.asynccontextmanager
async def _caddy(folder: Path, made: Behind, change: Change) -> AsyncIterator[None]:
    program = require("caddy")
    sites = block("/etc/caddy/Caddyfile")
    if made.path:
        inside = block("in Caddy, the site intranet.example.com").replace("/tailnet", made.path)
        head, _, door = sites.rpartition("    reverse_proxy 127.0.0.1:8080\n")
        sites = head + inside + door
    # Where control is an address, clients name none in TLS, and one in Host.
    control = f"https://localhost:{made.port}, https://127.0.0.1:{made.port} {{"
    sites = (
        sites.replace("203.0.113.5", "127.0.0.1")
        .replace("control.example.com {", control)
        .replace(f"{DOOR} {{", f"{made.origin} {{")
    )
    options = f"{{\n    admin off\n    auto_https off\n    default_sni localhost\n    storage file_system {folder}/kept\n}}\n"
    (folder / "Caddyfile").write_text(options + _settled(change(sites), made))
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
