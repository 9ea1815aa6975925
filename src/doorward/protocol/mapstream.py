"""The map stream's framing (protocol note control.md, section 12).

One message is a length (32 bits, little-endian, the odd one out in this protocol) and that many bytes: one JSON
MapResponse, as it is or as a self-contained zstd frame, as the client asked with ``MapRequest.Compress``. The length is
that of what is sent, so of the compressed form.
"""

import struct
import sys
from collections.abc import Sequence

from doorward.errors import BadInput, LocalProtocolError, RemoteProtocolError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

KEEP_ALIVE = b'{"KeepAlive":true}'

# A map of ten thousand nodes is about 10 MB of JSON. What is larger than this is not a map.
MESSAGE_LIMIT = 64 << 20

# A piece for each node of a large tailnet. Bounds the work that a message of empty frames would be.
_MOST_FRAMES = 1 << 16

# Level 1: each message is compressed while somebody waits for it, and higher levels cost several times the time for a
# tenth of the size.
_LEVEL = 1

_LENGTH = struct.Struct("<I")
_LARGEST = 2**32 - 1


class MapWriter:
    """Makes messages. Holds nothing of any session, so one of each mode serves a whole process (``writer_for``).

    Args:
        compress: zstd, or plain JSON.
    """

    def __init__(self, *, compress: bool) -> None:
        self.compress = compress
        # A context costs more to make than a small message costs to compress. Each message is its own frame, so
        # nothing of one message can be in another's.
        self._compressor = zstd.ZstdCompressor(level=_LEVEL) if compress else None
        self.keep_alive = self.frame(KEEP_ALIVE)

    def frame(self, payload: bytes) -> bytes:
        """One message, length included. Raises LocalProtocolError when its length does not fit in 32 bits."""
        return self.join([self.pack(payload)])

    def pack(self, part: bytes) -> bytes:
        """A piece of a message, ready for ``join``: made once, it can be sent to many."""
        if self._compressor is None:
            return part
        # The whole frame in one call: the library holds its lock over it, and writes the size into its header.
        return self._compressor.compress(part, zstd.ZstdCompressor.FLUSH_FRAME)

    def join(self, parts: Sequence[bytes]) -> bytes:
        """One message of packed pieces: several zstd frames in a row unpack to one text (RFC 8878 section 3)."""
        length = sum(map(len, parts))
        if length > _LARGEST:
            raise LocalProtocolError(f"a map message has less than 4 GiB, this one has {length} bytes")
        return b"".join((_LENGTH.pack(length), *parts))


_WRITERS = {"": MapWriter(compress=False), "zstd": MapWriter(compress=True)}


def writer_for(compress: str) -> MapWriter:
    """The writer for a MapRequest's ``Compress``; raises BadInput for a compression that nobody uses."""
    writer = _WRITERS.get(compress)
    if writer is None:
        raise BadInput("the map can be compressed by zstd or not at all", place="$.Compress")
    return writer


class MapReader:
    """Takes the stream apart. Bounded: neither a frame nor what it unpacks to is ever larger than ``limit`` says.

    Args:
        compressed: the stream was asked for with ``Compress: "zstd"``.
        limit: the most bytes of JSON in a message.
    """

    def __init__(self, *, compressed: bool, limit: int = MESSAGE_LIMIT) -> None:
        self._compressed = compressed
        self._limit = limit
        # zstd never makes data longer than this (its compressBound, rounded up).
        self._frame_limit = limit + limit // 128 + 1024 if compressed else limit
        self._buffer = bytearray()

    def receive(self, data: bytes) -> list[bytes]:
        """The messages that ``data`` completes, as JSON text, in order.

        Raises RemoteProtocolError for a message above the limit, as soon as its length is known, and for bytes that are
        not zstd. The reader is of no use after that.
        """
        self._buffer += data
        messages = []
        start = 0
        while len(self._buffer) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer, start)
            if length > self._frame_limit:
                raise RemoteProtocolError(
                    f"a map message of {length} bytes was announced, at most {self._frame_limit} are expected"
                )
            end = start + _LENGTH.size + length
            if len(self._buffer) < end:
                break
            payload = bytes(memoryview(self._buffer)[start + _LENGTH.size : end])
            messages.append(self._unpack(payload) if self._compressed else payload)
            start = end
        del self._buffer[:start]
        return messages

    def pending(self) -> int:
        """How many bytes of an unfinished message are held; at the end of a stream 0, or it was cut off."""
        return len(self._buffer)

    def _unpack(self, payload: bytes) -> bytes:
        """Decompress one or more frames in a row."""
        parts: list[bytes] = []
        room = self._limit
        rest = memoryview(payload)
        while rest or not parts:
            if len(parts) == _MOST_FRAMES:
                raise RemoteProtocolError(f"a map message has more than {_MOST_FRAMES} zstd frames")
            try:
                # Cut by the frame's own size: a decompressor given more would copy what is left after every frame.
                size = zstd.get_frame_size(rest)
                part = self._decompressor(room).decompress(rest[:size], max_length=room + 1)
            except zstd.ZstdError:
                raise RemoteProtocolError("a map message is not zstd, or wants too much memory") from None
            if len(part) > room:
                raise RemoteProtocolError(f"a map message unpacks to more than {self._limit} bytes")
            parts.append(part)
            room -= len(part)
            rest = rest[size:]
        return b"".join(parts)

    def _decompressor(self, room: int) -> zstd.ZstdDecompressor:
        # The window that a frame asks for is memory before any byte is seen. It need not exceed the message.
        window = min(max(room.bit_length(), 23), 27)
        return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: window})
