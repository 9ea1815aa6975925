"""What a client asks for, read from first messages that OpenSSL makes."""

import ssl

import pytest

from doorward.errors import RemoteProtocolError
from doorward.protocol.clienthello import HEADER, LARGEST, ClientHello, parse_client_hello, record_length


def hello(name: str | None, *protocols: str) -> bytes:
    """The first record of a real client."""
    context = ssl.create_default_context()
    context.check_hostname = False
    if protocols:
        context.set_alpn_protocols(protocols)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


@pytest.mark.parametrize(
    ("name", "protocols"),
    [
        ("door.example.com", ("acme-tls/1",)),
        ("Door.Example.COM", ("h2", "http/1.1")),
        ("door.example.com", ()),
        (None, ("acme-tls/1",)),
        (None, ()),
    ],
)
def test_name_and_protocols_of_a_real_client(name: str | None, protocols: tuple[str, ...]) -> None:
    record = hello(name, *protocols)
    assert record_length(record[:HEADER]) == len(record)
    found = parse_client_hello(record)
    assert found == ClientHello((name or "").lower(), tuple(one.encode() for one in protocols))


def test_a_client_without_extensions_asks_for_nothing() -> None:
    body = b"\x03\x03" + bytes(32) + b"\x00" + b"\x00\x02\x00\x2f" + b"\x01\x00"
    message = b"\x01" + len(body).to_bytes(3, "big") + body
    record = b"\x16\x03\x01" + len(message).to_bytes(2, "big") + message
    assert parse_client_hello(record) == ClientHello("", ())


def test_every_cut_is_refused_and_never_read_beyond() -> None:
    whole = hello("door.example.com", "acme-tls/1")
    for end in range(len(whole)):
        with pytest.raises(RemoteProtocolError):
            parse_client_hello(whole[:end])
    for end in range(len(whole) - HEADER):  # a record that says it is whole, with a message that is not
        content = whole[HEADER : HEADER + end]
        with pytest.raises(RemoteProtocolError):
            parse_client_hello(whole[:3] + len(content).to_bytes(2, "big") + content)


def test_what_is_no_handshake_is_refused_at_its_first_byte() -> None:
    assert record_length(b"") == HEADER
    assert record_length(b"\x16\x03") == HEADER
    with pytest.raises(RemoteProtocolError, match="beginning of TLS"):
        record_length(b"G")
    for length in (0, LARGEST - HEADER + 1):
        with pytest.raises(RemoteProtocolError, match=f"of {length} bytes"):
            record_length(b"\x16\x03\x01" + length.to_bytes(2, "big"))
    with pytest.raises(RemoteProtocolError, match="not a ClientHello"):
        parse_client_hello(b"\x16\x03\x01\x00\x04\x02\x00\x00\x00")
