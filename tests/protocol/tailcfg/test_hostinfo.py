"""Hostinfo as stock clients of both ages send it."""

import pytest
from tests.support.wire import recorded

from doorward.protocol.tailcfg.codec import decode_request, encode
from doorward.protocol.tailcfg.hostinfo import Hostinfo, NetInfo, Service
from doorward.protocol.tailcfg.map import MapRequest


@pytest.mark.parametrize("client", ["1.102.4", "1.80.3"])
def test_everything_is_read(client: str) -> None:
    request = decode_request(recorded(client, "lite update with the home relay").json.encode(), MapRequest)
    host = request.Hostinfo
    assert host is not None
    assert host.IPNVersion.startswith(client)
    assert host.Hostname == "probe"
    assert host.Container is True
    assert host.Desktop is False
    assert host.RoutableIPs == ["192.0.2.0/24"]
    assert host.Services is not None
    assert Service(Proto="peerapi4", Port=58436) in host.Services
    assert host.sshHostKeys is not None
    assert host.sshHostKeys[0].startswith("ssh-ed25519 ")
    assert host.NetInfo == NetInfo(
        PreferredDERP=900,
        WorkingIPv6=False,
        OSHasIPv6=True,
        WorkingUDP=False,
        WorkingICMPv4=True,
        UPnP=False,
        PMP=False,
        PCP=False,
    )
    assert host.StateEncrypted is (False if client == "1.102.4" else None)


def test_three_states_stay_three() -> None:
    for text, value in (("{}", None), ('{"WorkingUDP":null}', None), ('{"WorkingUDP":false}', False)):
        assert decode_request(text.encode(), NetInfo).WorkingUDP is value
    assert encode(NetInfo(WorkingUDP=False)) == b'{"WorkingUDP":false}'


def test_the_tpm_and_the_largest_number_of_go() -> None:
    text = b'{"TPM":{"Vendor":"v","FirmwareVersion":18446744073709551615,"SpecRevision":138}}'
    assert encode(decode_request(text, Hostinfo)) == text
