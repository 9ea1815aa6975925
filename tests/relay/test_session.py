"""A session over a stand-in for a transport: the moments that a real network hits only by chance."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.support.clock import FakeClock
from tests.support.relay import node_key

from doorward.protocol import derp
from doorward.protocol.keys import DERPPrivate, NodePrivate, NodePublic
from doorward.relay import Limits, Relay
from doorward.relay.session import HANDSHAKE_SECONDS, MAX_HELD, READ_TURN, Session, Stage

KEY = DERPPrivate.from_entropy(bytes(32))
ALICE, BOB = node_key(1), node_key(2)


class FakeWire:
    """A transport that keeps what is written, and closes when told."""

    def __init__(self) -> None:
        self.written = b""
        self.closed = ""
        self.reads = True
        self.size = 0

    def write(self, data: bytes) -> None:
        assert not self.closed, "written to a closed transport"
        self.written += data

    def close(self) -> None:
        self.closed = "politely"

    def abort(self) -> None:
        self.closed = "at once"

    def is_closing(self) -> bool:
        return bool(self.closed)

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        assert not self.closed, "read from a closed transport"
        self.reads = True

    def get_write_buffer_size(self) -> int:
        return self.size

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def frames(self) -> list[tuple[int, bytes]]:
        written, self.written = self.written, b""
        return derp.FrameReader(derp.MAX_SERVER_PAYLOAD).frames(written)


class House:
    """A relay whose admissions end when the test says so."""

    def __init__(self, admit: Callable[[NodePublic, str], Awaitable[bool] | bool]) -> None:
        self.clock = FakeClock()
        self.relay = Relay(KEY, admit, self.clock, bytes, Limits(data_packets=2))
        self.admissions: list[Awaitable[None]] = []
        self.relay.spawn = self.admissions.append  # type: ignore[assignment,method-assign]

    def join(self, key: NodePrivate | None = None, source: str = "192.0.2.1") -> tuple[Session, FakeWire]:
        session, wire = Session(self.relay, source=source), FakeWire()
        session.connection_made(wire)
        if key is not None:
            session.data_received(info(key))
        return session, wire


def info(key: NodePrivate) -> bytes:
    return derp.client_info(derp.ClientInfo(version=2), key, KEY.public(), bytes(24))


def to(key: NodePrivate, packet: bytes) -> bytes:
    return derp.send_packet(key.public().raw, packet)


def welcome(wire: FakeWire) -> list[int]:
    return [kind for kind, _ in wire.frames()]


def test_the_server_speaks_first_and_answers_at_once() -> None:
    house = House(lambda _key, _source: True)
    session, wire = house.join()
    assert wire.frames() == [(derp.SERVER_KEY, derp.MAGIC + KEY.public().raw)]
    data = info(ALICE) + to(ALICE, b"me")
    for at in range(len(data)):
        session.data_received(data[at : at + 1])
    (kind, sealed), received = wire.frames()
    assert kind == derp.SERVER_INFO
    assert derp.open_server_info(sealed, ALICE, KEY.public()) == derp.ServerInfo(version=2)
    assert received == (derp.RECV_PACKET, ALICE.public().raw + b"me")
    assert session.stage is Stage.OPEN


def test_anything_but_a_client_info_ends_it() -> None:
    house = House(lambda _key, _source: True)
    for data in (to(BOB, b"x"), derp.frame(derp.CLIENT_INFO, bytes(60)), b"\x02\xff\xff\xff\xff"):
        session, wire = house.join()
        session.data_received(data)
        assert (session.stage, wire.closed) == (Stage.CLOSED, "at once")
        session.data_received(info(ALICE))
        session.connection_lost(None)
    assert house.relay.hub.clients() == 0


async def test_admission_that_waits() -> None:
    gate: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    house = House(lambda _key, _source: gate)
    session, wire = house.join(ALICE)
    reads = [wire.reads]
    session.data_received(to(ALICE, b"early"))  # a loop may deliver in spite of the pause
    gate.set_result(True)
    await house.admissions.pop()
    assert [*reads, wire.reads] == [False, True]
    assert welcome(wire) == [derp.SERVER_KEY, derp.SERVER_INFO, derp.RECV_PACKET]


async def test_too_much_before_the_answer_ends_it() -> None:
    gate: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    house = House(lambda _key, _source: gate)
    session, wire = house.join(ALICE)
    session.data_received(bytes(MAX_HELD))
    seen = [wire.closed]
    session.data_received(b"x")
    assert [*seen, wire.closed] == ["", "at once"]
    gate.set_result(True)
    await house.admissions.pop()
    assert house.relay.hub.clients() == 0


@pytest.mark.parametrize("how", ["lost", "late", "stopped"])
async def test_who_leaves_while_we_ask_is_not_let_in(how: str) -> None:
    gate: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    house = House(lambda _key, _source: gate)
    session, wire = house.join(ALICE)
    if how == "lost":
        wire.closed = "by the client"
        session.connection_lost(None)
    elif how == "late":
        house.clock.advance(HANDSHAKE_SECONDS)
        house.relay.tick()
        assert wire.closed == "at once"
    else:
        house.relay.close()
        assert wire.closed == "politely"
    gate.set_result(True)
    await house.admissions.pop()
    assert house.relay.hub.clients() == 0


async def test_a_broken_rule_among_early_bytes_ends_it() -> None:
    gate: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    house = House(lambda _key, _source: gate)
    session, wire = house.join(ALICE)
    session.data_received(derp.frame(derp.PING, b""))
    gate.set_result(True)
    await house.admissions.pop()
    assert wire.closed == "at once"
    assert house.relay.hub.clients() == 0


def test_a_transport_that_was_full_before_the_welcome_queues() -> None:
    house = House(lambda _key, _source: True)
    session, wire = house.join()
    session.pause_writing()
    session.data_received(info(ALICE))
    wire.written = b""
    bob, _ = house.join(BOB)
    for packet in (b"1", b"2", b"3"):
        bob.data_received(to(ALICE, packet))
    assert wire.written == b""
    session.resume_writing()
    assert [payload[32:] for _, payload in wire.frames()] == [b"2", b"3"]


def test_nothing_is_written_to_a_transport_on_its_way_out() -> None:
    house = House(lambda _key, _source: True)
    alice, wire = house.join(ALICE)
    bob, _ = house.join(BOB)
    alice.shutdown()
    assert wire.closed == "politely"
    bob.data_received(to(ALICE, b"late"))
    alice.shutdown()
    alice.connection_lost(None)
    assert alice.stage is Stage.CLOSED
    assert house.relay.hub.clients() == 1


def test_a_reader_that_moves_is_not_stalled() -> None:
    house = House(lambda _key, _source: True)
    session, wire = house.join(ALICE)
    wire.size = 100
    session.pause_writing()
    for left in (90, 80, 70):
        house.clock.advance(10)
        wire.size = left
        house.relay.tick()
    seen = [wire.closed]
    for _ in range(2):
        house.clock.advance(10)
        house.relay.tick()
        seen.append(wire.closed)
    assert seen == ["", "", "at once"]


async def test_after_a_large_read_the_others_have_their_turn() -> None:
    house = House(lambda _key, _source: True)
    session, wire = house.join(ALICE)
    half = to(BOB, bytes(READ_TURN // 2 - len(to(BOB, b""))))
    full = half * 2
    assert len(full) == READ_TURN
    states = []
    for data in (half, full):
        session.data_received(data)
        states.append(wire.reads)
    await asyncio.sleep(0.01)
    states.append(wire.reads)
    assert states == [True, False, True]
    session.data_received(full)
    wire.close()
    await asyncio.sleep(0.01)
    assert not wire.reads, "a transport on its way out is left alone"


def test_a_source_without_an_address_is_fine() -> None:
    house = House(lambda _key, _source: True)
    session, _ = house.join(ALICE, source="")
    assert session.connection is not None
    assert session.connection.address is None


def test_whoever_wants_to_know_hears_of_who_comes_and_goes() -> None:
    house = House(lambda _key, _source: True)
    said: list[tuple[str, object]] = []
    house.relay.arrived = lambda key, source: said.append((key.short(), source))
    house.relay.went = lambda key, left: said.append((key.short(), left))
    name = ALICE.public().short()
    first, _ = house.join(ALICE, "192.0.2.7")
    second, _ = house.join(ALICE, "192.0.2.8")
    assert said == [(name, "192.0.2.7"), (name, "192.0.2.8")]
    first.connection_lost(None)
    assert len(said) == 2, "the other is still there"
    second.left = True
    second.connection_lost(None)
    assert said[2:] == [(name, True)]
    stranger, _ = house.join()
    stranger.connection_lost(None)
    assert len(said) == 3
