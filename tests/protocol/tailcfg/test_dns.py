"""DNS configuration: which names the node answers itself."""

from doorward.protocol.tailcfg.codec import decode_request, encode
from doorward.protocol.tailcfg.dns import DNSConfig, DNSRecord, Resolver


def test_a_route_without_resolvers_is_said_and_null_is_read_as_one() -> None:
    assert encode(DNSConfig(Routes={"a.example": []})) == b'{"Routes":{"a.example":[]}}'
    assert decode_request(b'{"routes":{"A.example":null}}', DNSConfig).Routes == {"A.example": None}


def test_an_empty_configuration_is_an_empty_object() -> None:
    assert encode(DNSConfig()) == b"{}"
    assert decode_request(b'{"Resolvers":null,"Proxied":null}', DNSConfig) == DNSConfig()


def test_a_record_and_a_resolver() -> None:
    assert (
        encode(DNSRecord(Name="a.example", Value="192.0.2.1")) == b'{"Name":"a.example","Value":"192.0.2.1"}'
    )
    assert encode(Resolver(Addr="192.0.2.53")) == b'{"Addr":"192.0.2.53"}'
