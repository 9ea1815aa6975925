"""Packet filter rules: a rule says only what it has, and never what is retired."""

from doorward.protocol.tailcfg.codec import encode
from doorward.protocol.tailcfg.filter import ALL_PORTS, CapGrant, FilterRule, NetPortRange, PortRange


def test_a_rule_for_ports() -> None:
    rule = FilterRule(SrcIPs=["*"], DstPorts=[NetPortRange(IP="100.64.0.1", Ports=PortRange(22, 22))])
    assert encode(rule) == (
        b'{"SrcIPs":["*"],"DstPorts":[{"IP":"100.64.0.1","Ports":{"First":22,"Last":22}}]}'
    )
    assert encode(ALL_PORTS) == b'{"First":0,"Last":65535}', "zero is said: a range needs both ends"


def test_a_rule_for_capabilities_keeps_null_as_no_value() -> None:
    grant = CapGrant(Dsts=["100.64.0.1/32"], CapMap={"example.com/cap/app": None})
    assert encode(FilterRule(SrcIPs=["100.64.0.2"], CapGrant=[grant])) == (
        b'{"SrcIPs":["100.64.0.2"],"CapGrant":'
        b'[{"Dsts":["100.64.0.1/32"],"CapMap":{"example.com/cap/app":null}}]}'
    )
