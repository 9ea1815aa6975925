"""The map stream's framing: the bytes on the wire, every cut, and what a bad server may try."""

import os
import struct
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.errors import BadInput, LocalProtocolError, RemoteProtocolError
from doorward.protocol import mapstream
from doorward.protocol.mapstream import KEEP_ALIVE, MapReader, MapWriter, writer_for

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PLAIN = writer_for("")
ZSTD = writer_for("zstd")
BOTH = pytest.mark.parametrize("writer", [PLAIN, ZSTD], ids=["plain", "zstd"])


def message(payload: bytes) -> bytes:
    return struct.pack("<I", len(payload)) + payload


def refused(data: bytes, *, limit: int = 1000) -> str:
    with pytest.raises(RemoteProtocolError) as caught:
        MapReader(compressed=True, limit=limit).receive(data)
    return caught.value.message


def test_the_length_is_little_endian_and_that_of_what_is_sent() -> None:
    assert PLAIN.frame(b"x" * 258) == b"\x02\x01\x00\x00" + b"x" * 258
    frame = ZSTD.frame(b"x" * 100_000)
    assert struct.unpack("<I", frame[:4]) == (len(frame) - 4,)
    assert frame[4:8] == bytes.fromhex("28b52ffd"), "a zstd frame (RFC 8878 section 3.1.1)"
    assert len(frame) < 100


def test_a_zstd_frame_says_how_much_it_holds() -> None:
    assert zstd.get_frame_info(ZSTD.frame(b"{}" * 5000)[4:]).decompressed_size == 10_000


@BOTH
def test_keep_alives_are_ready_made(writer: MapWriter) -> None:
    assert writer.keep_alive == writer.frame(KEEP_ALIVE)
    assert MapReader(compressed=writer.compress).receive(writer.keep_alive) == [b'{"KeepAlive":true}']


@BOTH
@given(data=st.data())
def test_any_messages_survive_any_cuts(writer: MapWriter, data: st.DataObject) -> None:
    payloads = data.draw(st.lists(st.binary(max_size=300), max_size=5))
    stream = b"".join(map(writer.frame, payloads))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    reader = MapReader(compressed=writer.compress, limit=300)
    read = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        read += reader.receive(stream[start:end])
    assert read == payloads
    assert reader.pending() == 0


@BOTH
def test_pieces_made_once_join_into_one_message(writer: MapWriter) -> None:
    pieces = [writer.pack(piece) for piece in (b'{"Peers":[', b'{"ID":1}', b"]}")]
    expected = b'{"Peers":[{"ID":1}]}'
    assert MapReader(compressed=writer.compress, limit=len(expected)).receive(writer.join(pieces)) == [
        expected
    ]


@BOTH
def test_the_limit_counts_what_is_unpacked(writer: MapWriter) -> None:
    assert MapReader(compressed=writer.compress, limit=1000).receive(writer.frame(b"x" * 1000))
    with pytest.raises(RemoteProtocolError):
        MapReader(compressed=writer.compress, limit=1000).receive(writer.frame(b"x" * 1001))


@BOTH
def test_what_cannot_be_compressed_fits_the_limit_too(writer: MapWriter) -> None:
    noise = os.urandom(100_000)
    assert MapReader(compressed=writer.compress, limit=100_000).receive(writer.frame(noise)) == [noise]


@BOTH
def test_a_message_is_refused_as_soon_as_its_length_is_known(writer: MapWriter) -> None:
    with pytest.raises(RemoteProtocolError, match="4294967295 bytes was announced"):
        MapReader(compressed=writer.compress).receive(b"\xff\xff\xff\xff")


def test_a_bomb_is_refused() -> None:
    assert "unpacks to more than 1000 bytes" in refused(ZSTD.frame(bytes(50 << 20)))


def test_many_small_frames_are_a_bomb_too() -> None:
    half = zstd.compress(b"x" * 600)
    assert "unpacks to more than 1000 bytes" in refused(message(half + half))
    empty = zstd.compress(b"")
    reader = MapReader(compressed=True, limit=10 << 20)
    with pytest.raises(RemoteProtocolError, match="more than 65536 zstd frames"):
        reader.receive(message(empty * 65537))


def test_a_frame_that_wants_much_memory_is_refused() -> None:
    greedy = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 27})
    assert "wants too much memory" in refused(message(greedy.compress(b"x") + greedy.flush()))


def test_what_is_no_zstd_is_refused() -> None:
    whole = ZSTD.frame(b"x" * 100)[4:]
    for bad in (b"", b"x", b"{}", whole[:-1], whole + b"x", whole + whole[:-1], whole[:8]):
        assert "is not zstd" in refused(message(bad))


def test_a_frame_without_size_is_read() -> None:
    streaming = zstd.ZstdCompressor()
    data = streaming.compress(b"abc") + streaming.flush()
    assert MapReader(compressed=True).receive(message(data)) == [b"abc"]


def test_an_unfinished_message_is_seen_at_the_end() -> None:
    reader = MapReader(compressed=False)
    assert reader.receive(b"\x02\x00\x00\x00{") == []
    assert reader.pending() == 5
    assert reader.receive(b"}") == [b"{}"]
    assert reader.pending() == 0


def test_one_writer_of_each_kind_serves_everybody() -> None:
    assert writer_for("") is PLAIN
    assert not PLAIN.compress
    assert writer_for("zstd") is ZSTD
    assert ZSTD.compress
    with pytest.raises(BadInput, match="zstd or not at all"):
        writer_for("gzip")


def test_a_message_longer_than_its_length_can_say_is_our_own_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapstream, "_LARGEST", 10)
    assert PLAIN.frame(b"x" * 10)
    with pytest.raises(LocalProtocolError):
        PLAIN.frame(b"x" * 11)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for compressed in (False, True):
        reader = MapReader(compressed=compressed, limit=1000)
        try:
            reader.receive(data)
        except RemoteProtocolError:
            continue
        assert reader.pending() <= len(data)
