"""What a relay of its own shows its clients."""

import ssl
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from tests.support.clock import FakeClock
from tests.support.relay import make_leaf

from doorward.clock import SystemClock
from doorward.engine.derp import read_meta_certificate
from doorward.protocol.keys import DERPPrivate
from doorward.relay.certificate import LEAF_VALIDITY
from doorward.server import tls
from doorward.server.relay_certificate import LEAF_FILE, OwnFiles, RelayCertificate

PUBLIC = DERPPrivate.from_entropy(b"\x07" * 32).public()


def shown(certificate: RelayCertificate) -> list[bytes]:
    """The chain that a client gets, in DER, by a handshake in memory."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # whose certificates travel in clear
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(to_client, to_server, server_hostname="x")
    server = certificate.context.wrap_bio(to_server, to_client, server_side=True)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    with pytest.raises(ssl.SSLWantReadError):
        server.do_handshake()
    return _certificates(to_client.read())


def _certificates(flight: bytes) -> list[bytes]:
    # RFC 5246 sections 6.2.1 and 7.4.2: records, in them handshake messages, of which type 11 is a list of certificates.
    messages, found = b"", []
    while flight:
        size = int.from_bytes(flight[3:5], "big")
        messages, flight = messages + flight[5 : 5 + size], flight[5 + size :]
    while messages:
        kind, size = messages[0], int.from_bytes(messages[1:4], "big")
        body, messages = messages[4 : 4 + size], messages[4 + size :]
        if kind == 11:
            rest = body[3:]
            while rest:
                size = int.from_bytes(rest[:3], "big")
                found.append(rest[3 : 3 + size])
                rest = rest[3 + size :]
    return found


@pytest.mark.parametrize("host", ["relay.example.com", "192.0.2.7", "2001:db8::7"])
def test_a_leaf_is_made_once_and_kept(host: str, tmp_path: Path) -> None:
    clock = FakeClock()
    first = RelayCertificate(host, tmp_path, PUBLIC, clock)
    again = RelayCertificate(host, tmp_path, PUBLIC, clock)
    assert first.pin == again.pin == first.cert_name
    assert (tmp_path / LEAF_FILE).stat().st_mode & 0o777 == 0o600
    leaf, meta = shown(again)
    assert x509.load_der_x509_certificate(leaf) == again.leaf
    assert read_meta_certificate(meta) == PUBLIC
    names = again.leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    kind = x509.DNSName if host.endswith("com") else x509.IPAddress
    assert [str(name) for name in names.get_values_for_type(kind)] == [host]
    assert again.expires - clock.now() > timedelta(days=3600)


def test_an_address_may_be_spelled_otherwise(tmp_path: Path) -> None:
    first = RelayCertificate("2001:db8::7", tmp_path, PUBLIC, FakeClock())
    spelled = "2001:0db8:0:0:0:0:0:0007"
    assert ip_address(spelled) == ip_address("2001:db8::7")
    assert RelayCertificate(spelled, tmp_path, PUBLIC, FakeClock()).pin == first.pin


def test_another_host_or_an_end_is_said_and_not_mended_behind_the_operators_back(tmp_path: Path) -> None:
    clock = FakeClock()
    RelayCertificate("relay.example.com", tmp_path, PUBLIC, clock)
    with pytest.raises(
        tls.CertificateError, match=r"is for relay\.example\.com, not for 192\.0\.2\.7"
    ) as caught:
        RelayCertificate("192.0.2.7", tmp_path, PUBLIC, clock)
    assert "--print-map" in caught.value.cure
    clock.advance(LEAF_VALIDITY)
    with pytest.raises(tls.CertificateError, match="ended on 2035-12-31"):
        RelayCertificate("relay.example.com", tmp_path, PUBLIC, clock)
    (tmp_path / LEAF_FILE).write_text("-----BEGIN CERTIFICATE-----\nnone\n-----END CERTIFICATE-----\n")
    with pytest.raises(tls.CertificateError, match="not whole"):
        RelayCertificate("relay.example.com", tmp_path, PUBLIC, clock)


def test_the_meta_certificate_is_renewed_in_time_and_the_pin_stays(tmp_path: Path) -> None:
    clock = FakeClock()
    certificate = RelayCertificate("relay.example.com", tmp_path, PUBLIC, clock)
    pin, (_, before) = certificate.pin, shown(certificate)
    clock.advance(tls.EXTRA_LIFE - timedelta(seconds=1))
    assert not certificate.refresh()
    assert shown(certificate)[1] == before
    clock.advance(timedelta(seconds=1))
    assert not certificate.refresh()
    assert shown(certificate)[1] != before
    assert certificate.pin == pin


def test_the_operators_own_files(tmp_path: Path) -> None:
    leaf = make_leaf()
    files = OwnFiles(tmp_path / "cert.pem", tmp_path / "key.pem", "127.0.0.1")
    files.certificate.write_bytes(leaf.pem)
    files.key.write_bytes(leaf.key_pem)
    certificate = RelayCertificate(files, tmp_path, PUBLIC, SystemClock())
    assert certificate.cert_name == "", "clients' own authorities vouch for it"
    assert certificate.pin == leaf.pin
    first, meta = shown(certificate)
    assert x509.load_der_x509_certificate(first) == certificate.leaf
    assert read_meta_certificate(meta) == PUBLIC
    assert not (tmp_path / LEAF_FILE).exists()
    other = make_leaf.__wrapped__()
    files.certificate.write_bytes(other.pem)
    with pytest.raises(tls.CertificateError, match="does not belong"):
        certificate.refresh()
    assert certificate.pin == leaf.pin, "what was good goes on"
    files.key.write_bytes(other.key_pem)
    assert certificate.refresh()
    assert certificate.pin == other.pin
