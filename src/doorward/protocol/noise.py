"""Noise IK as the control protocol speaks it: handshake, records, error frame, early payload.

::

    client                                          server
      initiation (101 B, in an HTTP header)  ──▶      knows now who the client is, and its version
                                             ◀──      response (51 B), or an error frame and the end
      records (type 4)                       ◀─▶      records: a byte stream, at most 4077 B in each

``Noise_IK_25519_ChaChaPoly_BLAKE2s`` with Tailscale's prologue and a big-endian record counter, so a stock Noise
library fits neither phase (protocol note control.md, sections 6 and 7). Ephemeral keys are arguments: a handshake object
serves one connection, and giving one ephemeral key to two of them gives away what Noise promises.

Every fault of the peer, a public key of small order included, is a RemoteProtocolError; the connection is then over.
"""

import hashlib
import struct
from typing import NoReturn

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from doorward.errors import BadInput, LocalProtocolError, RemoteProtocolError
from doorward.protocol.keys import KEY_SIZE, ChallengePublic, MachinePrivate, MachinePublic, PrivateKey

_NAME = b"Noise_IK_25519_ChaChaPoly_BLAKE2s"
_PROLOGUE = b"Tailscale Control Protocol v"

_TYPE_INITIATION = 1
_TYPE_RESPONSE = 2
_TYPE_ERROR = 3
_TYPE_RECORD = 4

_TAG_SIZE = 16
_HEADER = struct.Struct(">BH")  # type, length of what follows; section 6.1
_INITIATION_HEADER = struct.Struct(">HBH")  # the initiation alone begins with the version

INITIATION_SIZE = _INITIATION_HEADER.size + KEY_SIZE + (KEY_SIZE + _TAG_SIZE) + _TAG_SIZE  # 101
RESPONSE_SIZE = _HEADER.size + KEY_SIZE + _TAG_SIZE  # 51
_HMAC_BLOCK = 64  # of BLAKE2s
_INNER, _OUTER = (bytes(byte ^ pad for byte in range(256)) for pad in (0x36, 0x5C))  # RFC 2104 section 2
MAX_FRAME = 4096  # header included; section 6.3
MAX_PLAINTEXT = MAX_FRAME - _HEADER.size - _TAG_SIZE  # 4077
_MAX_CIPHERTEXT = MAX_FRAME - _HEADER.size
_NONCE_SIZE = 12
_LAST_NONCE = 2**64 - 1  # never used: the Noise specification, section 5.1, keeps it

EARLY_PAYLOAD_MAGIC = b"\xff\xff\xffTS"  # no HTTP/2 frame begins so: it would be 16 MiB long; section 7
_EARLY_HEADER = struct.Struct(">5sI")
_MAX_EARLY_PAYLOAD = 10 << 20  # section 7
_MAX_ERROR_TEXT = 500  # what we repeat of a peer's text: enough to read, too little to flood a log


class _Symmetric:
    """The running hash and chaining key of one handshake (the Noise specification, section 5.2)."""

    __slots__ = ("chaining", "hash")

    def __init__(self, version: int, server_public: bytes) -> None:
        self.chaining = self.hash = hashlib.blake2s(_NAME).digest()
        self.mix_hash(_PROLOGUE + str(version).encode())
        self.mix_hash(server_public)

    def mix_hash(self, data: bytes) -> None:
        self.hash = hashlib.blake2s(self.hash + data).digest()

    def mix_exchange(self, private: PrivateKey, public: bytes) -> ChaCha20Poly1305:
        """Mix one Diffie-Hellman result in and give the cipher that may encrypt exactly one message."""
        try:
            shared = private.exchange(public)
        except BadInput:
            # An all-zero result: whoever sent that key would know the shared secret without any private key.
            raise RemoteProtocolError(
                "the peer's Noise message holds a public key that cannot be used, expected an X25519 key"
            ) from None
        self.chaining, key = self._expand(shared)
        return ChaCha20Poly1305(key)

    def encrypt_and_hash(self, cipher: ChaCha20Poly1305, text: bytes) -> bytes:
        # The zero nonce is safe: each cipher is made by mix_exchange from a fresh secret and encrypts once.
        sealed = cipher.encrypt(bytes(_NONCE_SIZE), text, self.hash)
        self.mix_hash(sealed)
        return sealed

    def decrypt_and_hash(self, cipher: ChaCha20Poly1305, sealed: bytes, what: str) -> bytes:
        try:
            text = cipher.decrypt(bytes(_NONCE_SIZE), sealed, self.hash)
        except InvalidTag:
            raise RemoteProtocolError(
                f"the Noise handshake's {what} does not decrypt: it was made for another key, or changed on its way",
                cure="A client that knew an older key of this server must be logged in again.",
            ) from None
        self.mix_hash(sealed)
        return text

    def split(self) -> tuple[bytes, bytes]:
        """The two record keys: client to server, server to client."""
        return self._expand(b"")

    def _expand(self, material: bytes) -> tuple[bytes, bytes]:
        """HKDF (RFC 5869) with HMAC-BLAKE2s, empty info, 64 bytes."""
        secret = _hmac(self.chaining, material)
        first = _hmac(secret, b"\x01")
        return first, _hmac(secret, first + b"\x02")


def _hmac(key: bytes, text: bytes) -> bytes:
    """HMAC-BLAKE2s (RFC 2104) with a key of up to 64 bytes.

    By hand: the library's own looks BLAKE2s up anew for every call, which costs several times the hash itself, and a
    handshake makes fifteen.
    """
    block = key.ljust(_HMAC_BLOCK, b"\0")
    inner = hashlib.blake2s(block.translate(_INNER) + text).digest()
    return hashlib.blake2s(block.translate(_OUTER) + inner).digest()


class NoiseTransport:
    """The record layer of one connection, after its handshake: bytes in, bytes out (section 6.3).

    Broken once is broken for good: after a RemoteProtocolError every later ``receive`` raises again.
    """

    __slots__ = ("_broken", "_pending", "_receive_count", "_receive_key", "_send_count", "_send_key")

    def __init__(self, *, send_key: bytes, receive_key: bytes) -> None:
        # The keys and not the ciphers: those have 2 KB each, and to make one takes as long as to seal a record.
        self._send_key = send_key
        self._receive_key = receive_key
        self._send_count = 0
        self._receive_count = 0
        self._pending = b""
        self._broken = ""

    def send(self, plaintext: bytes) -> bytes:
        """Seal ``plaintext`` as records of at most 4077 bytes each; nothing for an empty text.

        What is returned must be written in the order of the calls: the counter fixes it.
        Raises LocalProtocolError when the counter is used up.
        """
        if not plaintext:
            return b""
        cipher = ChaCha20Poly1305(self._send_key)
        if len(plaintext) <= MAX_PLAINTEXT:
            return self._seal(cipher, plaintext)
        starts = range(0, len(plaintext), MAX_PLAINTEXT)
        return b"".join([self._seal(cipher, plaintext[at : at + MAX_PLAINTEXT]) for at in starts])

    def receive(self, data: bytes) -> bytes:
        """Take bytes as they come and return the plaintext of every record that is complete now, maybe none.

        Raises RemoteProtocolError for a frame of another type, one over 4096 bytes, or a record that does not
        decrypt; plaintext of earlier records in the same ``data`` is then lost, as is the connection.
        """
        if self._broken:
            raise RemoteProtocolError(self._broken)
        if self._pending:
            data = self._pending + data
        cipher = ChaCha20Poly1305(self._receive_key)
        texts: list[bytes] = []
        at, end = 0, len(data)
        while end - at >= _HEADER.size:
            kind, length = _HEADER.unpack_from(data, at)
            if kind != _TYPE_RECORD or not _TAG_SIZE <= length <= _MAX_CIPHERTEXT:
                self._fail(
                    f"a Noise frame of type {kind} and {length} bytes, expected a record (type {_TYPE_RECORD}) "
                    f"of {_TAG_SIZE} to {_MAX_CIPHERTEXT}"
                )
            start = at + _HEADER.size
            if end - start < length:
                break
            at = start + length
            texts.append(self._open(cipher, data[start:at]))
        self._pending = data[at:]  # under 4096 bytes: a longer frame was refused by its header
        return texts[0] if len(texts) == 1 else b"".join(texts)

    def _seal(self, cipher: ChaCha20Poly1305, text: bytes) -> bytes:
        count = self._send_count
        if count >= _LAST_NONCE:
            raise LocalProtocolError("this Noise connection has sent as many records as it ever may")
        self._send_count = count + 1
        # 12 bytes big-endian are the 4 zero bytes and the 8-byte counter of section 6.3.
        sealed = cipher.encrypt(count.to_bytes(_NONCE_SIZE, "big"), text, None)
        return _HEADER.pack(_TYPE_RECORD, len(sealed)) + sealed

    def _open(self, cipher: ChaCha20Poly1305, sealed: bytes) -> bytes:
        count = self._receive_count
        if count >= _LAST_NONCE:
            self._fail("the peer has sent more Noise records than one connection may carry")
        try:
            text = cipher.decrypt(count.to_bytes(_NONCE_SIZE, "big"), sealed, None)
        except InvalidTag:
            self._fail("a Noise record does not decrypt: changed on its way, repeated, or out of order")
        self._receive_count = count + 1
        return text

    def _fail(self, message: str) -> NoReturn:
        self._broken = message
        self._pending = b""
        raise RemoteProtocolError(message)


class ServerHandshake:
    """The server's side of one handshake. ``ephemeral`` must be fresh for every connection."""

    def __init__(self, static: MachinePrivate, ephemeral: MachinePrivate) -> None:
        self._static = static
        self._ephemeral = ephemeral
        self._used = False

    def receive(self, initiation: bytes) -> tuple[MachinePublic, int, bytes, NoiseTransport]:
        """Read the client's 101 bytes: who it is, its version, the 51 bytes to answer, the record layer.

        Any version is accepted: refusing old clients is for a layer that can tell them so (section 6.1). Raises
        RemoteProtocolError for anything but a whole initiation made for our key, LocalProtocolError on a second call.
        """
        if self._used:
            raise LocalProtocolError("a handshake object serves one connection: its ephemeral key is used up")
        if len(initiation) != INITIATION_SIZE:
            raise RemoteProtocolError(
                f"a Noise initiation of {len(initiation)} bytes, expected {INITIATION_SIZE}"
            )
        version, kind, length = _INITIATION_HEADER.unpack_from(initiation)
        if kind != _TYPE_INITIATION or length != INITIATION_SIZE - _INITIATION_HEADER.size:
            raise RemoteProtocolError(
                f"a Noise frame of type {kind} and {length} bytes, expected an initiation (type {_TYPE_INITIATION}) of "
                f"{INITIATION_SIZE - _INITIATION_HEADER.size}"
            )
        client_ephemeral = initiation[5:37]
        state = _Symmetric(version, self._static.public_raw)
        state.mix_hash(client_ephemeral)
        cipher = state.mix_exchange(self._static, client_ephemeral)  # es
        client = state.decrypt_and_hash(cipher, initiation[37:85], "client key")
        cipher = state.mix_exchange(self._static, client)  # ss
        state.decrypt_and_hash(cipher, initiation[85:], "initiation")

        self._used = True
        state.mix_hash(self._ephemeral.public_raw)
        state.mix_exchange(self._ephemeral, client_ephemeral)  # ee; its key is never used: se follows at once
        cipher = state.mix_exchange(self._ephemeral, client)  # se
        sealed = state.encrypt_and_hash(cipher, b"")
        response = _HEADER.pack(_TYPE_RESPONSE, KEY_SIZE + _TAG_SIZE) + self._ephemeral.public_raw + sealed
        receive_key, send_key = state.split()
        transport = NoiseTransport(send_key=send_key, receive_key=receive_key)
        return MachinePublic(client), version, response, transport


class ClientHandshake:
    """The client's side of one handshake. ``ephemeral`` must be fresh for every connection.

    ``initiation`` is what to send; ``version`` is the client's capability version, 0 to 65535 (BadInput otherwise).
    """

    def __init__(
        self, static: MachinePrivate, server_public: MachinePublic, ephemeral: MachinePrivate, version: int
    ) -> None:
        if not 0 <= version <= 0xFFFF:
            raise BadInput(f"a Noise version of {version}, expected 0 to 65535")
        self._static = static
        self._ephemeral = ephemeral
        self._pending = b""
        self._done = False
        self._state = state = _Symmetric(version, server_public.raw)
        state.mix_hash(ephemeral.public_raw)
        cipher = state.mix_exchange(ephemeral, server_public.raw)  # es
        sealed_key = state.encrypt_and_hash(cipher, static.public_raw)
        cipher = state.mix_exchange(static, server_public.raw)  # ss
        sealed_end = state.encrypt_and_hash(cipher, b"")
        header = _INITIATION_HEADER.pack(version, _TYPE_INITIATION, INITIATION_SIZE - _INITIATION_HEADER.size)
        self.initiation = header + ephemeral.public_raw + sealed_key + sealed_end

    def receive(self, data: bytes) -> tuple[NoiseTransport, bytes] | None:
        """Take the server's bytes as they come: None until its answer is whole.

        Then the record layer, and the bytes behind the answer, which are its first records. Raises
        RemoteProtocolError for a wrong answer, and with the server's own words for an error frame; those words are
        not authenticated. Raises LocalProtocolError after the answer was taken.
        """
        if self._done:
            raise LocalProtocolError("this handshake is over: what follows belongs to its record layer")
        self._pending += data
        if len(self._pending) < _HEADER.size:
            return None
        kind, length = _HEADER.unpack_from(self._pending)
        if kind == _TYPE_ERROR and length <= _MAX_CIPHERTEXT:
            if len(self._pending) < _HEADER.size + length:
                return None
            self._done = True
            raise RemoteProtocolError(f"the server refused the Noise handshake: {parse_error(self._pending)}")
        if kind != _TYPE_RESPONSE or length != RESPONSE_SIZE - _HEADER.size:
            self._done = True
            raise RemoteProtocolError(
                f"a Noise frame of type {kind} and {length} bytes, expected a response (type {_TYPE_RESPONSE}) of "
                f"{RESPONSE_SIZE - _HEADER.size}"
            )
        if len(self._pending) < RESPONSE_SIZE:
            return None
        self._done = True
        return self._finish(self._pending[:RESPONSE_SIZE]), self._pending[RESPONSE_SIZE:]

    def _finish(self, response: bytes) -> NoiseTransport:
        state = self._state
        server_ephemeral = response[3:35]
        state.mix_hash(server_ephemeral)
        state.mix_exchange(self._ephemeral, server_ephemeral)  # ee
        cipher = state.mix_exchange(self._static, server_ephemeral)  # se
        state.decrypt_and_hash(cipher, response[35:], "response")
        send_key, receive_key = state.split()
        return NoiseTransport(send_key=send_key, receive_key=receive_key)


def encode_error(text: str) -> bytes:
    """A type 3 frame: why the handshake fails, which the client shows. Plaintext, so never a secret.

    Text over 4093 bytes of UTF-8 is cut.
    """
    raw = text.encode()[:_MAX_CIPHERTEXT].decode(errors="ignore").encode()
    return _HEADER.pack(_TYPE_ERROR, len(raw)) + raw


def parse_error(frame: bytes) -> str:
    """The text of a whole type 3 frame, without control characters and cut to 500 characters.

    Raises RemoteProtocolError for any other frame, or one with bytes missing.
    """
    if len(frame) < _HEADER.size:
        raise RemoteProtocolError(f"{len(frame)} bytes, expected a Noise error frame")
    kind, length = _HEADER.unpack_from(frame)
    if kind != _TYPE_ERROR or len(frame) < _HEADER.size + length:
        raise RemoteProtocolError(
            f"a Noise frame of type {kind} with {len(frame) - _HEADER.size} of {length} bytes, expected a whole error frame"
        )
    text = frame[_HEADER.size : _HEADER.size + length].decode(errors="replace")
    return "".join(character if character.isprintable() else "?" for character in text[:_MAX_ERROR_TEXT])


class _EarlyPayload(msgspec.Struct):
    node_key_challenge: str | None = msgspec.field(default=None, name="nodeKeyChallenge")


def encode_early_payload(challenge: ChallengePublic) -> bytes:
    """The optional first plaintext from server to client, before any HTTP/2 byte (section 7)."""
    body = msgspec.json.encode(_EarlyPayload(str(challenge)))
    return _EARLY_HEADER.pack(EARLY_PAYLOAD_MAGIC, len(body)) + body


class EarlyPayloadStripper:
    """The client's filter for the start of the plaintext: takes an early payload out, if there is one.

    ``challenge`` is the server's key from it, else None.
    """

    __slots__ = ("_done", "_pending", "challenge")

    def __init__(self) -> None:
        self.challenge: ChallengePublic | None = None
        self._pending = bytearray()
        self._done = False

    def receive(self, plaintext: bytes) -> bytes:
        """Return what is HTTP/2 of ``plaintext``; empty while the first bytes leave it open.

        Raises RemoteProtocolError for a payload over 10 MiB or one that is not the JSON of section 7.
        """
        if self._done:
            return plaintext
        self._pending += plaintext
        pending = self._pending
        if not EARLY_PAYLOAD_MAGIC.startswith(pending[: len(EARLY_PAYLOAD_MAGIC)]):
            return self._finish(0)
        if len(pending) < _EARLY_HEADER.size:
            return b""
        _, length = _EARLY_HEADER.unpack_from(pending)
        if length > _MAX_EARLY_PAYLOAD:
            raise RemoteProtocolError(
                f"an early payload of {length} bytes, expected at most {_MAX_EARLY_PAYLOAD}"
            )
        end = _EARLY_HEADER.size + length
        if len(pending) < end:
            return b""
        try:
            payload = msgspec.json.decode(pending[_EARLY_HEADER.size : end], type=_EarlyPayload)
            if payload.node_key_challenge:
                self.challenge = ChallengePublic.parse(payload.node_key_challenge)
        except (ValueError, RecursionError, BadInput):  # msgspec and UTF-8 say the first, depth the second
            raise RemoteProtocolError(
                "an early payload that is not JSON with a nodeKeyChallenge key"
            ) from None
        return self._finish(end)

    def _finish(self, end: int) -> bytes:
        rest = bytes(self._pending[end:])
        self._pending = bytearray()
        self._done = True
        return rest
