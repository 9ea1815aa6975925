"""What a relay of its own presents: a leaf that its clients pin, or files of the operator's own; the relay's key behind it."""

import ssl
import tempfile
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509

from doorward.clock import Clock
from doorward.protocol.keys import DERPPublic
from doorward.relay.certificate import relay_chain, self_signed_leaf
from doorward.server import tls
from doorward.store import secrets

LEAF_FILE = "certificate.pem"
# A relay is told to its clients in files that people copy: they get a year to replace one that ends.
WARN_BEFORE = timedelta(days=365)


@dataclass(frozen=True, slots=True)
class OwnFiles:
    """A certificate (PEM, the leaf first, then its chain) and its key, made by somebody else for ``host``."""

    certificate: Path
    key: Path
    host: str


class RelayCertificate(tls.ServerCertificate):
    """The relay's certificate and, behind it, the meta certificate that says its key and saves clients a round trip.

    Args:
        source: the operator's files, or the host for which a leaf is made once and kept in ``folder``.
        folder: the relay's own, mode 0700.
        public: the relay's key.
        clock: tells when the meta certificate is due.
    """

    def __init__(self, source: OwnFiles | str, folder: Path, public: DERPPublic, clock: Clock) -> None:
        super().__init__(clock)
        self._public = public
        self._made: datetime | None = None
        self._own: tls.OwnCertificate | None = None
        self._files: OwnFiles | None = None
        self._pem = b""
        if isinstance(source, OwnFiles):
            # It checks the files, now and when they change; what clients see is our own context.
            self._own = tls.OwnCertificate(source.certificate, source.key, source.host, clock)
            self._files = source
        else:
            self._pem = _kept_leaf(folder / LEAF_FILE, source, clock)
        self.refresh()

    @property
    def cert_name(self) -> str:
        """What the DERP map says of it: the pin, or nothing where the clients' own authorities vouch for it."""
        return "" if self._own is not None else self.pin

    def refresh(self) -> bool:
        """Read changed files again, and make the meta certificate anew while a third of its life is left."""
        now = self._clock.now()
        changed = self._own is not None and self._own.refresh()
        due = self._made is None or not timedelta() <= now - self._made < tls.EXTRA_LIFE
        if not changed and not due:
            return False
        before = None if self._made is None else self.leaf
        pem, key = self._pem, b""
        if self._files is not None:
            pem, key = self._files.certificate.read_bytes(), self._files.key.read_bytes() + b"\n"
        chain = relay_chain(pem, self._public, now)
        with tempfile.TemporaryDirectory() as folder:  # a context reads files only; the folder is ours alone
            whole = Path(folder) / "chain.pem"
            whole.write_bytes(key + chain)
            try:
                self.context.load_cert_chain(whole)
            except ssl.SSLError as error:
                raise tls.CertificateError(f"the certificate cannot be used: {error}") from None
        self.leaf, self._made = _first(pem), now
        return before is not None and before != self.leaf


def _kept_leaf(file: Path, host: str, clock: Clock) -> bytes:
    """The leaf made at the first start, key and certificate. Raises CertificateError when it is for another host or ended."""
    pem = secrets.load_or_create(file, lambda: self_signed_leaf(host, clock.now())).encode()
    cure = f"Remove {file} for a new one, then tell control its new pin: doorward relay --print-map."
    try:
        leaf = _first(pem)
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        ends = leaf.not_valid_after_utc
    except (*tls.UNREADABLE, x509.ExtensionNotFound):
        raise tls.CertificateError(
            "the relay's certificate is not whole", cure=cure, place=str(file)
        ) from None
    known = [str(name.value) for name in names]
    if _plain(host) not in known:
        raise tls.CertificateError(
            f"the relay's certificate is for {', '.join(known)}, not for {host}", cure=cure, place=str(file)
        )
    if ends <= clock.now():
        raise tls.CertificateError(
            f"the relay's certificate ended on {ends:%Y-%m-%d}",
            cure=cure,
            place=str(file),
        )
    return pem


def _plain(host: str) -> str:
    """A host as a certificate says it: IPv6 addresses have several spellings."""
    try:
        return str(ip_address(host))
    except ValueError:
        return host


def _first(pem: bytes) -> x509.Certificate:
    """The first certificate in a PEM text: a meta certificate may follow, which strict parsers refuse."""
    start, stop = b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----"
    found = pem.find(start)
    return x509.load_pem_x509_certificate(pem[found : pem.find(stop, found) + len(stop)])
