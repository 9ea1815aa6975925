"""The networks that other tests build on do what they say: real packets, between real sockets in namespaces."""

import subprocess
import sys
from collections.abc import Iterator

import pytest
from tests.support.clients import StockClient
from tests.support.netns import Host, switch

pytestmark = [pytest.mark.interop, pytest.mark.root]

# Sends the datagrams 0..N-1 or one TCP greeting to the host and port it is given.
SEND = """
import socket, sys
kind, host, port, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
family = socket.AF_INET6 if ":" in host else socket.AF_INET
if kind == "udp":
    with socket.socket(family, socket.SOCK_DGRAM) as one:
        for number in range(count):
            one.sendto(b"%d" % number, (host, port))
else:
    with socket.create_connection((host, port), timeout=40) as one:
        one.sendall(b"hello")
"""
# Prints its port, then how many datagrams have come until its input ends and a moment later, or the TCP greeting.
RECEIVE = """
import socket, sys
kind, family = sys.argv[1], socket.AF_INET6 if sys.argv[2] == "6" else socket.AF_INET
one = socket.socket(family, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM)
one.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", 0))
if kind == "tcp":
    one.listen()
print(one.getsockname()[1], flush=True)
one.settimeout(0.3 if kind == "udp" else 40)
if kind == "udp":
    sys.stdin.read()  # the socket's buffer holds what comes until all has been sent
seen = 0
try:
    if kind == "tcp":
        connection, _ = one.accept()
        seen = len(connection.recv(100))
    else:
        while True:
            one.recv(100)
            seen += 1
except TimeoutError:
    pass
print(seen, flush=True)
"""


@pytest.fixture
def pair() -> Iterator[tuple[Host, Host]]:
    with switch() as net, net.host("a", ipv6=True) as a, net.host("b", ipv6=True) as b:
        yield a, b


def _seen(sender: Host, receiver: Host, kind: str, *, count: int = 20, family: str = "4") -> int:
    # Datagrams are there as soon as they are sent or not at all; a connection may wait for an address to be resolved again.
    command = receiver.command(sys.executable, "-c", RECEIVE, kind, family)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        address = receiver.address if family == "4" else f"fd00:db8::{receiver.address.rpartition('.')[2]}"
        sender.run(sys.executable, "-c", SEND, kind, address, port, str(count), check=False)
        process.stdin.close()
        return int(process.stdout.readline())


@pytest.mark.parametrize("family", ["4", "6"])
def test_udp_is_dropped_both_ways_and_tcp_is_not(pair: tuple[Host, Host], family: str) -> None:
    a, b = pair
    assert _seen(a, b, "udp", family=family) == 20
    with a.without_udp():
        assert _seen(a, b, "udp", family=family) == 0
        assert _seen(b, a, "udp", family=family) == 0
        assert _seen(a, b, "tcp", family=family) == 5
    assert _seen(a, b, "udp", family=family) == 20


def test_a_share_of_packets_is_lost(pair: tuple[Host, Host]) -> None:
    a, b = pair
    # No more at once than a socket's buffer holds.
    assert _seen(a, b, "udp", count=200) == 200
    with a.losing(0.5):
        # 200 throws of a coin: outside these bounds once in 10^12 runs.
        assert 50 < _seen(a, b, "udp", count=200) < 150
    with a.losing(1):
        assert _seen(a, b, "udp", count=20) == 0


def test_a_link_can_be_unplugged(pair: tuple[Host, Host]) -> None:
    a, b = pair
    with b.unplugged():
        assert _seen(a, b, "udp") == 0
    assert _seen(a, b, "tcp") == 5


def test_nothing_is_left_behind() -> None:
    with switch() as net, net.host("a") as host:
        names = (net.name, host.name)
        there = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
        assert all(name in there for name in names)
    there = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    assert not any(name in there for name in names)


def _namespace_of(pid: int) -> str:
    return subprocess.run(
        ["ip", "netns", "identify", str(pid)], capture_output=True, text=True, check=True
    ).stdout.strip()


async def test_a_stock_client_lives_in_a_namespace(pair: tuple[Host, Host]) -> None:
    async with StockClient("inside", namespace=pair[0].name) as client:
        assert (await client.status())["BackendState"] == "NeedsLogin"
        assert _namespace_of(client.pid) == pair[0].name
