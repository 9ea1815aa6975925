"""What several doorwards on one PostgreSQL tell each other about ACME: whose turn it is, what proves a name, what was had.

A balancer in front of them sends the authority to any of them, so each must know every answer. And one certificate is enough
for all: authorities give few for the same name in a week. So one orders, whoever has the turn, and the others take what it
got. The turn lasts as long as its process lives.

A certificate's key is a secret, and the database must not hold any (``store.secrets``). It is kept there sealed, by a key that
follows from the control key, which all of them have as a file and which decision 8 asks to be copied to each.
"""

import asyncio
import base64
import os
from typing import NamedTuple

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from doorward.errors import DoorwardError
from doorward.model import Process
from doorward.server.acme.folder import Answer
from doorward.store import Connection, Database, processes, settings
from doorward.tailnet.neighbours import LEASE, Neighbours
from doorward.telemetry import log

HEARD = 5.0  # seconds until every other doorward has seen what was told: each looks every two

_NONCE = 12  # bytes
_log = log("acme")


class Had(NamedTuple):
    """A certificate that one of us got."""

    directory: str  # of the authority
    pem: bytes  # key, leaf and chain


class Seen(NamedTuple):
    """What the others have."""

    answers: tuple[Answer, ...]
    certificates: dict[str, Had]  # by host


class _Turn(msgspec.Struct, frozen=True):
    process: int
    boot: int
    answer: Answer | None = None


class _Held(msgspec.Struct, frozen=True):
    directory: str
    sealed: str


class Sharing:
    """The word with the others.

    Args:
        database: the one that all share.
        neighbours: who they are.
        me: which process this is.
        secret: the control key's own bytes, the same for all.
    """

    def __init__(self, database: Database, neighbours: Neighbours, me: Process, secret: bytes) -> None:
        self._database = database
        self._neighbours = neighbours
        self._me = me
        self._cipher = ChaCha20Poly1305(
            HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=b"doorward acme certificate").derive(
                secret
            )
        )
        self._opened: dict[str, tuple[str, bytes]] = {}  # by host, what was read last and what it is

    def alone(self) -> bool:
        """Whether nobody but workers of our own ``serve``, who have the same folder, lives beside us."""
        ours = {one.id for one in self._neighbours.siblings}
        return all(one.id in ours for one in self._neighbours.others)

    async def claim(self, host: str) -> bool:
        """Take the turn to order for ``host``; False while another has it. Raises Unavailable."""
        return await self._database.run(_claim, host, self._me)

    async def release(self, host: str) -> None:
        """Give the turn back. Where that fails it ends with this process."""
        try:
            await self._database.run(settings.remove, _turn_key(host))
        except DoorwardError as error:
            _log.info("a turn could not be given back", host=host, reason=error.message)

    async def tell(self, host: str, answer: Answer | None) -> None:
        """Tell the others what proves ``host``, which it is our turn to order for, and wait until they know. Raises Unavailable.

        None: nothing does any more.
        """
        await self._database.run(settings.put, _turn_key(host), _Turn(self._me.id, self._me.boot, answer))
        if answer is not None and not self.alone():
            await asyncio.sleep(HEARD)

    async def pass_on(self, host: str, directory: str, pem: bytes) -> None:
        """Leave a certificate for the others, also for those who come later. Where that fails they order one of their own."""
        try:
            await self._database.run(settings.put, _held_key(host), _Held(directory, self._seal(host, pem)))
        except DoorwardError as error:
            _log.warning("a certificate was not passed on", host=host, reason=error.message)

    async def look(self, hosts: tuple[str, ...]) -> Seen:
        """What the others have now, and left. Raises Unavailable."""
        answers, held = await self._database.read(_look, hosts, self._me)
        found = {
            host: Had(one.directory, pem)
            for host, one in held.items()
            if (pem := self._open(host, one.sealed))
        }
        return Seen(answers, found)

    def _seal(self, host: str, pem: bytes) -> str:
        nonce = os.urandom(_NONCE)
        return base64.b64encode(nonce + self._cipher.encrypt(nonce, pem, host.encode())).decode()

    def _open(self, host: str, text: str) -> bytes | None:
        if self._opened.get(host, ("",))[0] != text:
            try:
                sealed = base64.b64decode(text, validate=True)
                opened = self._cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], host.encode())
            except (InvalidTag, ValueError):
                _log.warning("another doorward's certificate cannot be opened", host=host)
                opened = b""
            self._opened[host] = (text, opened)
        return self._opened[host][1] or None


def _turn_key(host: str) -> str:
    return f"acme.turn.{host}"


def _held_key(host: str) -> str:
    return f"acme.held.{host}"


def _claim(connection: Connection, host: str, me: Process) -> bool:
    turn = settings.get(connection, _turn_key(host), _Turn)
    if turn is not None and turn.process != me.id:
        for one in processes.alive(connection, LEASE):
            if (one.id, one.boot) == (turn.process, turn.boot):
                return False
    settings.put(connection, _turn_key(host), _Turn(me.id, me.boot))
    return True


def _look(
    connection: Connection, hosts: tuple[str, ...], me: Process
) -> tuple[tuple[Answer, ...], dict[str, _Held]]:
    living = {(one.id, one.boot) for one in processes.alive(connection, LEASE)} - {(me.id, me.boot)}
    turns = [settings.get(connection, _turn_key(host), _Turn) for host in hosts]
    held = {host: settings.get(connection, _held_key(host), _Held) for host in hosts}
    return (
        tuple(
            turn.answer
            for turn in turns
            if turn is not None and turn.answer is not None and (turn.process, turn.boot) in living
        ),
        {host: one for host, one in held.items() if one is not None},
    )
