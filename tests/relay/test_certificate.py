"""The meta certificate, read by other eyes than those that wrote it, and the pin."""

import hashlib
import ssl
import warnings
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from tests.support.relay import make_leaf, server_context

from doorward.engine.derp import read_meta_certificate
from doorward.protocol.keys import DERPPrivate
from doorward.relay.certificate import meta_certificate, relay_chain, relay_leaf_pin, self_signed_leaf

KEY = DERPPrivate.from_entropy(bytes(range(32)))
NOW = datetime(2026, 5, 6, 7, 8, 9, tzinfo=UTC)


def test_the_meta_certificate_is_what_clients_look_for() -> None:
    parsed = x509.load_der_x509_certificate(meta_certificate(KEY.public(), NOW))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the library's remark on 71 characters
        (name,) = parsed.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        assert parsed.subject == parsed.issuer
    assert name.value == "derpkey" + KEY.public().raw.hex()
    assert parsed.serial_number == 2
    assert parsed.version is x509.Version.v3
    assert parsed.not_valid_before_utc == NOW - timedelta(days=30)
    assert parsed.not_valid_after_utc == NOW + timedelta(days=30)
    constraints = parsed.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert not constraints.value.ca
    public = parsed.public_key()
    assert isinstance(public, Ed25519PublicKey)
    public.verify(parsed.signature, parsed.tbs_certificate_bytes)


def test_our_client_reads_it_and_takes_nothing_else_for_it() -> None:
    meta = meta_certificate(KEY.public(), NOW)
    assert read_meta_certificate(meta) == KEY.public()
    assert read_meta_certificate(ssl.PEM_cert_to_DER_cert(make_leaf().pem.decode())) is None
    assert read_meta_certificate(meta[:-1]) is None
    assert read_meta_certificate(b"") is None


def test_the_pin_is_of_the_leaf_alone() -> None:
    leaf = make_leaf()
    der = ssl.PEM_cert_to_DER_cert(leaf.pem.decode())
    assert leaf.pin == relay_leaf_pin(der) == "sha256-raw:" + hashlib.sha256(der).hexdigest()


def test_the_chain_is_leaf_then_meta_and_openssl_takes_it() -> None:
    chain = relay_chain(make_leaf().pem, KEY.public(), NOW)
    first, second = (
        ssl.PEM_cert_to_DER_cert(part + "-----END CERTIFICATE-----\n")
        for part in chain.decode().split("-----END CERTIFICATE-----\n")[:2]
    )
    assert relay_leaf_pin(first) == make_leaf().pin
    assert read_meta_certificate(second) == KEY.public()
    server_context(KEY)


@pytest.mark.parametrize("host", ["relay.example.com", "192.0.2.7", "2001:db8::7", "a" * 60 + ".example.com"])
def test_a_leaf_is_for_its_host_and_signs_nothing_else(host: str) -> None:
    text = self_signed_leaf(host, NOW)
    key = serialization.load_pem_private_key(text.encode(), None)
    leaf = x509.load_pem_x509_certificate(text[text.index("-----BEGIN CERTIFICATE") :].encode())
    assert leaf.public_key() == key.public_key()
    leaf.verify_directly_issued_by(leaf)
    (name,) = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert str(name.value) == host
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert leaf.not_valid_before_utc == NOW - timedelta(days=1)
    assert leaf.not_valid_after_utc == NOW + timedelta(days=3650)
    assert self_signed_leaf(host, NOW) != text
