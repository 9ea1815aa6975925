"""What a listener presents before, when and after an authority gave a certificate."""

import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from tests.server.acme.test_folder import HOST, issued
from tests.support.clock import FakeClock

from doorward.server import tls
from doorward.server.acme.certificate import OrderedCertificate
from doorward.server.acme.folder import Folder


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def made(tmp_path: Path, clock: FakeClock) -> tuple[Folder, OrderedCertificate]:
    folder = Folder(tmp_path / "tls" / "acme")
    authority = tls.Authority.open(tmp_path / "tls", clock)
    return folder, OrderedCertificate(folder, authority, "door", HOST, clock)


def presented(certificate: OrderedCertificate) -> bytes:
    """The leaf that a client sees (DER)."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    pipes = [ssl.MemoryBIO() for _ in range(2)]
    server = certificate.context.wrap_bio(pipes[0], pipes[1], server_side=True)
    client = context.wrap_bio(pipes[1], pipes[0], server_hostname=HOST)
    for side in (client, server, client):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    leaf = client.getpeercert(binary_form=True)
    assert leaf is not None
    return leaf


def der(certificate: OrderedCertificate) -> bytes:
    return ssl.PEM_cert_to_DER_cert(certificate.leaf.public_bytes(serialization.Encoding.PEM).decode())


def test_until_there_is_one_it_is_of_our_own_authority(tmp_path: Path, clock: FakeClock) -> None:
    folder, certificate = made(tmp_path, clock)
    before, own = certificate.ordered, certificate.leaf
    assert not before
    assert "doorward authority" in own.issuer.rfc4514_string()
    assert presented(certificate) == der(certificate)
    assert not certificate.refresh()
    context = certificate.context
    folder.keep_certificate(HOST, issued(tmp_path, clock), clock.now())
    assert certificate.refresh()
    assert certificate.ordered
    assert certificate.leaf != own
    assert certificate.context is context
    assert presented(certificate) == der(certificate)
    assert not certificate.refresh()


def test_a_restart_begins_with_what_is_kept(tmp_path: Path, clock: FakeClock) -> None:
    folder, _ = made(tmp_path, clock)
    leaf = folder.keep_certificate(HOST, issued(tmp_path, clock), clock.now())
    _, again = made(tmp_path, clock)
    assert again.ordered
    assert again.leaf == leaf


def test_it_stays_when_the_file_goes_ends_or_is_damaged(tmp_path: Path, clock: FakeClock) -> None:
    folder, certificate = made(tmp_path, clock)
    folder.keep_certificate(HOST, issued(tmp_path, clock), clock.now())
    certificate.refresh()
    leaf = certificate.leaf
    clock.advance(tls.LEAF_LIFE)
    assert not certificate.refresh()
    folder.certificate_file(HOST).write_bytes(b"nonsense")
    assert not certificate.refresh()
    folder.certificate_file(HOST).unlink()
    assert not certificate.refresh()
    assert certificate.leaf == leaf
    assert presented(certificate) == der(certificate)
    newer = folder.keep_certificate(HOST, issued(tmp_path, clock), clock.now())
    assert certificate.refresh()
    assert certificate.leaf == newer
