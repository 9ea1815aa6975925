"""The relay's two certificates: one that says its DERP key, and the pin of the one that proves its address.

A *meta certificate* behind the chain tells a client the relay's key during the TLS handshake, which saves a round
trip (protocol note derp.md, section 2). It proves nothing, and no client checks its signature: the key is proven by
the box in the DERP handshake.
"""

import hashlib
import ssl
from datetime import datetime, timedelta
from ipaddress import ip_address
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from doorward.protocol import derp
from doorward.protocol.keys import DERPPublic

META_VALIDITY: Final = timedelta(days=30)
LEAF_VALIDITY: Final = timedelta(days=3650)

_INTEGER, _BITS, _OCTETS, _TEXT, _TIME = 0x02, 0x03, 0x04, 0x0C, 0x17
_SEQUENCE, _SET, _VERSION, _EXTENSIONS = 0x30, 0x31, 0xA0, 0xA3
_COMMON_NAME: Final = bytes.fromhex("0603550403")  # object identifier 2.5.4.3
_ED25519: Final = bytes.fromhex("300506032b6570")  # 1.3.101.112 without parameters (RFC 8410 section 3)
_BASIC_CONSTRAINTS: Final = bytes.fromhex("0603551d13")  # 2.5.29.19
_TRUE: Final = bytes.fromhex("0101ff")


def _der(tag: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content


def _time(when: datetime) -> bytes:
    return _der(_TIME, when.strftime("%y%m%d%H%M%SZ").encode())  # UTCTime serves until 2049


def meta_certificate(public: DERPPublic, now: datetime) -> bytes:
    """The meta certificate in DER, valid from 30 days before ``now`` (UTC) to 30 days after: renew it in time.

    Its serial number is the DERP version. The key that signs it is made here and forgotten. It is written byte by byte
    (RFC 5280 section 4.1), because its common name has 71 characters: clients expect it so, X.520 allows 64, and
    libraries keep to that.
    """
    text = (derp.META_PREFIX + public.raw.hex()).encode()
    name = _der(_SEQUENCE, _der(_SET, _der(_SEQUENCE, _COMMON_NAME, _der(_TEXT, text))))
    no_authority = _der(_SEQUENCE, _BASIC_CONSTRAINTS, _TRUE, _der(_OCTETS, _der(_SEQUENCE)))
    signer = Ed25519PrivateKey.generate()
    body = _der(
        _SEQUENCE,
        _der(_VERSION, _der(_INTEGER, b"\x02")),  # X.509 version 3
        _der(_INTEGER, bytes((derp.VERSION,))),
        _ED25519,
        name,
        _der(_SEQUENCE, _time(now - META_VALIDITY), _time(now + META_VALIDITY)),
        name,
        signer.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        ),
        _der(_EXTENSIONS, _der(_SEQUENCE, no_authority)),
    )
    return _der(_SEQUENCE, body, _ED25519, _der(_BITS, b"\x00", signer.sign(body)))


def self_signed_leaf(host: str, now: datetime) -> str:
    """A key and a certificate (PEM) for a name or an IP address, for a relay whose clients pin it: valid for ten years.

    A pin is the whole trust in it, as with the key of an SSH server, so an early end would protect nobody. Clients check
    its dates and its name all the same.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    try:
        name: x509.GeneralName = x509.IPAddress(ip_address(host))
    except ValueError:
        name = x509.DNSName(host)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host[:64])])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))  # clocks of small machines are wrong by hours
        .not_valid_after(now + LEAF_VALIDITY)
        .add_extension(x509.SubjectAlternativeName([name]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return (secret + certificate.public_bytes(serialization.Encoding.PEM)).decode()


def relay_leaf_pin(leaf: bytes) -> str:
    """What the DERP map's CertName says to pin a leaf certificate (DER): ``sha256-raw:`` and 64 hex digits."""
    return derp.PIN_PREFIX + hashlib.sha256(leaf).hexdigest()


def relay_chain(leaf: bytes, public: DERPPublic, now: datetime) -> bytes:
    """The chain to present, in PEM: the leaf (PEM; with intermediates, if it has any) and the meta certificate.

    Whoever presents it must honour ``Derp-Fast-Start``, as this relay does.
    """
    return leaf.rstrip(b"\n") + b"\n" + ssl.DER_cert_to_PEM_cert(meta_certificate(public, now)).encode()
