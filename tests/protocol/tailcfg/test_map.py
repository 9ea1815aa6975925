"""Map requests as stock clients send them, and what absent, empty and null look like in an answer."""

import pytest
from tests.support.wire import recorded

from doorward.protocol.tailcfg.codec import decode_request, encode
from doorward.protocol.tailcfg.map import (
    ENDPOINT_LOCAL,
    DisplayMessage,
    MapRequest,
    MapResponse,
    PingRequest,
)


def read(client: str, name: str) -> MapRequest:
    return decode_request(recorded(client, name).json.encode(), MapRequest)


@pytest.mark.parametrize("client", ["1.102.4", "1.80.3"])
def test_a_stream_carries_no_endpoints_and_a_lite_update_does(client: str) -> None:
    stream = read(client, "open the stream")
    assert stream.Stream
    assert stream.KeepAlive
    assert not stream.OmitPeers
    assert stream.Compress == "zstd"
    assert stream.Endpoints == []
    lite = read(client, "lite update with the home relay")
    assert not lite.Stream
    assert lite.OmitPeers
    assert lite.Endpoints == ["192.0.2.2:41641"]
    assert lite.EndpointTypes == [ENDPOINT_LOCAL]
    assert lite.Hostinfo is not None
    assert lite.Hostinfo.NetInfo is not None
    assert lite.Hostinfo.NetInfo.PreferredDERP == 900


def test_a_zero_attestation_time_is_none() -> None:
    sent = read("1.102.4", "open the stream")
    text = encode(sent)[:-1] + b',"HardwareAttestationKeySignatureTimestamp":"0001-01-01T00:00:00Z"}'
    assert decode_request(text, MapRequest) == sent


def test_what_is_not_said_is_absent() -> None:
    assert encode(MapResponse()) == b"{}"
    assert encode(PingRequest(URL="u")) == b'{"URL":"u"}'


def test_empty_is_said_where_it_means_something() -> None:
    message = MapResponse(PacketFilter=[], Health=[], PacketFilters={"*": None}, CollectServices=False)
    assert (
        encode(message)
        == b'{"CollectServices":false,"PacketFilter":[],"PacketFilters":{"*":null},"Health":[]}'
    )


def test_a_message_without_button_has_no_null_button() -> None:
    assert b"PrimaryAction" not in encode(DisplayMessage(Title="a", Text="b", Severity="low"))
