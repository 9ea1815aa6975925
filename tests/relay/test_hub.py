"""The hub as playbooks: who sends what, and which bytes must come out for whom. No loop, no sockets."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.errors import RemoteProtocolError
from doorward.protocol import derp, disco
from doorward.protocol.keys import NodePublic
from doorward.relay.connection import Connection, Limits
from doorward.relay.hub import Hub, Writes

A, B, C, D = (NodePublic(bytes([number]) * 32) for number in range(1, 5))
DISCO = disco.MAGIC + bytes(64)
MESH_KEY = "5a" * 32


def make_hub(limits: Limits | None = None, **options: str) -> Hub:
    return Hub(limits or Limits(), bytes, **options)


def join(hub: Hub, *keys: NodePublic, now: float = 0.0) -> list[Connection]:
    return [hub.connect(key, now)[0] for key in keys]


def to(key: NodePublic, packet: bytes) -> bytes:
    return derp.send_packet(key.raw, packet)


def said(writes: Writes) -> list[tuple[Connection, list[tuple[int, bytes]]]]:
    """The frames of each write."""
    return [
        (connection, derp.FrameReader(derp.MAX_SERVER_PAYLOAD).frames(data)) for connection, data in writes
    ]


def got(source: NodePublic, packet: bytes) -> tuple[int, bytes]:
    return derp.RECV_PACKET, source.raw + packet


def gone(key: NodePublic, reason: int = derp.GONE_DISCONNECTED) -> tuple[int, bytes]:
    return derp.PEER_GONE, key.raw + bytes([reason])


# --- Routing


def test_one_read_is_one_write_per_destination_in_order() -> None:
    hub = make_hub()
    a, b, c = join(hub, A, B, C)
    writes = hub.receive(a, to(B, b"1") + to(C, b"2") + to(B, b"3") + to(C, b"") + to(B, b"4444"), 0)
    assert said(writes) == [
        (b, [got(A, b"1"), got(A, b"3"), got(A, b"4444")]),
        (c, [got(A, b"2"), got(A, b"")]),
    ]
    assert hub.counts.packets_received == hub.counts.packets_sent == 5
    assert hub.counts.bytes_sent == sum(len(data) for _, data in writes)


def test_a_node_may_send_to_itself() -> None:
    hub = make_hub()
    (a,) = join(hub, A)
    assert said(hub.receive(a, to(A, b"me"), 0)) == [(a, [got(A, b"me")])]


def test_frames_arrive_however_the_stream_is_cut() -> None:
    hub = make_hub()
    a, b = join(hub, A, B)
    stream = to(B, b"one") + derp.frame(0x77, b"later") + to(B, b"two") + derp.ping(b"12345678")
    frames = []
    for at in range(len(stream)):
        for target, found in said(hub.receive(a, stream[at : at + 1], 0)):
            frames += [(target, entry) for entry in found]
    assert frames == [(b, got(A, b"one")), (b, got(A, b"two")), (a, (derp.PONG, b"12345678"))]


def test_nobody_there_is_told_only_to_disco_and_not_too_often() -> None:
    hub = make_hub()
    (a,) = join(hub, A)
    assert hub.receive(a, to(B, b"data"), 0) == []
    burst = hub.receive(a, to(B, DISCO) * 5, 0)
    assert said(burst) == [(a, [gone(B, derp.GONE_NOT_HERE)])] * 3
    assert hub.receive(a, to(B, DISCO), 0.9) == []
    assert said(hub.receive(a, to(C, DISCO) * 2, 1.1)) == [(a, [gone(C, derp.GONE_NOT_HERE)])]
    assert len(hub.receive(a, to(C, DISCO) * 9, 1000)) == 3
    assert hub.counts.dropped_unknown == hub.counts.packets_received == 18


def test_disco_shorter_than_its_header_is_data() -> None:
    hub = make_hub()
    (a,) = join(hub, A)
    assert hub.receive(a, to(B, DISCO[: disco.HEADER_SIZE - 1]), 0) == []
    assert hub.receive(a, to(B, DISCO[: disco.HEADER_SIZE]), 0) != []


# --- Who is here


def test_those_who_heard_from_a_node_hear_of_its_end() -> None:
    hub = make_hub()
    a, b, c, _ = join(hub, A, B, C, D)
    hub.receive(a, to(B, b"x") + to(C, b"x"), 0)
    hub.receive(b, to(A, b"x"), 0)
    hub.disconnect(c)
    assert said(hub.disconnect(a)) == [(b, [gone(A)])]
    assert hub.disconnect(a) == []
    assert hub.connections_of(A) == ()
    assert hub.receive(a, to(B, b"late"), 0) == []
    assert said(hub.disconnect(b)) == []
    assert hub.clients() == 1


def test_a_node_that_comes_back_is_not_said_to_be_gone_twice() -> None:
    hub = make_hub()
    a, b = join(hub, A, B)
    hub.receive(a, to(B, b"x"), 0)
    hub.disconnect(a)
    (a,) = join(hub, A)
    assert hub.disconnect(a) == []
    assert not b.heard


def test_of_one_keys_connections_the_newest_or_last_writer_gets_the_packets() -> None:
    hub = make_hub()
    a, first, second, third = join(hub, A, B, B, B)

    def receiver() -> Connection:
        ((connection, _),) = hub.receive(a, to(B, b"x"), 0)
        return connection

    assert receiver() is third
    hub.receive(first, derp.note_preferred(True), 0)
    assert receiver() is first
    hub.receive(second, derp.frame(derp.SEND_PACKET, A.raw)[:20], 0)  # half a frame is nothing yet
    assert receiver() is first
    assert hub.connections_of(B) == (second, third, first)
    assert hub.disconnect(first) == []
    assert receiver() is third
    hub.disconnect(second)
    assert receiver() is third
    assert hub.clients() == 2
    hub.receive(third, to(A, b"x"), 0)
    assert said(hub.disconnect(third)) == [(a, [gone(B)])]


def test_preferred_is_remembered() -> None:
    hub = make_hub()
    (a,) = join(hub, A)
    hub.receive(a, derp.note_preferred(True), 0)
    assert a.home
    hub.receive(a, derp.note_preferred(False), 0)
    assert not a.home


# --- Overload


def numbers(writes: Writes) -> list[int]:
    return [int.from_bytes(payload[-4:], "big") for _, frames in said(writes) for _, payload in frames]


def test_a_paused_connection_keeps_the_newest_packets() -> None:
    hub = make_hub()
    a, b = join(hub, A, B)
    hub.pause(b)
    for number in range(1000):
        assert hub.receive(a, to(B, number.to_bytes(4, "big")), 0) == []
    assert numbers(hub.resume(b)) == list(range(1000 - hub.limits.data_packets, 1000))
    assert hub.counts.dropped_data == 1000 - hub.limits.data_packets
    assert hub.resume(b) == []
    assert len(hub.receive(a, to(B, b"direct"), 0)) == 1


def test_bytes_are_bounded_too() -> None:
    hub = make_hub()
    a, b = join(hub, A, B)
    hub.pause(b)
    for number in range(10):
        hub.receive(a, to(B, bytes(40_000) + number.to_bytes(4, "big")), 0)
    assert b.queued() <= hub.limits.data_bytes
    assert numbers(hub.resume(b)) == [7, 8, 9]
    hub.pause(b)
    hub.receive(a, to(B, bytes(derp.MAX_PACKET)), 0)
    assert len(hub.resume(b)) == 1, "the largest packet must fit"


def test_data_does_not_drown_disco_and_disco_goes_first() -> None:
    hub = make_hub()
    a, b = join(hub, A, B)
    hub.pause(b)
    hub.receive(a, to(B, DISCO) + to(B, bytes(1300)) * 1000 + derp.ping(bytes(8)), 0)
    ((_, frames),) = said(hub.resume(b))
    assert frames[0] == got(A, DISCO)
    assert hub.counts.dropped_disco == 0
    hub.pause(b)
    hub.receive(a, to(B, b"data") + to(B, DISCO) * 1000, 0)
    ((_, frames),) = said(hub.resume(b))
    assert len(frames) == hub.limits.disco_packets + 1
    assert hub.counts.dropped_disco == 1000 - hub.limits.disco_packets


def test_one_pong_waits_and_the_relays_own_frames_go_first() -> None:
    hub = make_hub()
    a, b, c = join(hub, A, B, C)
    hub.receive(c, to(B, b"x"), 0)
    hub.pause(b)
    hub.receive(a, to(B, b"data"), 0)
    hub.receive(b, derp.ping(b"first---") + derp.ping(b"second--"), 0)
    hub.disconnect(c)
    assert hub.tick(1e6) != []
    ((_, frames),) = said(hub.resume(b))
    assert frames == [(derp.PONG, b"first---"), gone(C), got(A, b"data")]
    assert said(hub.receive(b, derp.ping(b"third---"), 0)) == [(b, [(derp.PONG, b"third---")])]


def test_a_reader_too_far_behind_for_the_relays_own_frames_is_given_up() -> None:
    hub = make_hub(Limits(control_bytes=200))
    (b,) = join(hub, B)
    hub.pause(b)
    for number in range(10, 16):
        (other,) = join(hub, NodePublic(bytes([number]) * 32))
        hub.receive(other, to(B, b"x"), 0)
        hub.disconnect(other)
    assert hub.doomed == {b}
    hub.disconnect(b)
    assert hub.doomed == set()
    assert hub.counts.dropped_data == 6
    assert b.queued() == 0


def test_what_a_gone_connection_had_queued_is_counted_and_forgotten() -> None:
    hub = make_hub()
    a, b = join(hub, A, B)
    hub.pause(b)
    hub.receive(a, to(B, b"x") * 3 + to(B, DISCO) * 2, 0)
    hub.disconnect(b)
    assert (hub.counts.dropped_data, hub.counts.dropped_disco) == (3, 2)
    assert hub.resume(b) == []


def test_a_sender_beyond_its_rate_is_read_later() -> None:
    hub = make_hub(Limits(bytes_per_second=1000, bytes_burst=100_000))
    (a,) = join(hub, A)
    assert hub.charge(a, 100_000, 0) == 0
    assert hub.charge(a, 500, 0) == pytest.approx(0.5)
    assert hub.charge(a, 0, 0.5) == pytest.approx(0)
    assert hub.charge(a, 1000, 1.5) == pytest.approx(0)
    assert hub.charge(a, 200_000, 1000) == pytest.approx(100)  # no more than the burst was saved up
    free = make_hub()
    (a,) = join(free, A)
    assert free.charge(a, 10**9, 0) == 0


# --- Time


def test_keep_alives_come_every_minute_and_spread() -> None:
    hub = Hub(Limits(), lambda size: b"\xff" * size)
    (late,) = join(hub, A)
    hub._entropy = bytes
    (early,) = join(hub, B)
    keep_alive = derp.frame(derp.KEEP_ALIVE)
    assert hub.tick(59.9) == []
    assert hub.tick(60) == [(early, keep_alive)]
    assert hub.tick(64.9) == []
    assert hub.tick(65) == [(late, keep_alive)]
    hub.disconnect(early)
    assert hub.tick(1000) == [(late, keep_alive)]
    hub.pause(late)
    assert hub.tick(2000) == []
    hub.disconnect(late)
    hub.tick(3000)
    assert hub._keep_alives == []


# --- Mesh


def test_only_the_mesh_key_makes_a_mesh_peer() -> None:
    assert make_hub(mesh_key=MESH_KEY).knows_mesh_key(MESH_KEY)
    assert not make_hub(mesh_key=MESH_KEY).knows_mesh_key("")
    assert not make_hub(mesh_key=MESH_KEY).knows_mesh_key("5b" * 32)
    assert not make_hub(mesh_key=MESH_KEY).knows_mesh_key("\u20ac")
    assert not make_hub().knows_mesh_key("")


def test_a_watcher_sees_who_is_here_and_who_comes_and_goes() -> None:
    hub = make_hub(mesh_key=MESH_KEY)
    (a,) = join(hub, A)
    mesh, _ = hub.connect(D, 0, flags=derp.PresenceFlag.MESH_PEER)
    seen = [derp.read_peer_present(frames[0][1]) for _, frames in said(hub.receive(mesh, WATCH, 0))]
    assert {(entry.peer, entry.flags) for entry in seen} == {
        (A, derp.PresenceFlag.REGULAR),
        (D, derp.PresenceFlag.MESH_PEER),
    }
    assert hub.receive(mesh, WATCH, 0) == []
    b, writes = hub.connect(B, 0, port=7, flags=derp.PresenceFlag.NOT_IDEAL)
    assert writes == [(mesh, derp.peer_present(derp.PeerPresent(B, None, 7, derp.PresenceFlag.NOT_IDEAL)))]
    assert said(hub.disconnect(b)) == [(mesh, [gone(B)])]
    hub.receive(mesh, derp.close_peer(A.raw), 0)
    assert hub.doomed == {a}
    assert hub.charge(mesh, 10**9, 0) == 0
    hub.disconnect(mesh)
    assert hub.connect(C, 0)[1] == []


WATCH = derp.frame(derp.WATCH_CONNS)


def test_a_forwarded_packet_is_delivered_once_and_leaves_no_trace() -> None:
    hub = make_hub(mesh_key=MESH_KEY)
    (a,) = join(hub, A)
    mesh, _ = hub.connect(D, 0, flags=derp.PresenceFlag.MESH_PEER)
    assert said(hub.receive(mesh, derp.forward_packet(C.raw, A.raw, b"x"), 0)) == [(a, [got(C, b"x")])]
    assert hub.receive(mesh, derp.forward_packet(C.raw, B.raw, b"x"), 0) == []
    assert hub.counts.dropped_unknown == 1
    assert not a.heard


def forwarded(source: NodePublic, to: NodePublic, packet: bytes) -> tuple[int, bytes]:
    return derp.FORWARD_PACKET, source.raw + to.raw + packet


def line_with(hub: Hub, *keys: NodePublic, number: int = 9) -> Connection:
    """A line to another relay, behind which some nodes are."""
    line = hub.open_line(NodePublic(bytes([number]) * 32), 0)
    for key in keys:
        hub.learn(line, key)
    return line


def test_packets_for_a_node_at_another_relay_go_down_the_line_in_one_write() -> None:
    hub = make_hub(mesh_key=MESH_KEY)
    a, b = join(hub, A, B)
    line = line_with(hub, C, D)
    writes = hub.receive(a, to(C, b"1") + to(B, b"2") + to(D, b"3") + to(C, DISCO), 0)
    assert said(writes) == [
        (line, [forwarded(A, C, b"1"), forwarded(A, D, b"3"), forwarded(A, C, DISCO)]),
        (b, [got(A, b"2")]),
    ]
    assert (hub.counts.packets_received, hub.counts.packets_sent, hub.counts.packets_forwarded) == (4, 4, 3)
    assert hub.elsewhere() == 2
    assert said(hub.disconnect(a)) == [(b, [gone(A)])], "a line is no client: it is told nothing"


def test_a_connection_here_wins_over_a_line() -> None:
    hub = make_hub(mesh_key=MESH_KEY)
    a, b = join(hub, A, B)
    line = line_with(hub, B)
    assert said(hub.receive(a, to(B, b"x"), 0)) == [(b, [got(A, b"x")])]
    assert hub.disconnect(b) == []
    assert said(hub.receive(a, to(B, b"x"), 0)) == [(line, [forwarded(A, B, b"x")])]
    (b,) = join(hub, B)
    assert said(hub.receive(a, to(B, b"x"), 0)) == [(b, [got(A, b"x")])]


def test_a_node_that_connects_elsewhere_leaves_what_it_has_here_behind() -> None:
    """It roamed, and its connection here is dead: nobody knows yet, and its packets must not wait until somebody does."""
    hub = make_hub(mesh_key=MESH_KEY)
    a, b = join(hub, A, B)
    line = line_with(hub)
    hub.learn(line, B, newly=True)
    assert said(hub.receive(a, to(B, b"x"), 0)) == [(line, [forwarded(A, B, b"x")])]
    assert hub.connections_of(B) == (b,)
    assert hub.clients() == 1, "the one that is here and nowhere else since"
    # What another relay hands to us is for whatever it has here.
    mesh, _ = hub.connect(D, 0, flags=derp.PresenceFlag.MESH_PEER)
    assert said(hub.receive(mesh, derp.forward_packet(C.raw, B.raw, b"y"), 0)) == [(b, [got(C, b"y")])]
    # It was not dead after all.
    assert said(hub.receive(b, to(A, b"z"), 0)) == [(a, [got(B, b"z")])]
    assert said(hub.receive(a, to(B, b"x"), 0)) == [(b, [got(A, b"x")])]
    hub.learn(line, B, newly=True)
    assert said(hub.unlearn(line, B)) == [], "it is still here"
    assert said(hub.receive(a, to(B, b"x"), 0)) == [(b, [got(A, b"x")])]
    hub.learn(line, B, newly=True)
    assert hub.disconnect(b) == []
    assert said(hub.unlearn(line, B)) == [(a, [gone(B)])]


def test_one_of_two_dead_connections_ends_and_the_other_is_not_taken_for_alive() -> None:
    hub = make_hub(mesh_key=MESH_KEY)
    a, b, again = join(hub, A, B, B)
    line = line_with(hub)
    hub.learn(line, B, newly=True)
    assert hub.disconnect(again) == []
    assert said(hub.receive(a, to(B, b"x"), 0)) == [(line, [forwarded(A, B, b"x")])]
    assert hub.connections_of(B) == (b,)


def test_of_several_lines_the_one_with_the_latest_news_carries() -> None:
    hub = make_hub(mesh_key=MESH_KEY)
    (a,) = join(hub, A)
    first, second = line_with(hub, B), line_with(hub, B, number=8)
    assert said(hub.receive(a, to(B, b"x"), 0)) == [(second, [forwarded(A, B, b"x")])]
    hub.learn(first, B, newly=True)
    assert said(hub.receive(a, to(B, b"x"), 0)) == [(first, [forwarded(A, B, b"x")])]


def test_of_several_lines_the_newest_carries_and_each_takes_over() -> None:
    hub = make_hub(mesh_key=MESH_KEY)
    (a,) = join(hub, A)
    first, second = line_with(hub, B), line_with(hub, B, number=10)
    hub.learn(first, B)  # said again, as for a second connection there: nothing changes

    def carrier() -> Connection | None:
        writes = hub.receive(a, to(B, b"x"), 0)
        return writes[0][0] if writes else None

    assert carrier() is second
    assert hub.unlearn(second, B) == []
    assert carrier() is first
    hub.learn(second, B)
    assert carrier() is second
    assert hub.close_line(second) == hub.close_line(second) == []
    hub.learn(second, C)  # news that was on the way when the line ended
    assert carrier() is first
    assert hub.elsewhere() == 1
    assert hub.unlearn(first, B) == []
    assert carrier() is None
    assert hub.unlearn(first, B) == []
    assert hub.elsewhere() == 0


def test_what_was_forwarded_is_never_forwarded_again() -> None:
    hub = make_hub(mesh_key=MESH_KEY)
    mesh, _ = hub.connect(D, 0, flags=derp.PresenceFlag.MESH_PEER)
    line_with(hub, B)
    assert hub.receive(mesh, derp.forward_packet(A.raw, B.raw, DISCO), 0) == []
    assert hub.counts.dropped_unknown == 1


def test_forwarded_packets_of_one_read_are_one_write_per_destination() -> None:
    hub = make_hub(mesh_key=MESH_KEY)
    a, b = join(hub, A, B)
    mesh, _ = hub.connect(D, 0, flags=derp.PresenceFlag.MESH_PEER)
    read = [derp.forward_packet(C.raw, key.raw, packet) for key, packet in ((A, b"1"), (B, b"2"), (A, b"3"))]
    assert said(hub.receive(mesh, b"".join(read) + to(A, b"own"), 0)) == [
        (a, [got(D, b"own")]),
        (a, [got(C, b"1"), got(C, b"3")]),
        (b, [got(C, b"2")]),
    ]


def test_a_node_at_another_relay_is_gone_for_those_who_heard_from_it() -> None:
    hub = make_hub(mesh_key=MESH_KEY)
    a, b = join(hub, A, B)
    mesh, _ = hub.connect(D, 0, flags=derp.PresenceFlag.MESH_PEER)
    line = line_with(hub, C)
    hub.receive(mesh, derp.forward_packet(C.raw, A.raw, b"x"), 0)
    assert said(hub.unlearn(line, C)) == [(a, [gone(C)])]
    assert not a.heard
    hub.learn(line, C)
    hub.receive(mesh, derp.forward_packet(C.raw, B.raw, b"x"), 0)
    assert said(hub.close_line(line)) == [(b, [gone(C)])], "with the line all behind it are gone"
    assert hub.receive(a, to(C, b"x"), 0) == []


def test_a_node_that_moves_within_the_region_is_not_gone() -> None:
    hub = make_hub(mesh_key=MESH_KEY)
    a, c = join(hub, A, C)
    watcher, _ = hub.connect(D, 0, flags=derp.PresenceFlag.MESH_PEER)
    hub.receive(watcher, WATCH, 0)
    hub.receive(c, to(A, b"x"), 0)
    line = line_with(hub, C)
    assert said(hub.disconnect(c)) == [(watcher, [gone(C)])], "watchers ask who is here"
    hub.receive(watcher, derp.forward_packet(C.raw, A.raw, b"x"), 0)
    (c,) = join(hub, C)
    assert hub.unlearn(line, C) == []
    assert said(hub.disconnect(c)) == [(watcher, [gone(C)]), (a, [gone(C)])]


def test_a_line_that_takes_no_more_keeps_the_newest_packets() -> None:
    hub = make_hub(Limits(line_packets=4), mesh_key=MESH_KEY)
    (a,) = join(hub, A)
    line = line_with(hub, B)
    hub.pause(line)
    hub.receive(a, b"".join(to(B, bytes([number])) for number in range(9)) + to(B, DISCO), 0)
    ((_, frames),) = said(hub.resume(line))
    assert frames == [forwarded(A, B, DISCO), *(forwarded(A, B, bytes([number])) for number in range(5, 9))]
    assert hub.counts.dropped_data == hub.counts.packets_forwarded == 5
    hub.pause(line)
    hub.receive(a, to(B, b"x") * 2, 0)
    hub.close_line(line)
    assert hub.counts.dropped_data == 7
    assert hub.resume(line) == []


@pytest.mark.parametrize(
    "frame",
    [
        WATCH,
        derp.close_peer(B.raw),
        derp.forward_packet(B.raw, A.raw, b"x"),
        derp.frame(derp.CLIENT_INFO, bytes(100)),
        derp.frame(derp.SEND_PACKET, bytes(31)),
        derp.frame(derp.SEND_PACKET, bytes(32 + 65537)),
        derp.frame(derp.NOTE_PREFERRED, b"12"),
        derp.frame(derp.PING, bytes(1001)),
        b"\x77\xff\xff\xff\xff",
    ],
)
def test_a_broken_rule_raises(frame: bytes) -> None:
    hub = make_hub()
    (a,) = join(hub, A)
    with pytest.raises(RemoteProtocolError):
        hub.receive(a, frame, 0)


@pytest.mark.parametrize("frame", [derp.close_peer(A.raw[:31]), derp.frame(derp.FORWARD_PACKET, bytes(63))])
def test_a_mesh_peer_must_keep_the_rules_too(frame: bytes) -> None:
    hub = make_hub(mesh_key=MESH_KEY)
    mesh, _ = hub.connect(D, 0, flags=derp.PresenceFlag.MESH_PEER)
    with pytest.raises(RemoteProtocolError):
        hub.receive(mesh, frame, 0)


# --- Properties


@given(st.integers(0, 2**32), st.lists(st.sampled_from("cdsplrxn"), max_size=80))
def test_packets_are_delivered_queued_or_counted_and_all_stays_bounded(seed: int, plays: list[str]) -> None:
    """Any order of connecting, leaving, sending, pausing and resuming: nothing is lost count of, nothing lingers."""
    chance = random.Random(seed)
    limits = Limits(data_packets=4, disco_packets=2, line_packets=4)
    hub = make_hub(limits)
    here: list[Connection] = []
    lines: list[Connection] = []
    sent = 0
    for play in plays:
        if play == "c":
            here += join(hub, chance.choice((A, B, C, D)))
        elif play == "l":
            lines.append(line_with(hub, *chance.sample((A, B, C, D), 2)))
            if chance.random() < 0.5:
                hub.pause(lines[-1])
        elif play == "n":
            if lines:
                hub.learn(chance.choice(lines), chance.choice((A, B, C, D)), newly=True)
        elif play == "x":
            if lines and chance.random() < 0.5:
                hub.close_line(lines.pop(chance.randrange(len(lines))))
            elif lines:
                hub.unlearn(chance.choice(lines), chance.choice((A, B, C, D)))
        elif not here:
            continue
        elif play == "d":
            hub.disconnect(here.pop(chance.randrange(len(here))))
        elif play == "s":
            count = chance.randrange(1, 9)
            sent += count
            body = chance.choice((b"data", DISCO))
            hub.receive(chance.choice(here), to(chance.choice((A, B, C, D)), body) * count, 0)
        elif play == "p":
            hub.pause(chance.choice(here))
        else:
            hub.resume(chance.choice(here))
        counts = hub.counts
        queued = sum(len(one.data.frames) + len(one.disco.frames) for one in here + lines)
        dropped = counts.dropped_unknown + counts.dropped_data + counts.dropped_disco
        assert counts.packets_received == sent == counts.packets_sent + dropped + queued
        assert all(
            len(one.data.frames) <= 4
            and len(one.disco.frames) <= 2
            and one.data.size == sum(map(len, one.data.frames))
            for one in here + lines
        )
        assert hub.elsewhere() == len({key for line in lines for key in line.mesh_keys})
        assert hub.clients() <= len({one.raw for one in here})
        assert {one.raw for one in here if one.raw not in hub._elsewhere} <= set(hub._active)
        assert {one for key in (A, B, C, D) for one in hub.connections_of(key)} == set(here)
    for one in list(here):
        hub.disconnect(one)
    for line in lines:
        assert hub.close_line(line) == []
    assert hub.clients() == hub.elsewhere() == 0
    assert all(not one.heard for one in here)
