"""Control's questions to a node, as HTTP inside a message."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.errors import RemoteProtocolError
from doorward.protocol.c2n import REQUEST_LIMIT, Request, encode_response, parse_request


def test_a_question_with_a_body() -> None:
    raw = b"POST /echo?a=1 HTTP/1.1\r\nHost: c2n\r\nContent-Length: 5\r\nX-Y:  z \r\n\r\nhello and more"
    assert parse_request(raw) == Request(
        "POST", "/echo?a=1", {"host": "c2n", "content-length": "5", "x-y": "z"}, b"hello"
    )


def test_without_a_length_there_is_no_body() -> None:
    assert parse_request(b"GET / HTTP/1.1\r\n\r\nrest") == Request("GET", "/", {}, b"")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"GET / HTTP/1.1\r\n",
        b"GET / HTTP/2\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET http://x/ HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1 x\r\n\r\n",
        b"GET / HTTP/1.1\r\nnocolon\r\n\r\n",
        b"GET / HTTP/1.1\r\n: x\r\n\r\n",
        b"GET / HTTP/1.1\r\n folded: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nname : x\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 1\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        "GET / HTTP/1.1\r\nContent-Length: \u00b2\r\n\r\n".encode("latin-1"),
        b"GET / HTTP/1.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
        b"GET /" + b"x" * (17 << 10) + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n" + bytes(REQUEST_LIMIT),
    ],
)
def test_what_is_no_question(raw: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_request(raw)


@given(st.binary(max_size=300).map(lambda data: b"POST /x HTTP/1.1\r\n" + data))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    try:
        request = parse_request(raw)
    except RemoteProtocolError:
        return
    assert request.body in raw


def test_an_answer_ends_where_the_message_ends() -> None:
    assert encode_response(200, b"hello") == (
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nhello"
    )
    assert encode_response(404, b"").startswith(b"HTTP/1.1 404 Not Found\r\n")
