"""What each worker of a ``serve`` is told by the parent: the settings, and which of how many workers it is. Loads little."""

from datetime import datetime
from pathlib import Path

import msgspec

from doorward.config import Settings, decode, encode


class Team(msgspec.Struct, frozen=True, kw_only=True):
    """The workers of one ``serve``, as one of them sees it."""

    number: int = 1  # which one it is, from 1
    paths: tuple[Path, ...] = ()  # the Unix socket of each, in order; empty where there is only one
    mesh_key: str = ""  # of their relay, a secret made at each start; empty where there is only one
    started: datetime | None = None  # when the ``serve`` did

    def __repr__(self) -> str:
        return f"Team({self.number} of {self.size})"

    @property
    def size(self) -> int:
        """How many there are meant to be."""
        return max(1, len(self.paths))

    def others(self) -> list[Path]:
        """The Unix sockets of the others."""
        return [path for number, path in enumerate(self.paths, 1) if number != self.number]

    def path_of(self, number: int) -> Path | None:
        """The Unix socket of one of the others; None for one that there is not, and for ourselves."""
        if number == self.number or not 1 <= number <= len(self.paths):
            return None
        return self.paths[number - 1]

    def installation(self, directory: str) -> str:
        """What this worker is called in the store (``model.Process``), by what its data directory is called."""
        return directory if self.number == 1 else f"{directory}/{self.number}"


class _Payload(msgspec.Struct, frozen=True):
    settings: msgspec.Raw
    team: Team


def encode_payload(settings: Settings, team: Team) -> bytes:
    """For the worker's eyes alone: it may hold the database's password."""
    return msgspec.json.encode(_Payload(msgspec.Raw(encode(settings)), team), enc_hook=str)


def decode_payload(payload: bytes) -> tuple[Settings, Team]:
    """What ``encode_payload`` made."""
    found = msgspec.json.decode(payload, type=_Payload, dec_hook=lambda kind, value: kind(value))
    return decode(bytes(found.settings)), found.team
