"""What a program that believes doorward is told: tokens, an issuer's metadata, headers, connections, packet filters."""

import asyncio
from ipaddress import ip_address

from tests.fuzz.feeding import feed, text_of
from tests.support import idtokens
from tests.support.clock import FakeClock

from doorward.engine.localapi import Opening
from doorward.errors import DoorwardError
from doorward.identity.connection import _address
from doorward.identity.own_node import _meets
from doorward.identity.verifier import Verifier
from doorward.protocol.proxyheaders import is_identity_header

COVERS = (
    "identity.connection:_address",
    "identity.own_node:_meets",
    "identity.verifier:Verifier._document",
    "identity.verifier:_check_address",
    "identity.verifier:_object",
    "identity.verifier:_raw",
)
LIMIT = 65_536
CLOCK = FakeClock()
KEYS = idtokens.jwks(idtokens.jwk("ES256"))
GOOD = idtokens.signed(
    idtokens.claims(int(CLOCK.now().timestamp()), aud="api", scope="a b"), header={"typ": "at+jwt"}
)
SEEDS = (
    GOOD.encode(),
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
    _address((text, 1))
    _meets(Opening(address=text, first=1, last=2), [ip_address("100.64.0.5"), ip_address("fd7a::5")])
    feed(text, lambda given: Verifier(given, "api"))

    async def ask() -> None:
        async def published(address: str) -> bytes:
            about = b'{"issuer":"%s","jwks_uri":"%s/keys"}' % ((idtokens.ISSUER.encode(),) * 2)
            return KEYS if address.endswith("/keys") else about

        async def answered(_: str) -> bytes:
            return data

        for fetch, token in ((published, text), (answered, GOOD)):
            try:
                who = await Verifier(idtokens.ISSUER, "api", fetch=fetch, clock=CLOCK).verify(token)
            except DoorwardError:
                continue
            assert token == GOOD
            assert who.scopes == frozenset({"a", "b"})

    asyncio.run(ask())
