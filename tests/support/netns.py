"""Networks of their own for tests: namespaces joined by a switch, whose links can lose packets or all UDP.

::

    with switch() as net, net.host("a") as a, net.host("b") as b:
        a.run("curl", b.address)
        with a.without_udp():
            ...

Needs root and iproute2, and nothing else: packets are dropped by a few lines of classic BPF on the switch's side of a link
(tc, clsact), which every kernel has that can be told to filter at all. Where a kernel cannot, the test is skipped. What is
made here carries the process id in its name and is removed at the end, however the test ends.
"""

import itertools
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tests.support.programs import require, require_root
from tests.support.require import missing

from doorward.engine.processes import tied_to_us

_numbers = itertools.count(1)

# Classic BPF, as ``tc filter ... bpf da bytecode`` takes it: an instruction is "code jump-if-true jump-if-false operand".
_DROP = "6 0 0 2"  # TC_ACT_SHOT
_PASS = "6 0 0 4294967295"  # TC_ACT_UNSPEC: go on
_UDP = (
    "40 0 0 12",  # the frame's protocol
    "21 0 2 2048",  # IPv4: the next one, else two further
    "48 0 0 23",  # its protocol
    "21 3 4 17",  # UDP is dropped
    "21 0 3 34525",  # IPv6
    "48 0 0 20",  # its next header
    "21 0 1 17",
    _DROP,
    _PASS,
)
_RANDOM = 4294963256  # SKF_AD_OFF + SKF_AD_RANDOM

# Listens outside, where its socket was made, and connects where it runs.
_CARRIER = """
import asyncio, socket, sys

async def copy(source, sink):
    try:
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
    except OSError:
        pass
    sink.close()

async def carry(reader, writer):
    try:
        there, pipe = await asyncio.open_connection(sys.argv[2], int(sys.argv[3]))
    except OSError:
        writer.close()
        return
    await asyncio.gather(copy(reader, pipe), copy(there, writer))

async def main():
    server = await asyncio.start_server(carry, sock=socket.socket(fileno=int(sys.argv[1])))
    await server.serve_forever()

asyncio.run(main())
"""


class Host:
    """A namespace on a switch. ``name`` is for ``StockClient(namespace=...)``."""

    def __init__(self, name: str, switch_name: str, port: str, address: str) -> None:
        self.name = name
        self.address = address
        self._switch = switch_name
        self._port = port

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run ``command`` inside."""
        return subprocess.run(self.command(*command), capture_output=True, text=True, check=check, timeout=30)

    def command(self, *command: str) -> list[str]:
        """The arguments that run ``command`` inside."""
        return [str(require("ip")), "netns", "exec", self.name, *command]

    @contextmanager
    def carrying(self, port: int, address: str) -> Iterator[None]:
        """Whoever comes to ``port`` of this machine's loopback is carried through this host to that port of ``address``.

        So that what runs on this machine has the host's link before it, and no other way.
        """
        with socket.create_server(("127.0.0.1", port)) as listener:
            carrier = subprocess.Popen(
                tied_to_us(
                    self.command(
                        sys.executable, "-I", "-c", _CARRIER, str(listener.fileno()), address, str(port)
                    )
                ),
                pass_fds=[listener.fileno()],
            )
            try:
                yield
            finally:
                carrier.kill()
                carrier.wait()

    @contextmanager
    def without_udp(self) -> Iterator[None]:
        """No UDP, either way, IPv4 or IPv6, until the end of the block: dropped without a word, as firewalls do it."""
        with self._filter(_UDP):
            yield

    @contextmanager
    def losing(self, share: float) -> Iterator[None]:
        """Lose that share (0 to 1) of all packets, each way, until the end of the block."""
        with self._filter((f"32 0 0 {_RANDOM}", f"53 1 0 {int(share * (2**32 - 1))}", _DROP, _PASS)):
            yield

    @contextmanager
    def unplugged(self) -> Iterator[None]:
        """No link until the end of the block."""
        _ip("-n", self._switch, "link", "set", self._port, "down")
        try:
            yield
        finally:
            _ip("-n", self._switch, "link", "set", self._port, "up")

    @contextmanager
    def _filter(self, program: Sequence[str]) -> Iterator[None]:
        tc = [str(require("ip")), "netns", "exec", self._switch, str(require("tc"))]
        code = ",".join((str(len(program)), *program))
        _run([*tc, "qdisc", "add", "dev", self._port, "clsact"])
        try:
            for way in ("ingress", "egress"):
                _run([*tc, "filter", "add", "dev", self._port, way, "bpf", "da", "bytecode", code])
            yield
        finally:
            _run([*tc, "qdisc", "del", "dev", self._port, "clsact"])


class Switch:
    """A namespace with a bridge that hosts are joined to; ``address`` is its own, the hosts' way to it."""

    def __init__(self, name: str, number: int) -> None:
        self.name = name
        self._network = f"10.{200 + number // 250 % 50}.{number % 250}"
        self.address = f"{self._network}.1"
        self._hosts = itertools.count(2)

    @contextmanager
    def host(self, label: str, *, ipv6: bool = False) -> Iterator[Host]:
        """A new host, up and addressed; with ``ipv6`` it has the address ``fd00:db8::N`` too."""
        number = next(self._hosts)
        name, port = f"{self.name}-{label}", f"p{number}"
        with _namespace(name):
            _ip(
                "link", "add", "eth0", "netns", name, "type", "veth", "peer", "name", port, "netns", self.name
            )
            address = f"{self._network}.{number}"
            _ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
            if ipv6:
                _ip("-n", name, "addr", "add", f"fd00:db8::{number}/64", "dev", "eth0", "nodad")
            _ip("-n", name, "link", "set", "eth0", "up")
            _ip("-n", self.name, "link", "set", port, "master", "br0", "up")
            # A default route makes programs believe that they are on a network at all.
            _ip("-n", name, "route", "add", "default", "via", self.address)
            yield Host(name, self.name, port, address)


@contextmanager
def switch() -> Iterator[Switch]:
    """A switch without hosts. Skips where the run is not root, or the kernel has no namespaces or bridges."""
    require_root()
    number = next(_numbers)
    made = Switch(f"dw{os.getpid()}-{number}", os.getpid() + number)
    with _namespace(made.name):
        try:
            _ip("-n", made.name, "link", "add", "br0", "type", "bridge")
        except subprocess.CalledProcessError as error:
            missing(f"this kernel has no bridges: {error.stderr}")
        _ip("-n", made.name, "addr", "add", f"{made.address}/24", "dev", "br0")
        _ip("-n", made.name, "link", "set", "br0", "up")
        yield made


@contextmanager
def _namespace(name: str) -> Iterator[None]:
    _ip("netns", "add", name)
    try:
        _ip("-n", name, "link", "set", "lo", "up")
        yield
    finally:
        # Its links go with it, and their other ends; whatever still runs inside keeps a network without a name.
        _ip("netns", "del", name)


def _ip(*arguments: str) -> None:
    _run([str(require("ip")), *arguments])


def _run(command: Sequence[str]) -> None:
    subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
