"""What is kept of ACME in the data directory, ``DATA_DIR/tls/acme``: read by every worker, written by the one with the lock.

| file | what |
| --- | --- |
| ``account-XXXX.key`` | the account's key with one directory, mode 0600 |
| ``HOST.pem`` | a certificate: its key, the leaf, the chain; mode 0600 |
| ``HOST.json`` | how ordering it went, and when it is tried again |
| ``answers.json`` | what proves a name now; not there when nothing is being proven |
| ``lock`` | held by the worker that orders |
"""

import hashlib
from datetime import datetime
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from doorward.server import tls
from doorward.store import secrets


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What proves a name to whoever asks for it; no secret."""

    host: str
    challenge: Literal["http-01", "tls-alpn-01"]
    token: str
    authorization: str  # the key authorization, RFC 8555 section 8.1


class State(msgspec.Struct, frozen=True, kw_only=True):
    """How ordering a certificate went."""

    failures: int = 0  # in a row
    last: datetime | None = None  # when it was last tried
    began: datetime | None = None  # an order that has not ended yet, or was cut off by a crash
    next: datetime | None = None  # after a failure: not before this
    reason: str = ""
    cure: str = ""
    firm: bool = False  # the authority itself said when: nobody may ask for it earlier
    settings: str = ""  # which settings it was tried with (a digest): others are tried at once
    directory: str = ""  # whose the present certificate is
    renew: datetime | None = None  # when the authority wants the present one renewed (RFC 9773)
    ask: datetime | None = None  # when to ask it again


class Held(NamedTuple):
    """A certificate that is kept."""

    pem: bytes  # key, leaf, chain
    leaf: x509.Certificate


class Folder:
    """The files. Made where it is not there; ``path`` is ``DATA_DIR/tls/acme``."""

    def __init__(self, path: Path) -> None:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path = path
        self._answers = path / "answers.json"

    @property
    def lock(self) -> Path:
        """The file that is locked by whoever orders."""
        return self.path / "lock"

    def account_key(self, directory: str) -> bytes:
        """The account's key with this directory, PEM; made at the first call. Raises Unavailable.

        One for each: an authority's staging directory must not see the account of the other.
        """
        digest = hashlib.sha256(directory.encode()).hexdigest()[:8]
        return secrets.load_or_create(
            self.path / f"account-{digest}.key",
            lambda: tls.key_pem(ec.generate_private_key(ec.SECP256R1())).decode(),
        ).encode()

    def certificate_file(self, host: str) -> Path:
        """Where a host's certificate is, key included."""
        return self.path / f"{host}.pem"

    def certificate(self, host: str, now: datetime) -> Held | None:
        """The certificate that is kept for ``host``; None where there is none that can be presented now."""
        file = self.certificate_file(host)
        try:
            pem = file.read_bytes()
            return Held(pem, tls.checked(pem, host, now, str(file)))
        except (OSError, tls.CertificateError):
            return None

    def keep_certificate(self, host: str, pem: bytes, now: datetime) -> x509.Certificate:
        """Keep a new one in place of the one before. Raises CertificateError for one that cannot be used, and OSError."""
        leaf = tls.checked(pem, host, now, f"the authority's answer for {host}")
        tls.replace(self.certificate_file(host), pem, 0o600)
        return leaf

    def state(self, host: str) -> State:
        """How it went; nothing, where nothing is known."""
        try:
            return msgspec.json.decode((self.path / f"{host}.json").read_bytes(), type=State)
        except (OSError, ValueError):
            return State()

    def keep_state(self, host: str, state: State) -> None:
        """Say how it went. Raises OSError."""
        tls.replace(self.path / f"{host}.json", msgspec.json.encode(state), 0o600)

    def answers(self) -> tuple[Answer, ...]:
        """What proves names now. Cheap where nothing does, which is nearly always."""
        try:
            return msgspec.json.decode(self._answers.read_bytes(), type=tuple[Answer, ...])
        except (OSError, ValueError):
            return ()

    def keep_answers(self, answers: tuple[Answer, ...]) -> None:
        """Prove names by these, and no others. Raises OSError."""
        if answers:
            tls.replace(self._answers, msgspec.json.encode(answers), 0o600)
        else:
            self._answers.unlink(missing_ok=True)


def leaf_pem(leaf: x509.Certificate) -> bytes:
    """The certificate alone."""
    return leaf.public_bytes(serialization.Encoding.PEM)
