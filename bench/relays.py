"""The relay processes that are measured, and the clients that connect to them.

``python -m bench.relays serve [--tls] [--asyncio]`` is one of ours, for the measurements to start; it prints its port.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop
from tests.support.programs import require
from tests.support.relay import HOST, listening, make_leaf, node_key, running_relay

from bench.machine import Process, lift_limits
from doorward.engine.derp import DERPClient, pinned_context
from doorward.engine.processes import tied_to_us

DERPER, OURS, PLAIN_LOOP = "derper", "doorward", "doorward on asyncio"


@dataclass(frozen=True)
class Relay:
    """A relay process."""

    process: Process
    port: int
    tls: bool

    async def connect(self, number: int, **options: Any) -> DERPClient:
        """A client with a key of that number."""
        if self.tls:
            options["context"] = pinned_context()
        return await DERPClient.connect(HOST, self.port, node_key(number), entropy=os.urandom, **options)


def swap(client: DERPClient, protocol: asyncio.Protocol) -> Any:
    """Give the client's connection, which has shaken hands, to the load; returns the transport."""
    transport = client._transport  # noqa: SLF001 - the handshake was its work, the load is ours
    assert transport is not None
    transport.pause_reading()
    transport.set_protocol(protocol)
    transport.resume_reading()
    return transport


@contextmanager
def started(name: str, *, tls: bool) -> Iterator[Relay]:
    """One of DERPER, OURS and PLAIN_LOOP. Raises ``Missing`` when there is no derper."""
    with derper(tls) if name == DERPER else ours(tls, plain_loop=name == PLAIN_LOOP) as relay:
        yield relay


@contextmanager
def derper(tls: bool) -> Iterator[Relay]:
    """Stock derper, held to one core by its runtime."""
    with tempfile.TemporaryDirectory() as name, listening() as bound:
        port = bound.getsockname()[1]
        bound.close()
        folder, leaf = Path(name), make_leaf()
        (folder / f"{HOST}.crt").write_bytes(leaf.pem)
        (folder / f"{HOST}.key").write_bytes(leaf.key_pem)
        command = [str(require("derper")), f"-a={HOST}:{port}", "-http-port=-1", "-stun=false"]
        command += [f"-c={folder}/c", f"-hostname={HOST}"]
        command += ["-certmode=manual", f"-certdir={folder}"] if tls else []
        with subprocess.Popen(
            tied_to_us(command), env={"GOMAXPROCS": "1", "HOME": name}, stderr=subprocess.DEVNULL
        ) as process:
            try:
                uvloop.run(_listens(port))
                yield Relay(Process(process.pid), port, tls)
            finally:
                process.kill()


async def _listens(port: int) -> None:
    async with asyncio.timeout(10):
        while True:
            try:
                _, writer = await asyncio.open_connection(HOST, port)
            except OSError:
                await asyncio.sleep(0.02)
                continue
            writer.close()
            return


@contextmanager
def ours(tls: bool, *, plain_loop: bool = False) -> Iterator[Relay]:
    """Our relay behind its listener, on uvloop or on asyncio's own loop."""
    command = [sys.executable, "-m", "bench.relays", "serve"]
    command += [word for word, wanted in (("--tls", tls), ("--asyncio", plain_loop)) if wanted]
    with subprocess.Popen(tied_to_us(command), stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield Relay(Process(process.pid), int(process.stdout.readline()), tls)
        finally:
            process.kill()


def take_turns(
    relays: dict[str, Relay], rounds: int, measure: Callable[[Relay], Any]
) -> dict[str, list[Any]]:
    """Measure each relay in every round."""
    found: dict[str, list[Any]] = {name: [] for name in relays}
    for _ in range(rounds):
        for name, relay in relays.items():
            found[name].append(uvloop.run(measure(relay)))
    return found


async def _serve(tls: bool) -> None:
    async with running_relay(tls=tls) as relay:
        print(relay.port, flush=True)
        await asyncio.Event().wait()


def main() -> None:
    """Be a relay until killed."""
    parser = argparse.ArgumentParser(prog="python -m bench.relays")
    parser.add_argument("what", choices=["serve"])
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--asyncio", action="store_true")
    asked = parser.parse_args()
    lift_limits()
    (asyncio.run if asked.asyncio else uvloop.run)(_serve(asked.tls))


if __name__ == "__main__":
    main()
