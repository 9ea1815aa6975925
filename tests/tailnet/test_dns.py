"""What may be said about DNS, and how it is kept."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.errors import BadInput
from doorward.protocol.tailcfg.dns import DNSRecord
from doorward.tailnet.dns import checked
from doorward.tailnet.settings import DNS, Settings

SETTINGS = Settings(domain="tailnet.internal", url="http://127.0.0.1:8080", door_host="door.tailnet.internal")


def refusal(dns: DNS) -> BadInput:
    with pytest.raises(BadInput) as caught:
        checked(dns, SETTINGS)
    return caught.value


def test_what_is_good_is_kept_in_one_form() -> None:
    dns = DNS(
        magic_dns=False,
        search=("Corp.Example.", "_tcp.corp.example"),
        nameservers=(
            "192.0.2.53",
            "2001:db8::53",
            "192.0.2.53:5353",
            "[2001:db8::53]:5353",
            "https://dns.example/dns-query",
            "http://100.64.0.5:8053/dns-query",
        ),
        split={"CORP.example": ("10.0.0.53",), "nothing.example": ()},
        records=(
            DNSRecord(Name="Wiki.Corp.Example.", Type="A", Value="100.64.0.7"),
            DNSRecord(Name="wiki.corp.example", Value="fd7a:115c:a1e0:0::7"),
        ),
    )
    kept = checked(dns, SETTINGS)
    assert kept.search == ("corp.example", "_tcp.corp.example")
    assert kept.nameservers == dns.nameservers
    assert kept.split == {"corp.example": ("10.0.0.53",), "nothing.example": ()}
    assert kept.records == (
        DNSRecord(Name="wiki.corp.example", Value="100.64.0.7"),
        DNSRecord(Name="wiki.corp.example", Value="fd7a:115c:a1e0::7"),
    )
    assert not kept.magic_dns
    assert checked(kept, SETTINGS) == kept


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "not a domain name"),
        (".", "not a domain name"),
        ("a..b", "not a domain name"),
        ("*.corp.example", "not a domain name"),
        ("-corp.example", "not a domain name"),
        ("corp.example/", "not a domain name"),
        ("büro.example", "not a domain name"),
        ("a" * 64 + ".example", "not a domain name"),
        (".".join(["a" * 60] * 5), "not a domain name"),
        ("Tailnet.Internal.", "the tailnet's own domain"),
    ],
)
def test_search_domains_that_are_none(name: str, why: str) -> None:
    error = refusal(DNS(search=("corp.example", name)))
    assert why in error.message
    assert error.place == "$.search[1]"
    assert error.cure


@pytest.mark.parametrize(
    "text",
    [
        "",
        "dns.example",
        "192.0.2",
        "192.0.2.53:0",
        "192.0.2.53:65536",
        "192.0.2.53:dns",
        "2001:db8::53:99999",
        "[2001:db8::53]",
        "fe80::1%eth0",
        "http://dns.example/dns-query",
        "http://192.0.2.53/dns-query",
        "tls://192.0.2.53",
        "https://",
        "https://[dns",
        "https://dns.example:port/",
    ],
)
def test_nameservers_that_are_none(text: str) -> None:
    error = refusal(DNS(nameservers=("192.0.2.1", text)))
    assert "is not a nameserver" in error.message
    assert error.place == "$.nameservers[1]"
    assert "ADDRESS:PORT" in error.cure
    error = refusal(DNS(split={"corp.example": (text,)}))
    assert error.place == "$.split['corp.example'][0]"


@pytest.mark.parametrize("text", ["100.100.100.100", "100.100.100.100:53", "[fd7a:115c:a1e0::53]:53"])
def test_nobody_is_sent_in_a_circle(text: str) -> None:
    assert "every client's own resolver" in refusal(DNS(nameservers=(text,))).message


def test_records_and_suffixes_that_are_none() -> None:
    def of(*records: tuple[str, str]) -> DNS:
        return DNS(records=tuple(DNSRecord(Name=name, Value=value) for name, value in records))

    assert refusal(of(("*.corp.example", "192.0.2.1"))).place == "$.records[0].name"
    assert refusal(of(("a.example", "192.0.2.1"), ("b.example", "other"))).place == "$.records[1].address"
    assert "the door" in refusal(of(("Door.Tailnet.Internal", "192.0.2.1"))).message
    assert "twice" in refusal(of(("a.example", "192.0.2.1"), ("A.example.", "192.0.2.1"))).message
    assert "twice" in refusal(DNS(search=("a.example", "A.example"))).message
    assert "twice" in refusal(DNS(split={"a.example": (), "A.example": ()})).message
    assert "answered by the nodes" in refusal(DNS(split={"tailnet.internal": ("192.0.2.1",)})).message


@given(st.text(), st.text(), st.text())
def test_anything_is_kept_or_refused(name: str, server: str, address: str) -> None:
    dns = DNS(
        search=(name,),
        nameservers=(server,),
        split={name: (server,)},
        records=(DNSRecord(Name=name, Value=address),),
    )
    try:
        kept = checked(dns, SETTINGS)
    except BadInput:
        return
    assert checked(kept, SETTINGS) == kept
