"""Pebble, the ACME authority for tests, with the DNS that it asks: its own pretender, or a real Knot that takes updates."""

import asyncio
import base64
import contextlib
import json
import os
import secrets
import ssl
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx2
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from tests.support.programs import require
from tests.support.server import free_port

from doorward.clock import SystemClock
from doorward.engine.processes import stop, tied_to_us
from doorward.server.tls import Authority

HOST = "127.0.0.1"
BLOCKED = "blocked.example.test"  # pebble refuses it
ZONE = "example.test"


@dataclass(frozen=True)
class Pebble:
    """An authority that runs.

    Attributes:
        directory: its address.
        ca: the file that vouches for its own https.
        log: what it says.
    """

    directory: str
    ca: Path
    log: Path
    management: str

    def _client(self) -> httpx2.AsyncClient:
        trust = ssl.create_default_context(cafile=str(self.ca))
        return httpx2.AsyncClient(base_url=self.management, verify=trust, timeout=40, trust_env=False)

    async def trust(self) -> ssl.SSLContext:
        """Whoever trusts what it issues."""
        async with self._client() as client:
            root = (await client.get("/roots/0")).text
        return ssl.create_default_context(cadata=root)

    async def set_renewal_info(self, leaf: bytes, start: str, end: str) -> None:
        """Let it want a certificate (PEM) renewed in that window."""
        window = {"suggestedWindow": {"start": start, "end": end}}
        body = {"Certificate": leaf.decode(), "ARIResponse": json.dumps(window)}
        async with self._client() as client:
            answer = await client.post("/set-renewal-info/", json=body)
        assert answer.is_success, answer.text

    def issued(self) -> int:
        """How many certificates it has issued."""
        return self.log.read_text().count("Issued certificate serial")


@contextlib.asynccontextmanager
async def running_pebble(
    *,
    dns_port: int,
    http_port: int = 1,
    tls_port: int = 1,
    life: int = 7_776_000,
    reuse: int = 0,
    port: int = 0,
    accounts: Mapping[str, str] | None = None,
) -> AsyncIterator[Pebble]:
    """Start it, wait until it answers, and stop it with the block.

    Args:
        dns_port: whom it asks for names, on loopback.
        http_port: where it looks for http-01, instead of 80.
        tls_port: where it looks for tls-alpn-01, instead of 443.
        life: seconds that its certificates last.
        reuse: per cent of proofs that it remembers.
        port: of its directory; 0: a free one.
        accounts: identifiers and keys of which each new account must have one; None: none is asked for.
    """
    clock = SystemClock()
    with tempfile.TemporaryDirectory(prefix="dw-pebble-") as name:
        folder = Path(name)
        authority = Authority.open(folder / "tls", clock)
        key, leaf = authority.issue(("localhost",), (ip_address(HOST),), clock.now())
        (folder / "cert.pem").write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
        (folder / "key.pem").write_bytes(key)
        acme, management = port or free_port(), free_port()
        settings = {
            "listenAddress": f"{HOST}:{acme}",
            "managementListenAddress": f"{HOST}:{management}",
            "certificate": str(folder / "cert.pem"),
            "privateKey": str(folder / "key.pem"),
            "httpPort": http_port,
            "tlsPort": tls_port,
            "domainBlocklist": [BLOCKED],
            "retryAfter": {"authz": 1, "order": 1},
            "keyAlgorithm": "ecdsa",
            "externalAccountBindingRequired": accounts is not None,
            "externalAccountMACKeys": dict(accounts or {}),
            "profiles": {"default": {"description": "the usual", "validityPeriod": life}},
        }
        (folder / "pebble.json").write_text(json.dumps({"pebble": settings}))
        command: list[str | Path] = [
            require("pebble"),
            "-config",
            folder / "pebble.json",
            "-dnsserver",
            f"{HOST}:{dns_port}",
        ]
        environ = {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_AUTHZREUSE": str(reuse)}
        async with _running(command, folder / "log", acme, environ):
            yield Pebble(
                f"https://{HOST}:{acme}/dir",
                authority.file,
                folder / "log",
                f"https://{HOST}:{management}",
            )


@dataclass(frozen=True)
class PretendedDns:
    """Pebble's own: every name is on this machine, and records are set by HTTP."""

    port: int
    management: str


@contextlib.asynccontextmanager
async def pretended_dns() -> AsyncIterator[PretendedDns]:
    """Start it, and stop it with the block."""
    port, management = free_port(), free_port()
    off = [argument for flag in ("-http01", "-https01", "-tlsalpn01", "-doh") for argument in (flag, "")]
    command: list[str | Path] = [
        require("pebble-challtestsrv"),
        *off,
        *("-defaultIPv4", HOST, "-defaultIPv6", "", "-dnsserver", f"{HOST}:{port}"),
        *("-management", f"{HOST}:{management}"),
    ]
    with tempfile.TemporaryDirectory(prefix="dw-dns-") as name:
        async with _running(command, Path(name) / "log", management, {}):
            yield PretendedDns(port, f"http://{HOST}:{management}")


@dataclass(frozen=True)
class Knot:
    """A Knot that has ZONE and takes updates of it with one key.

    Attributes:
        key_file: the key as BIND's tools write it.
    """

    port: int
    key_file: Path
    secret: str
    log: Path


@contextlib.asynccontextmanager
async def running_knot(hosts: Sequence[str]) -> AsyncIterator[Knot]:
    """Start it; ``hosts`` are names in ZONE that are on this machine."""
    port, secret = free_port(), base64.b64encode(secrets.token_bytes(32)).decode()
    with tempfile.TemporaryDirectory(prefix="dw-knot-") as name:
        folder = Path(name)
        records = "".join(f"{host}. 60 IN A {HOST}\n" for host in hosts)
        (folder / "zone").write_text(
            f"$ORIGIN {ZONE}.\n@ 60 IN SOA ns.{ZONE}. nobody.{ZONE}. 1 60 60 600 1\n"
            f"@ 60 IN NS ns.{ZONE}.\nns 60 IN A {HOST}\n{records}"
        )
        (folder / "knot.conf").write_text(
            f"server:\n  rundir: {folder}\n  listen: {HOST}@{port}\n"
            "  tcp-workers: 1\n  udp-workers: 1\n  background-workers: 1\n"
            f"log:\n  - target: stderr\n    any: info\ndatabase:\n  storage: {folder}\n"
            f"key:\n  - id: doorward\n    algorithm: hmac-sha256\n    secret: {secret}\n"
            "acl:\n  - id: ours\n    key: doorward\n    action: [update, query]\n"
            f"zone:\n  - domain: {ZONE}\n    file: {folder}/zone\n    acl: ours\n"
            "    zonefile-load: difference-no-serial\n    journal-content: all\n"
        )
        key_file = folder / "doorward.key"
        key_file.write_text(f'key "doorward" {{\n\talgorithm hmac-sha256;\n\tsecret "{secret}";\n}};\n')
        key_file.chmod(0o600)
        command: list[str | Path] = [require("knotd"), "-c", folder / "knot.conf"]
        async with _running(command, folder / "log", port, {}):
            yield Knot(port, key_file, secret, folder / "log")


@contextlib.asynccontextmanager
async def _running(
    command: Sequence[str | Path], log: Path, port: int, environ: dict[str, str]
) -> AsyncIterator[None]:
    with log.open("wb") as said:
        process = await asyncio.create_subprocess_exec(
            *tied_to_us(command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            env=os.environ | environ,
        )
    try:
        async with asyncio.timeout(20):
            while not await _listens(port):
                assert process.returncode is None, f"{command[0]} has ended: {_said(log)}"
                await asyncio.sleep(0.05)
        yield
    finally:
        await stop(process, 5)


def _said(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:]


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(HOST, port)
    except OSError:
        return False
    writer.close()
    return True


async def presented(port: int, name: str, trust: ssl.SSLContext | None = None) -> x509.Certificate:
    """The certificate that a listener on loopback presents for a name; with ``trust`` only one that it vouches for."""
    context = trust or ssl.create_default_context()
    if trust is None:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection(HOST, port, ssl=context, server_hostname=name)
    connection: Any = writer.get_extra_info("ssl_object")
    leaf = x509.load_der_x509_certificate(connection.getpeercert(binary_form=True))
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return leaf
