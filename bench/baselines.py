"""What the rows of the coordination server are measured beside: the part of the work that anybody would have.

None is a whole server. Each is what the obvious way to do the central step costs on this machine at this moment, so that a
figure says something about doorward and not about the machine.
"""

import asyncio
import json
import os
import socket
import sqlite3
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import uvloop
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from h2.config import H2Configuration
from h2.connection import H2Connection

from bench.machine import Process, lift_limits
from doorward.engine.processes import tied_to_us
from doorward.protocol.keys import MachinePrivate
from doorward.protocol.noise import ClientHandshake, ServerHandshake

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


def commits(seconds: float) -> float:
    """Durable commits a second of SQLite alone: WAL, one row and one fsync each."""
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(sqlite3.connect(Path(folder) / "bare.db", isolation_level=None)) as database,
    ):
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.execute("CREATE TABLE nodes (id INTEGER PRIMARY KEY, text TEXT)")
        count, began = 0, time.perf_counter()
        while time.perf_counter() - began < seconds:
            database.execute("INSERT INTO nodes (text) VALUES (?)", ("x" * 500,))
            count += 1
        return count / (time.perf_counter() - began)


def peer(number: int) -> dict[str, Any]:
    """A peer as a map has it, with its usual fields."""
    return {
        "ID": number,
        "StableID": f"n{number:011d}",
        "Name": f"bench-{number}.tailnet.internal.",
        "User": 1,
        "Key": f"nodekey:{number:064x}",
        "KeyExpiry": "2030-01-01T00:00:00Z",
        "Machine": f"mkey:{number:064x}",
        "DiscoKey": f"discokey:{number:064x}",
        "Addresses": [f"100.64.{number >> 8}.{number & 255}/32", f"fd7a:115c:a1e0::{number:x}/128"],
        "AllowedIPs": [f"100.64.{number >> 8}.{number & 255}/32", f"fd7a:115c:a1e0::{number:x}/128"],
        "Endpoints": ["192.0.2.1:40000"],
        "HomeDERP": 900,
        "Hostinfo": {"OS": "linux", "Hostname": f"bench-{number}", "Services": [{"Proto": "peerapi4", "Port": 40000}]},
        "Created": "2026-01-01T00:00:00Z",
        "Cap": 130,
        "Online": True,
        "MachineAuthorized": True,
        "CapMap": {"https://tailscale.com/cap/is-admin": None},
    }  # fmt: skip


def change(streams: int) -> float:
    """CPU seconds for each stream of one change with nothing shared.

    JSON of the standard library, zstd, the HTTP/2 library, the AEAD and a write to a socket, for every stream anew; there is no
    client at the other end.
    """
    message = {"PeersChanged": [peer(1)]}
    cipher, nonce = ChaCha20Poly1305(bytes(32)), bytes(12)
    here, there = socket.socketpair()
    with here, there:
        connections = [_open_stream() for _ in range(streams)]
        began = time.process_time()
        for connection in connections:
            packed = zstd.compress(json.dumps(message).encode(), level=1)
            connection.send_data(1, len(packed).to_bytes(4, "little") + packed)
            here.send(cipher.encrypt(nonce, connection.data_to_send(), None))
            there.recv(65536)
        return (time.process_time() - began) / streams


def _open_stream() -> H2Connection:
    client = H2Connection(H2Configuration(client_side=True))
    server = H2Connection(H2Configuration(client_side=False))
    client.initiate_connection()
    server.initiate_connection()
    request = [(":method", "POST"), (":path", "/machine/map"), (":scheme", "https"), (":authority", "x")]
    client.send_headers(1, request, end_stream=True)
    server.receive_data(client.data_to_send())
    server.send_headers(1, [(":status", "200")])
    server.data_to_send()
    return server


def maps(nodes: int) -> float:
    """CPU seconds to encode everyone's map of everyone with the standard library's JSON, once each, and nothing else."""
    peers = [peer(number) for number in range(nodes)]
    began = time.process_time()
    for _ in range(nodes):
        json.dumps({"Peers": peers})
    return time.process_time() - began


def handshakes(nodes: int) -> float:
    """CPU seconds of as many Noise handshakes, the server's side, and nothing else; from a sample of at most 300."""
    sample = min(nodes, 300)
    ours = MachinePrivate.from_entropy(os.urandom(32))
    hellos = [ClientHandshake(_key(), ours.public(), _key(), 130).initiation for _ in range(sample)]
    began = time.process_time()
    for hello in hellos:
        ServerHandshake(ours, _key()).receive(hello)
    return (time.process_time() - began) / sample * nodes


def _key() -> MachinePrivate:
    return MachinePrivate.from_entropy(os.urandom(32))


async def streams(count: int) -> float:
    """Resident megabytes of a process on uvloop that has loaded the same libraries and holds as many bare TCP streams."""
    process = await asyncio.create_subprocess_exec(
        *tied_to_us([sys.executable, "-m", "bench.baselines"]), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        port = int(await process.stdout.readline())
        writers = [(await asyncio.open_connection("127.0.0.1", port))[1] for _ in range(count)]
        await asyncio.sleep(0.3)
        held = Process(process.pid).kilobytes() / 1024
        for writer in writers:
            writer.close()
    finally:
        process.kill()
        await process.wait()
    return held


async def _hold() -> None:
    server = await asyncio.start_server(_keep, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def _keep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()
    writer.close()


if __name__ == "__main__":
    import doorward.server.worker  # noqa: F401 - what the real worker has loaded

    lift_limits()
    uvloop.run(_hold())
