"""The keys that tokens are signed with: one for each algorithm, replaced every three months, the same for all processes.

::

    published, signs nothing ──1 day──▶ signs ──90 days──▶ published, signs nothing ──7 days──▶ forgotten

A verifier that keeps our key set for a day therefore never meets a key that it does not know, and one that still holds a
token finds the key that signed it. Keys are in the store, because every process needs them; their secret halves are sealed with a
key derived from control's own, which is in a file: a copy of the database signs nothing.
"""

import asyncio
import base64
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey

from doorward.clock import Clock
from doorward.errors import DoorwardError, Unavailable
from doorward.model import SigningKey
from doorward.store import Connection, Database, signing_keys
from doorward.store import settings as stored
from doorward.telemetry import log

AHEAD = timedelta(days=1)  # published before it signs; a key set says that it may be kept for an hour
TERM = timedelta(days=90)
KEPT = timedelta(days=7)  # published after its successor signs: far longer than any token is good
LOOK = timedelta(hours=1)  # how often a process reads what others may have made
SALT = "issuer.salt"  # setting: what makes subjects differ between tailnets; no secret

_log = log("issuer")


@dataclass(frozen=True)
class OpenKey:
    """A key that this process can sign with."""

    kid: str
    algorithm: str
    key: Key


@dataclass(frozen=True)
class Ring:
    """The keys of a moment."""

    published: tuple[dict[str, Any], ...]  # JWKs, newest first
    signing: dict[str, OpenKey]  # by algorithm
    verifying: dict[str, OpenKey]  # by kid
    salt: str
    numbers: Mapping[int, int] = field(default_factory=dict)  # what tsidp called people before

    def subject(self, user_id: int) -> str:
        """What apps call a person: the same for all apps, and never the same as anybody else's.

        Opaque, but for whom the settings give the number that apps know from tsidp. No opaque one has a colon, and no two people
        have one number, so nobody comes by another's account.
        """
        if user_id in self.numbers:
            return f"userid:{self.numbers[user_id]}"
        digest = hashlib.sha256(f"doorward subject {self.salt} {user_id}".encode()).digest()
        return base64.b32encode(digest[:15]).decode().lower()


class Keys:
    """The keys of a tailnet. Made when somebody first needs one.

    Args:
        database: the store.
        clock: the time of everything.
        entropy: random bytes.
        secret: what only doorward's files hold, the same for all processes.
        numbers: by id the people whom apps know by a number of tsidp's, no number twice.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        entropy: Callable[[int], bytes],
        secret: bytes,
        numbers: Mapping[int, int] | None = None,
    ) -> None:
        self._numbers = dict(numbers or {})
        self._database = database
        self._clock = clock
        self._entropy = entropy
        self._seal = ChaCha20Poly1305(
            HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=b"doorward signing keys 1").derive(
                secret
            )
        )
        self._ring: Ring | None = None
        self._looked: datetime | None = None
        self._one = asyncio.Lock()  # one look at a time, or a crowd at the start would each make keys

    async def ring(self) -> Ring:
        """The keys that count now. Raises Unavailable while there are none and the store cannot be asked."""
        if (ring := self._current()) is not None:
            return ring
        async with self._one:
            if (ring := self._current()) is not None:
                return ring
            now = self._clock.now()
            try:
                self._ring = await self._look_now(now)
            except DoorwardError as error:
                if self._ring is None:
                    raise
                _log.warning("signing keys not looked at", reason=error.message)
            self._looked = now
            return self._ring

    def _current(self) -> Ring | None:
        if self._ring is None or self._looked is None:
            return None
        return self._ring if timedelta(0) <= self._clock.now() - self._looked < LOOK else None

    async def _look_now(self, now: datetime) -> Ring:
        known = await self._database.read(signing_keys.load_all)
        missing = [name for name in _KINDS if self._is_due(known, name, now)]
        over = _over(known, now)
        if missing or over or not await self._database.read(_salt):
            drafts = [await asyncio.to_thread(self._make, known, name, now) for name in missing]
            salt = base64.b32encode(self._entropy(15)).decode()
            await self._database.run(_renew, drafts, over, salt)
            known = await self._database.read(signing_keys.load_all)
        return self._open_all(known, await self._database.read(_salt), now)

    def _is_due(self, known: list[SigningKey], algorithm: str, now: datetime) -> bool:
        mine = [each for each in known if each.algorithm == algorithm]
        if not any(self._open(each) is not None for each in mine):
            return True
        return max(each.starts for each in mine) + TERM - AHEAD <= now

    def _make(self, known: list[SigningKey], algorithm: str, now: datetime) -> SigningKey:
        mine = [each for each in known if each.algorithm == algorithm]
        usable = any(self._open(each) is not None for each in mine)
        key = _KINDS[algorithm]()
        public = key.as_dict(private=False)
        kid = key.thumbprint()[:16]
        nonce, text = self._entropy(12), msgspec.json.encode(key.as_dict(private=True))
        _log.info("made a signing key", algorithm=algorithm, kid=kid)
        return SigningKey(
            id=0,
            algorithm=algorithm,
            generation=max((each.generation for each in mine), default=0) + 1,
            kid=kid,
            public={name: public[name] for name in ("kty", "n", "e", "crv", "x", "y") if name in public}
            | {"kid": kid, "alg": algorithm, "use": "sig"},
            sealed=nonce + self._seal.encrypt(nonce, text, kid.encode()),
            created=now,
            starts=now + AHEAD if usable else now,
        )

    def _open(self, stored_key: SigningKey) -> Key | None:
        """The key with its secret half; None where it was sealed by another installation."""
        nonce, sealed = stored_key.sealed[:12], stored_key.sealed[12:]
        try:
            text = self._seal.decrypt(nonce, sealed, stored_key.kid.encode())
        except InvalidTag:
            return None
        said = msgspec.json.decode(text, type=dict[str, Any])
        if said["kty"] == "RSA":
            return RSAKey.import_key(said)
        return ECKey.import_key(said) if said["kty"] == "EC" else OKPKey.import_key(said)

    def _open_all(self, known: list[SigningKey], salt: str, now: datetime) -> Ring:
        opened: list[tuple[SigningKey, OpenKey]] = []
        for each in known:
            key = self._open(each)
            if key is None:
                _log.error(
                    "a signing key cannot be opened: noise.key is another than when it was made", kid=each.kid
                )
            else:
                opened.append((each, OpenKey(each.kid, each.algorithm, key)))
        signing: dict[str, OpenKey] = {}
        for each, usable in sorted(opened, key=lambda pair: pair[0].generation):
            if each.starts <= now:
                signing[each.algorithm] = usable
        if len(signing) < len(_KINDS):
            raise Unavailable(
                "there is no key to sign with", cure="Check that all processes have the same noise.key."
            )
        newest = sorted(known, key=lambda each: -each.id)
        # The secret half verifies as well as the public one, and of ours only what we made counts.
        verifying = {one.kid: one for _, one in opened}
        return Ring(tuple(each.public for each in newest), signing, verifying, salt, self._numbers)


def _salt(connection: Connection) -> str:
    """What subjects are made with; empty before the first keys."""
    return stored.get(connection, SALT, str) or ""


def _rsa() -> Key:
    return RSAKey.generate_key(2048)


def _ec() -> Key:
    return ECKey.generate_key("P-256")


def _okp() -> Key:
    return OKPKey.generate_key("Ed25519")


_KINDS: dict[str, Callable[[], Key]] = {"RS256": _rsa, "ES256": _ec, "EdDSA": _okp}
ALGORITHMS = tuple(_KINDS)


def _over(known: list[SigningKey], now: datetime) -> list[int]:
    """The keys whose successors have signed for long enough."""
    return [
        each.id
        for each in known
        if any(
            other.algorithm == each.algorithm
            and other.generation > each.generation
            and other.starts + KEPT <= now
            for other in known
        )
    ]


def _renew(connection: Connection, drafts: list[SigningKey], over: list[int], salt: str) -> None:
    """Store what is new, unless another process was faster."""
    for draft in drafts:
        signing_keys.insert(connection, draft)
    signing_keys.delete(connection, over)
    if stored.get(connection, SALT, str) is None:
        stored.put(connection, SALT, salt)
