import pytest

from doorward.policy.services import joined, ports_text, protocol_name, services_of, services_text
from doorward.protocol.tailcfg.filter import ALL_PORTS, PortRange


def one(port: int) -> PortRange:
    return PortRange(port, port)


def test_ports_are_joined() -> None:
    assert joined([PortRange(80, 90), one(22), PortRange(85, 100), one(23)]) == (
        PortRange(22, 23),
        PortRange(80, 100),
    )
    assert ports_text([one(443), one(22)]) == "22,443"
    assert ports_text([PortRange(1, 65535)]) == ports_text([ALL_PORTS]) == "all"


@pytest.mark.parametrize(
    ("protocols", "ports", "text"),
    [
        ((), [ALL_PORTS], "all ports"),
        ((), [one(22)], "port 22"),
        ((), [one(22), one(443)], "ports 22,443"),
        ((), [PortRange(80, 90)], "ports 80-90"),
        ((6,), [one(22)], "tcp 22"),
        ((6, 17), [one(53)], "tcp/udp 53"),
        ((1,), [ALL_PORTS], "icmp"),
        ((58,), [ALL_PORTS], "icmpv6"),
        ((47,), [ALL_PORTS], "gre"),
        ((200,), [ALL_PORTS], "protocol 200"),
        ((132,), [one(9)], "sctp 9"),
        ((6,), [], ""),
    ],
)
def test_in_words(protocols: tuple[int, ...], ports: list[PortRange], text: str) -> None:
    assert services_text(services_of(protocols, ports)) == text


def test_what_is_beside_the_usual_four_is_named() -> None:
    both = [*services_of((), [one(22)]), *services_of((132,), [one(9)])]
    assert services_text(both) == "port 22, sctp 9"
    uneven = [*services_of((), [one(22)]), *services_of((6,), [one(80)])]
    assert services_text(uneven) == "icmp/icmpv6, tcp 22,80, udp 22"


def test_names_of_protocols() -> None:
    assert [protocol_name(number) for number in (6, 17, 1, 58, 4, 2, 255)] == [
        "tcp",
        "udp",
        "icmp",
        "icmpv6",
        "ipv4",
        "igmp",
        "protocol 255",
    ]
