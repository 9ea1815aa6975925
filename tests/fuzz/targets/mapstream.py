"""The map stream: bytes of a hostile server, in one piece and in two."""

from doorward.errors import RemoteProtocolError
from doorward.protocol.mapstream import MapReader, writer_for

COVERS = ("protocol.mapstream:MapReader.receive", "protocol.mapstream:MapReader._unpack")
LIMIT = 256 << 10  # of a message in this test; a client's own is larger, in the same way
SEEDS = (
    writer_for("").keep_alive * 3,
    writer_for("").frame(b'{"KeepAlive":true}' * 9),
    writer_for("zstd").keep_alive + writer_for("zstd").frame(b'{"Domain":"example.internal"}' * 20),
    writer_for("zstd").join([writer_for("zstd").pack(part) for part in (b"{", b"}")]),
    writer_for("zstd").frame(bytes(4 << 20)),  # a small one that would become large
)


def fuzz(data: bytes) -> None:
    """No message is above the limit, and where the bytes are cut makes no difference."""
    for compressed in (False, True):
        try:
            whole = MapReader(compressed=compressed, limit=LIMIT).receive(data)
        except RemoteProtocolError:
            continue
        assert all(len(message) <= LIMIT for message in whole)
        reader = MapReader(compressed=compressed, limit=LIMIT)
        middle = len(data) // 2
        assert reader.receive(data[:middle]) + reader.receive(data[middle:]) == whole
