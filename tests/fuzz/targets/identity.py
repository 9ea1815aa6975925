"""What a program that believes doorward is told: tokens, an issuer's metadata, headers, connections, packet filters."""

import asyncio
import contextlib
from ipaddress import ip_address

from tests.fuzz.feeding import feed, text_of
from tests.support import idtokens
from tests.support.clock import FakeClock
from tests.support.proving import proof

from doorward.engine.localapi import Opening
from doorward.errors import DoorwardError
from doorward.identity.client import Client
from doorward.identity.connection import _address
from doorward.identity.introspector import Introspector
from doorward.identity.local import LOOPBACK, _name
from doorward.identity.own_node import _meets
from doorward.identity.tools import _tools
from doorward.identity.verifier import Verifier
from doorward.login.proofs import plain_address, read_proof
from doorward.protocol.proxyheaders import is_identity_header
from doorward.transport.fetch import Answer

COVERS = (
    "identity.connection:_address",
    "identity.own_node:_meets",
    "identity.client:Client._post",
    "identity.client:_token",
    "identity.discovery:check_address",
    "identity.discovery:read_about",
    "identity.introspector:Introspector.verify",
    "identity.local:_name",
    "identity.tools:_tools",
    "protocol.jws:read_bytes",
    "protocol.jws:read_object",
    "login.proofs:plain_address",
)
LIMIT = 65_536
CLOCK = FakeClock()
KEYS = idtokens.jwks(idtokens.jwk("ES256"))
GOOD = idtokens.signed(
    idtokens.claims(int(CLOCK.now().timestamp()), aud="api", scope="a b"), header={"typ": "at+jwt"}
)
PROOF = proof("GET", "https://api.example.com/a", CLOCK.now().timestamp(), jti="1")
ABOUT = b'{"issuer":"%s","jwks_uri":"%s/keys","token_endpoint":"%s/t","introspection_endpoint":"%s/i"}' % (
    (idtokens.ISSUER.encode(),) * 4
)
SEEDS = (
    GOOD.encode(),
    PROOF.encode(),
    b'{"access_token":"a","token_type":"Bearer","expires_in":300,"scope":"a"}',
    b'{"active":true,"aud":"api","sub":"s","exp":9999999999,"scope":"a b"}',
    b'{"error":"invalid_grant","error_description":"no"}',
    b"https://[::1]:1/",
    b'[{"method":"tools/call","params":{"name":"write"}}]',
    b"eyJhbGciOiJub25lIn0.e30.",
    b'{"issuer":"https://id.example.com","jwks_uri":"https://id.example.com/keys"}',
    b"https://id.example.com:443/a",
    b"100.64.0.1-100.64.0.9",
    b"fd7a:115c:a1e0::/48",
    b"Tailscale_User-Login",
)


def fuzz(data: bytes) -> None:
    """Refused with a reason; no token is good but the one that was signed."""
    text = text_of(data)
    is_identity_header(data)
    assert all(isinstance(name, str) for name in _tools(data))
    _address((text, 1))
    _meets(Opening(address=text, first=1, last=2), [ip_address("100.64.0.5"), ip_address("fd7a::5")])
    feed(text, lambda given: Verifier(given, "api"))

    async def ask() -> None:
        async def published(address: str) -> bytes:
            return KEYS if address.endswith("/keys") else ABOUT

        async def answered(_: str) -> bytes:
            return data

        for fetch, token in ((published, text), (answered, GOOD)):
            try:
                who = await Verifier(idtokens.ISSUER, "api", fetch=fetch, clock=CLOCK).verify(token)
            except DoorwardError:
                continue
            assert token == GOOD
            assert who.scopes == frozenset({"a", "b"})

        async def says(method: str, address: str, *_: object) -> Answer:
            return Answer(200, {}, ABOUT) if method == "GET" else Answer(len(data) % 2 * 200 + 200, {}, data)

        client = Client(idtokens.ISSUER, "app", secret="s", ask=says, clock=CLOCK)
        introspector = Introspector(client, "api", clock=CLOCK)
        for question in (client.own_token(), introspector.verify("t"), introspector.verify(text)):
            with contextlib.suppress(DoorwardError):
                await question

    asyncio.run(ask())
    assert _name(text) not in LOOPBACK or any(host in text.lower() for host in LOOPBACK)
    with contextlib.suppress(DoorwardError):
        plain_address(text)
    with contextlib.suppress(DoorwardError):
        read_proof(text, method="GET", address="https://api.example.com/a", now=CLOCK.now())
        # What is signed cannot be another, but its signature may be written in ways.
        assert text.rpartition(".")[0] == PROOF.rpartition(".")[0]
