"""What the listeners answer to somebody who wants to see that a name is ours, and to everybody else meanwhile."""

import asyncio
import contextlib
import hashlib
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from cryptography import x509
from tests.support.certificates import tls_contexts

from doorward.clock import SystemClock
from doorward.config import Settings
from doorward.server.acme.answers import Answers, plain_app
from doorward.server.acme.folder import Answer, Folder
from doorward.transport.listener import ListenerSpec, serve

HOST = "door.example.com"
AUTHORIZATION = "token.thumbprint"
SETTINGS = Settings(url="https://control.example.com", door=f"https://{HOST}:8443", listen="127.0.0.1:0")


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": request.param}


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "acme")


def answer(challenge: Any, host: str = HOST) -> Answer:
    return Answer(host=host, challenge=challenge, token="token", authorization=AUTHORIZATION)


@contextlib.asynccontextmanager
async def door(folder: Folder, *, encrypted: bool) -> AsyncIterator[int]:
    """A listener as a worker has it; its port."""
    answers, stop, ready = Answers(folder, SystemClock()), asyncio.Event(), asyncio.Event()
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    port: int = bound.getsockname()[1]
    listener = ListenerSpec(
        name="public",
        sockets=[bound],
        ssl_context=tls_contexts()[0] if encrypted else None,
        proof=answers.proof if encrypted else None,
    )
    app = plain_app(answers, SETTINGS)
    async with asyncio.TaskGroup() as group:
        group.create_task(serve([listener], app, {}, clock=SystemClock(), stop=stop, ready=ready))
        await ready.wait()
        try:
            yield port
        finally:
            stop.set()


async def seen(port: int, name: str, *protocols: str) -> tuple[x509.Certificate, str | None, bytes]:
    """The leaf and protocol that a client with these gets, and what it reads after asking for a page."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if protocols:
        context.set_alpn_protocols(protocols)
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)
    connection = writer.get_extra_info("ssl_object")
    leaf = x509.load_der_x509_certificate(connection.getpeercert(binary_form=True))
    writer.write(b"GET /nothing HTTP/1.1\r\nhost: a\r\n\r\n")
    try:
        said = await reader.read(12)
    except ConnectionError:
        said = b""
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return leaf, connection.selected_alpn_protocol(), said


async def test_a_name_is_proven_to_those_who_offer_the_protocol_and_to_nobody_else(folder: Folder) -> None:
    async with door(folder, encrypted=True) as port:
        usual = (await seen(port, HOST))[0]
        assert (await seen(port, HOST, "acme-tls/1"))[0] == usual  # nothing is being proven
        folder.keep_answers((answer("tls-alpn-01"),))
        proof, protocol, said = await seen(port, HOST, "acme-tls/1")
        assert protocol == "acme-tls/1"
        assert said == b""  # RFC 8737 section 3: nothing is said on such a connection
        names = proof.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.DNSName) == [HOST]
        (identifier,) = [one for one in proof.extensions if one.oid.dotted_string == "1.3.6.1.5.5.7.1.31"]
        assert identifier.critical
        digest = hashlib.sha256(AUTHORIZATION.encode()).digest()
        assert identifier.value.public_bytes() == b"\x04\x20" + digest
        # Ordinary clients notice nothing, nor does somebody who asks about another name.
        for name, protocols in ((HOST, ()), (HOST, ("http/1.1",)), ("other.example.com", ("acme-tls/1",))):
            leaf, _, said = await seen(port, name, *protocols)
            assert leaf == usual
            assert said == b"HTTP/1.1 404"
        folder.keep_answers(())
        assert (await seen(port, HOST, "acme-tls/1"))[0] == usual


async def test_a_token_is_answered_with_its_authorization(folder: Folder) -> None:
    folder.keep_answers((answer("http-01"),))
    async with (
        door(folder, encrypted=False) as port,
        httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client,
    ):
        path = "/.well-known/acme-challenge"
        found = await client.get(f"{path}/token", headers={"host": HOST})
        assert (found.status_code, found.text) == (200, AUTHORIZATION)
        for other in ("/other", "/", "/..%2ftoken", "/%00"):
            assert (await client.get(path + other)).status_code == 404
        folder.keep_answers((answer("tls-alpn-01"),))
        assert (await client.get(f"{path}/token")).status_code == 404


@pytest.mark.parametrize(
    ("host", "target", "leads"),
    [
        (HOST, "/a/b?c=d", f"https://{HOST}:8443/a/b?c=d"),
        ("Control.Example.com:80", "/", "https://control.example.com/"),
        (HOST, "//evil.example/", f"https://{HOST}:8443//evil.example/"),
        ("evil.example", "/", None),
        ("", "/", None),
    ],
)
async def test_people_are_led_to_our_own_addresses_only(
    folder: Folder, host: str, target: str, leads: str | None
) -> None:
    async with door(folder, encrypted=False) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET {target} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n".encode())
        head = (await reader.read()).decode().lower().split("\r\n")
        writer.close()
    locations = [line.partition(": ")[2] for line in head if line.startswith("location")]
    assert locations == ([] if leads is None else [leads.lower()])
    assert head[0].split()[1] == ("404" if leads is None else "308")
