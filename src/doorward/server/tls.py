"""Certificates: doorward's own authority, the leaves it signs, files of the operator's own, and TLS contexts from them.

The authority is an ECDSA P-256 key made once for a data directory. It signs the door's certificate when the operator has
none, and the relay's. The relay presents its leaf *without* the authority's certificate, because a client that pins it
accepts exactly one certificate beside the relay's meta certificate (derp.md section 2).

A listener keeps one ``ssl.SSLContext`` for its whole life. ``ServerCertificate.refresh`` renews the certificate when a
third of its life is left, or reads the operator's files again when they changed, and loads the result into that same
context: connections that stand keep going, new ones see the new certificate.
"""

import contextlib
import fcntl
import hashlib
import os
import ssl
import tempfile
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from doorward.clock import Clock
from doorward.errors import DoorwardError
from doorward.telemetry import log

Address = IPv4Address | IPv6Address

_log = log("server")

# What the library raises for a certificate that is damaged, or of a kind that it does not know.
UNREADABLE = (
    ValueError,
    TypeError,
    OverflowError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)

AUTHORITY_LIFE = timedelta(days=3650)
# Clients hold a certificate against their own clock, a pinned one too, and a small machine without a battery for its clock
# may be a year behind: it would be without a relay. A longer life would let nobody in who is not let in by the authority's
# key, which lies beside. Both together stay below the 825 days that Apple's systems accept.
EARLIER = timedelta(days=365)
LEAF_LIFE = timedelta(days=400)
# The relay's meta certificate is valid for 30 days either way; a third of that is left in time.
EXTRA_LIFE = timedelta(days=10)


class CertificateError(DoorwardError):
    """A certificate or key that cannot be used; ``place`` is the file."""


class Authority:
    """Doorward's own certificate authority. ``pem`` is what people add to their trust store; the key stays inside."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate, folder: Path) -> None:
        self._key = key
        self.certificate = certificate
        self.folder = folder

    @property
    def pem(self) -> str:
        """The authority's certificate in PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    @property
    def file(self) -> Path:
        """Where ``pem`` is kept."""
        return self.folder / "authority.pem"

    @classmethod
    def open(cls, folder: Path, clock: Clock) -> "Authority":
        """The authority kept in ``folder`` (``DATA_DIR/tls``), made at the first call. Raises CertificateError."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        key_file, file = folder / "authority.key", folder / "authority.pem"
        if not key_file.exists():
            _create(key_file, key_pem(ec.generate_private_key(ec.SECP256R1())), 0o600)
        key = _read_key(key_file)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise CertificateError(
                "the authority's key is not an ECDSA key", cure="Restore it.", place=str(key_file)
            )
        # The key is the authority. A crash between the two files leaves a key, and the certificate follows from it.
        if not file.exists():
            certificate = _self_signed(key, clock.now())
            _create(file, certificate.public_bytes(serialization.Encoding.PEM), 0o644)
        certificate = _read_leaf(file)
        if certificate.public_key() != key.public_key():
            raise CertificateError(
                "the authority's certificate belongs to another key",
                cure="Restore authority.key and authority.pem together, or remove both and trust the new ones.",
                place=str(file),
            )
        return cls(key, certificate, folder)

    def issue(
        self, names: Sequence[str], addresses: Sequence[Address], now: datetime
    ) -> tuple[bytes, x509.Certificate]:
        """A new key (PEM) and a server certificate for ``names`` and ``addresses``, valid for LEAF_LIFE from ``now``."""
        key = ec.generate_private_key(ec.SECP256R1())
        alternatives: list[x509.GeneralName] = [x509.DNSName(name) for name in names]
        alternatives += [x509.IPAddress(address) for address in addresses]
        certificate = (
            x509.CertificateBuilder()
            .subject_name(_name((*names, *map(str, addresses))[0][:64]))
            .issuer_name(self.certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - EARLIER)
            .not_valid_after(min(now + LEAF_LIFE, self.certificate.not_valid_after_utc))
            .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )
        return key_pem(key), certificate


class ServerCertificate(ABC):
    """What a listener presents. ``context`` stays the same object through renewals."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.context = server_context()
        self.leaf: x509.Certificate

    @property
    def pin(self) -> str:
        """The leaf as a DERP map's ``CertName`` (derp.md section 2). Changes with every renewal."""
        return "sha256-raw:" + hashlib.sha256(self.leaf.public_bytes(serialization.Encoding.DER)).hexdigest()

    @property
    def expires(self) -> datetime:
        """When the leaf ends."""
        return self.leaf.not_valid_after_utc

    @abstractmethod
    def refresh(self) -> bool:
        """Renew or read again what is due; True when new connections see another certificate than before.

        Raises:
            CertificateError: the new one cannot be used; the listener keeps presenting the old one.
        """


class IssuedCertificate(ServerCertificate):
    """A certificate from doorward's own authority, kept in its folder under ``stem`` and renewed there.

    Args:
        authority: who signs.
        stem: the name of the file, such as ``door`` or ``relay``.
        clock: tells when renewal is due.
        names: DNS names it is valid for.
        addresses: IP addresses it is valid for.
        extra: makes a certificate (DER) to be presented after the leaf, such as the relay's meta certificate; asked
            again every EXTRA_LIFE.
    """

    def __init__(
        self,
        authority: Authority,
        stem: str,
        clock: Clock,
        *,
        names: Sequence[str] = (),
        addresses: Sequence[Address] = (),
        extra: Callable[[datetime], bytes] | None = None,
    ) -> None:
        super().__init__(clock)
        self._authority = authority
        self._file = authority.folder / f"{stem}.pem"
        self._names = tuple(names)
        self._addresses = tuple(addresses)
        self._extra = extra
        self._extra_made: datetime | None = None
        self.refresh()

    def refresh(self) -> bool:
        """Renew the leaf when a third of its life is left, or when it names other hosts than asked for."""
        with _alone(self._file.parent):
            return self._refresh()

    def _refresh(self) -> bool:
        now = self._clock.now()
        kept = self._kept(now)
        extra_due = self._extra is not None and (
            self._extra_made is None or not timedelta() <= now - self._extra_made < EXTRA_LIFE
        )
        if kept is not None and not extra_due and hasattr(self, "leaf") and kept[1] == self.leaf:
            return False
        key, leaf = kept or self._authority.issue(self._names, self._addresses, now)
        pem = key + leaf.public_bytes(serialization.Encoding.PEM)
        if self._extra is not None:
            pem += ssl.DER_cert_to_PEM_cert(self._extra(now)).encode()
        try:
            replace(self._file, pem, 0o600)
        except OSError as error:
            # A full disk must not keep a worker from serving: it presents what it could not keep.
            _log.warning("a certificate could not be kept", file=str(self._file), error=error.strerror)
            load_from_memory(self.context, pem)
        else:
            _load(self.context, self._file, None)
        changed = not hasattr(self, "leaf") or leaf != self.leaf
        self.leaf, self._extra_made = leaf, now
        return changed

    def _kept(self, now: datetime) -> tuple[bytes, x509.Certificate] | None:
        """The key and the leaf in the file, when they are still good for what is asked."""
        try:
            leaf = _read_leaf(self._file)
            key = _read_key(self._file)
            hosts = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            leaf.verify_directly_issued_by(self._authority.certificate)
        except (CertificateError, x509.ExtensionNotFound, InvalidSignature, ValueError, TypeError):
            # None yet, not whole, or of an authority that was replaced since: the cure is the same, a new one.
            return None
        if tuple(hosts.get_values_for_type(x509.DNSName)) != self._names:
            return None
        if tuple(hosts.get_values_for_type(x509.IPAddress)) != self._addresses:
            return None
        if leaf.public_key() != key.public_key() or not leaf.not_valid_before_utc <= now:
            return None
        whole = leaf.not_valid_after_utc - leaf.not_valid_before_utc
        return (key_pem(key), leaf) if leaf.not_valid_after_utc - now > whole / 3 else None


class OwnCertificate(ServerCertificate):
    """A certificate of the operator's own. Files that changed are read again at ``refresh``.

    Args:
        certificate: PEM, the leaf first, then its chain.
        key: PEM, without a passphrase.
        host: the name clients will ask for; a certificate that does not cover it is refused.
        clock: an expired certificate is refused.
    """

    def __init__(self, certificate: Path, key: Path, host: str, clock: Clock) -> None:
        super().__init__(clock)
        self._certificate = certificate
        self._key = key
        self._host = host
        self._seen: tuple[int, ...] = ()
        self.refresh()

    def refresh(self) -> bool:
        """Read the files again if they changed since the last time."""
        try:
            seen = tuple(file.stat().st_mtime_ns for file in (self._certificate, self._key))
        except OSError as error:
            raise _unreadable(Path(error.filename), error) from None
        if seen == self._seen:
            return False
        leaf, key = _read_leaf(self._certificate), _read_key(self._key)
        if leaf.public_key() != key.public_key():
            raise CertificateError(
                f"the private key {self._key} does not belong to the certificate",
                cure="The file must start with the server's own certificate, its chain after it.",
                place=str(self._certificate),
            )
        if leaf.not_valid_after_utc <= self._clock.now():
            raise CertificateError(
                f"the certificate ended on {leaf.not_valid_after_utc:%Y-%m-%d}",
                cure="Renew it.",
                place=str(self._certificate),
            )
        if not _covers(leaf, self._host):
            raise CertificateError(
                f"the certificate is not for {self._host}, but for {', '.join(_hosts(leaf)) or 'no host'}",
                cure="Get one for that name, or change the address in the settings.",
                place=str(self._certificate),
            )
        _load(self.context, self._certificate, self._key)
        self.leaf, self._seen = leaf, seen
        return True


def server_context() -> ssl.SSLContext:
    """A context for a listener, without a certificate yet: TLS 1.2 and up, HTTP/1.1 alone (upgrades need it)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    return context


def choose_by_name(default: ServerCertificate, others: Mapping[str, ServerCertificate]) -> ssl.SSLContext:
    """The default's context, which presents another certificate to clients that ask for one of the other names."""

    def choose(connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, _: ssl.SSLContext) -> None:
        if name is not None and (other := others.get(name.lower())) is not None:
            connection.context = other.context

    default.context.sni_callback = choose
    return default.context


def _load(context: ssl.SSLContext, certificate: Path, key: Path | None) -> None:
    """Load the files into ``context``, after a trial: a failure half-way would leave a key without its certificate."""
    try:
        server_context().load_cert_chain(certificate, key)
        context.load_cert_chain(certificate, key)
    except (ssl.SSLError, OSError) as error:
        raise CertificateError(
            f"the certificate cannot be used: {error}",
            cure="Check that the files are whole.",
            place=str(certificate),
        ) from None


def checked(pem: bytes, host: str, now: datetime, place: str) -> x509.Certificate:
    """The leaf of a certificate with its key in one PEM, once it is sure that it can be presented for ``host`` now.

    Raises CertificateError, with ``place``.
    """
    leaf, key = _parse_leaf(pem, place), _parse_key(pem, place)
    if leaf.public_key() != key.public_key():
        problem = "the certificate belongs to another key"
    elif leaf.not_valid_after_utc <= now:
        problem = f"the certificate ended on {leaf.not_valid_after_utc:%Y-%m-%d}"
    elif not _covers(leaf, host):
        problem = f"the certificate is not for {host}, but for {', '.join(_hosts(leaf)) or 'no host'}"
    else:
        return leaf
    raise CertificateError(problem, cure="Another one is needed.", place=place)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise _unreadable(file, error) from None


def _read_leaf(file: Path) -> x509.Certificate:
    return _parse_leaf(_read(file), str(file))


def _read_key(file: Path) -> PrivateKeyTypes:
    return _parse_key(_read(file), str(file))


def _parse_leaf(text: bytes, place: str) -> x509.Certificate:
    # The first PEM block alone: what follows may be a meta certificate, which strict parsers refuse.
    start, end = text.find(b"-----BEGIN CERTIFICATE-----"), text.find(b"-----END CERTIFICATE-----")
    if start < 0 or end < start:
        raise CertificateError("there is no certificate in the file", cure="It must be PEM.", place=place)
    try:
        leaf = x509.load_pem_x509_certificate(text[start : end + 25])
        # The library looks into a certificate only where it is asked to. What is damaged inside is found here and now.
        _ = leaf.public_key(), leaf.extensions, leaf.not_valid_before_utc, leaf.not_valid_after_utc
    except UNREADABLE:
        raise CertificateError(
            "the certificate cannot be read",
            cure="Is the file whole, and the certificate of a usual kind?",
            place=place,
        ) from None
    return leaf


def _parse_key(text: bytes, place: str) -> PrivateKeyTypes:
    try:
        key = serialization.load_pem_private_key(text, None)
        key.public_key()
    except UnsupportedAlgorithm:
        raise CertificateError(
            "the private key is of an unknown kind", cure="Use one of ECDSA P-256 or RSA.", place=place
        ) from None
    except TypeError:
        raise CertificateError(
            "the private key has a passphrase, and nobody is there to type it",
            cure=f"Remove it: openssl pkey -in {place} -out KEY.pem",
            place=place,
        ) from None
    except ValueError:
        raise CertificateError(
            "there is no private key in the file", cure="It must be PEM.", place=place
        ) from None
    return key


def _unreadable(file: Path, error: OSError) -> CertificateError:
    return CertificateError(
        f"the file cannot be read: {error.strerror}",
        cure="Check its path and who may read it.",
        place=str(file),
    )


def _covers(leaf: x509.Certificate, host: str) -> bool:
    """Whether clients that ask for ``host`` accept the certificate: RFC 6125, a wildcard for one whole label."""
    hosts = _hosts(leaf)
    return host in hosts or "*." + host.partition(".")[2] in hosts


def _hosts(leaf: x509.Certificate) -> list[str]:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    dns = [name.lower() for name in names.get_values_for_type(x509.DNSName)]
    return dns + [str(address) for address in names.get_values_for_type(x509.IPAddress)]


def _self_signed(key: ec.EllipticCurvePrivateKey, now: datetime) -> x509.Certificate:
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    # Two authorities in one trust store must be told apart by name: clients look the issuer up by it.
    name = _name(f"doorward authority {identifier.digest[:4].hex()}")
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - EARLIER)
        .not_valid_after(now + AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def key_pem(key: PrivateKeyTypes) -> bytes:
    """A private key as PEM, without a passphrase."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Nobody else renews what lies in ``folder`` meanwhile: workers that look at the same moment must end up with one certificate.

    The folder itself is locked: that needs no room on a disk that may be full.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _create(file: Path, content: bytes, mode: int) -> None:
    """Make ``file``, whole or not at all; one that somebody else made meanwhile stays."""
    fresh = _fresh(file)
    _write(fresh, content, mode)
    try:
        # A link, unlike a rename, never replaces: two processes that start at once end up with one key.
        file.hardlink_to(fresh)
    except FileExistsError:
        pass
    finally:
        fresh.unlink()


def replace(file: Path, content: bytes, mode: int) -> None:
    """Put ``content`` in the place of what the file has; readers see all of one or the other. Raises OSError."""
    fresh = _fresh(file)
    _write(fresh, content, mode)
    fresh.replace(file)


def _fresh(file: Path) -> Path:
    return file.with_name(f".{file.name}.{os.getpid()}.{threading.get_ident()}")


def _write(file: Path, content: bytes, mode: int) -> None:
    file.unlink(missing_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        # Without a buffer: one that cannot be written raises once more when it is thrown away.
        with os.fdopen(descriptor, "wb", buffering=0) as handle:
            left = memoryview(content)
            while left:
                left = left[handle.write(left) :]
            os.fsync(descriptor)
    except OSError:
        file.unlink(missing_ok=True)
        raise


def load_from_memory(context: ssl.SSLContext, pem: bytes) -> None:
    """Present a certificate and key that are on no disk. Raises CertificateError.

    The library reads files only; this one has no name, where the system has such.
    """
    with os.fdopen(_nameless(), "wb") as handle:
        handle.write(pem)
        handle.flush()
        _load(context, Path(f"/dev/fd/{handle.fileno()}"), None)


def _nameless() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("certificate")
    with tempfile.TemporaryFile() as made:
        return os.dup(made.fileno())
