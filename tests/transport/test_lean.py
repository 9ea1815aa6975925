"""The lean connection does what the library's own does, in less memory."""

import collections
from typing import Any

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.exceptions import InvalidSettingsValueError
from h2.settings import SettingCodes
from h2.stream import StreamClosedBy
from hypothesis import given
from hypothesis import strategies as st

from doorward.transport.lean import LeanConnection

SERVER = H2Configuration(client_side=False, header_encoding=None)
CLIENT = H2Configuration(client_side=True, header_encoding=None)
HEADERS = [(b":method", b"POST"), (b":path", b"/"), (b":scheme", b"http"), (b":authority", b"here")]
SETTINGS = [
    SettingCodes.HEADER_TABLE_SIZE,
    SettingCodes.INITIAL_WINDOW_SIZE,
    SettingCodes.MAX_FRAME_SIZE,
    SettingCodes.MAX_CONCURRENT_STREAMS,
    SettingCodes.MAX_HEADER_LIST_SIZE,
]


def talk(server: H2Connection, settings: dict[SettingCodes, int], values: list[bytes]) -> tuple[Any, ...]:
    """A client's whole conversation with a server, and all that each of them said and made of it."""
    client = H2Connection(CLIENT)
    said: list[object] = []

    def exchange() -> None:
        for _ in range(3):
            for sender, receiver in ((client, server), (server, client)):
                data = sender.data_to_send()
                said.extend((data, *map(repr, receiver.receive_data(data))))

    for side in (client, server):
        side.initiate_connection()
    exchange()
    client.update_settings({int(code): value for code, value in settings.items()})
    server.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: 7})
    exchange()
    for number, value in enumerate(values):
        stream = 2 * number + 1
        client.send_headers(stream, [*HEADERS, (b"x-same", b"1"), (b"x-other", value)])
        client.send_data(stream, b"body", end_stream=True)
        exchange()
        server.acknowledge_received_data(4, stream)
        server.send_headers(stream, [(b":status", b"200"), (b"x-other", value)])
        server.send_data(stream, b"answer", end_stream=True)
        client.ping(b"12345678")
        exchange()
    return (*said, dict(server.local_settings), server.max_outbound_frame_size, len(server.streams))


@given(
    st.dictionaries(st.sampled_from(SETTINGS), st.integers(16_384, 65_535)),
    st.lists(st.binary(max_size=40).map(bytes.hex).map(str.encode), max_size=5),
)
def test_it_says_what_the_library_says(settings: dict[SettingCodes, int], values: list[bytes]) -> None:
    assert talk(LeanConnection(SERVER), settings, values) == talk(H2Connection(SERVER), settings, values)


def test_headers_beyond_the_table_push_out_the_oldest() -> None:
    values = [b"x" * 1500, b"y" * 1500, b"z" * 1500, b"x" * 1500]
    assert talk(LeanConnection(SERVER), {}, values) == talk(H2Connection(SERVER), {}, values)


def test_a_frame_for_a_stream_that_was_reset_is_taken_as_the_library_takes_it() -> None:
    answers: list[object] = []
    for server in (LeanConnection(SERVER), H2Connection(SERVER)):
        client = H2Connection(CLIENT)
        client.initiate_connection()
        server.initiate_connection()
        server.receive_data(client.data_to_send())
        for stream in range(1, 2 * 300, 2):
            client.send_headers(stream, HEADERS)
            server.receive_data(client.data_to_send())
            server.reset_stream(stream)
            assert not server.open_inbound_streams
            client.send_data(stream, b"late")
            before = server.data_to_send()
            answers.append((before, list(map(repr, server.receive_data(client.data_to_send())))))
            client.receive_data(before)
        answers.append(server.data_to_send())
    assert answers[: len(answers) // 2] == answers[len(answers) // 2 :]


def test_only_the_last_ends_are_remembered() -> None:
    closed = LeanConnection(SERVER)._closed_streams
    for stream in range(1, 2 * 1000, 2):
        closed[stream] = StreamClosedBy.SEND_RST_STREAM
        assert stream in closed
        assert closed[stream] is StreamClosedBy.SEND_RST_STREAM
    assert sum(stream in closed for stream in range(1, 2 * 1000, 2)) == 256
    assert 1 not in closed


def test_settings_are_checked_and_hold_when_acknowledged() -> None:
    settings = LeanConnection(SERVER).remote_settings
    with pytest.raises(InvalidSettingsValueError):
        settings[SettingCodes.MAX_FRAME_SIZE] = 1
    assert settings.max_concurrent_streams == 2**32 + 1
    settings[SettingCodes.MAX_CONCURRENT_STREAMS] = 5
    settings[SettingCodes.MAX_CONCURRENT_STREAMS] = 6
    assert SettingCodes.MAX_CONCURRENT_STREAMS not in settings
    for expected in (5, 6):
        assert settings.acknowledge()[SettingCodes.MAX_CONCURRENT_STREAMS].new_value == expected
        assert settings.max_concurrent_streams == expected
    assert settings.acknowledge() == {}


def test_no_queue_of_the_librarys_is_left() -> None:
    """Each would cost its 600 bytes."""
    connection = LeanConnection(SERVER)
    connection.initiate_connection()
    connection.receive_data(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5))
    seen, todo = set[int](), list[object]([connection])
    while todo:
        one = todo.pop()
        if id(one) in seen or isinstance(one, type):
            continue
        seen.add(id(one))
        assert not isinstance(one, collections.deque)
        todo += vars(one).values() if hasattr(one, "__dict__") else ()
        todo += one.values() if isinstance(one, dict) else ()
