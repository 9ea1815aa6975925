"""How the issuer asks others, as the settings have it."""

import ssl
from ipaddress import ip_address
from pathlib import Path

import pytest
from tests.support.certificates import tls_contexts
from tests.support.clock import FakeClock
from tests.support.website import HOST, ok, web
from tests.support.world import open_world

from doorward.clock import SystemClock
from doorward.config.settings import Apps, Settings
from doorward.errors import Unavailable
from doorward.issuer.fetch import Reach
from doorward.issuer.trust import Trust
from doorward.server.outgoing import open_fetch, trust_of
from doorward.server.tls import Authority, CertificateError, IssuedCertificate


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_the_settings_say_where_it_goes_and_whom_it_trusts(tmp_path: Path) -> None:
    clock = FakeClock()
    authority = Authority.open(tmp_path / "tls", clock)
    server, client = tls_contexts()
    file = tmp_path / "more.pem"
    said = ok(b"body", "content-type: application/json")
    async with open_world(tmp_path) as world, web(lambda *_: said, tls=server) as site:
        url = site.url(host=HOST, scheme="https")
        with pytest.raises(CertificateError, match=r"apps") as refused:
            open_fetch(Settings(apps=Apps(authority=file)), world.registry, clock, authority)
        assert refused.value.place == str(file)
        file.write_text("nonsense")
        with pytest.raises(CertificateError):
            open_fetch(Settings(apps=Apps(authority=file)), world.registry, clock, authority)
        (own,) = client.get_ca_certs(binary_form=True)
        file.write_text(ssl.DER_cert_to_PEM_cert(own))
        apps = Apps(networks=(f"{HOST}/32",), authority=file)
        fetch = open_fetch(Settings(apps=apps), world.registry, clock, authority)
        assert await fetch.get(url, bytes, limit=10, reach=Reach.GIVEN) == b"body"
        doubtful = open_fetch(Settings(apps=Apps(networks=(HOST,))), world.registry, clock, authority)
        with pytest.raises(Unavailable, match=r"(?i)certificate"):
            await doubtful.get(url, bytes, limit=10, reach=Reach.GIVEN)


def test_the_settings_say_whose_apps_may_come() -> None:
    apps = Apps(
        documents="off",
        document_hosts=("claude.ai",),
        blocked_hosts=("evil.example",),
        registration_hosts=("a.ai",),
    )
    assert trust_of(Settings(apps=apps)) == Trust("off", ("claude.ai",), ("evil.example",), ("a.ai",))
    assert trust_of(Settings()) == Trust()


async def test_it_trusts_doorwards_own_authority(tmp_path: Path) -> None:
    clock = SystemClock()
    authority = Authority.open(tmp_path / "tls", clock)
    own = IssuedCertificate(authority, "relay", clock, addresses=[ip_address(HOST)])
    said = ok(b"body", "content-type: application/json")
    settings = Settings(apps=Apps(networks=(HOST,)))
    async with open_world(tmp_path) as world, web(lambda *_: said, tls=own.context) as site:
        fetch = open_fetch(settings, world.registry, clock, authority)
        url = site.url(host=HOST, scheme="https")
        assert await fetch.get(url, bytes, limit=10, reach=Reach.GIVEN) == b"body"
