"""The small requests, as old clients really send one of them."""

import pytest
from tests.support.wire import recorded

from doorward.errors import BadInput
from doorward.protocol.keys import MachinePublic, NodePublic
from doorward.protocol.tailcfg.codec import decode_request, encode
from doorward.protocol.tailcfg.requests import (
    AuditLogRequest,
    HealthChangeRequest,
    QueryFeatureRequest,
    QueryFeatureResponse,
    ServerKeys,
    SetDeviceAttributesRequest,
    SetDNSRequest,
    TokenRequest,
    TokenResponse,
)

KEY = "nodekey:" + "11" * 32


def test_a_health_report() -> None:
    request = decode_request(recorded("1.80.3", "health: dns").json.encode(), HealthChangeRequest)
    assert request.Subsys == "dns"
    assert request.Error == "getting OS base config is not supported"


def test_the_servers_keys_always_have_both() -> None:
    written = encode(ServerKeys(publicKey=MachinePublic(b"\x11" * 32)))
    assert written == (
        b'{"publicKey":"mkey:' + b"11" * 32 + b'","legacyPublicKey":"mkey:' + b"00" * 32 + b'"}'
    )


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (SetDNSRequest, '{"NodeKey":"%s","Name":"n","Type":"TXT"}'),
        (TokenRequest, '{"NodeKey":"%s"}'),
        (HealthChangeRequest, "{}"),
        (SetDeviceAttributesRequest, '{"Update":{}}'),
        (SetDeviceAttributesRequest, '{"NodeKey":"%s","Update":{"a":{}}}'),
        (SetDeviceAttributesRequest, '{"NodeKey":"%s","Update":{"a":[]}}'),
    ],
)
def test_what_lacks_a_field_or_has_the_wrong_one_is_refused(kind: type, text: str) -> None:
    with pytest.raises(BadInput):
        decode_request(text.replace("%s", KEY).encode(), kind)


def test_what_may_be_left_out() -> None:
    assert decode_request(b'{"Feature":"serve"}', QueryFeatureRequest).NodeKey.is_zero()
    assert decode_request(b"{}", AuditLogRequest).Timestamp is None
    key = NodePublic(b"\x11" * 32)
    assert decode_request(f'{{"nodeKey":"{KEY}"}}'.encode(), QueryFeatureRequest).NodeKey == key
    assert encode(QueryFeatureResponse()) == b"{}"


def test_a_token_is_not_shown() -> None:
    assert "secret" not in repr(TokenResponse(id_token="secret"))
    assert encode(TokenResponse(id_token="secret")) == b'{"id_token":"secret"}'
