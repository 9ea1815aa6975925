"""The recorded and hand-made messages of the coordination protocol, with the type that each is read as."""

import json
from pathlib import Path
from typing import Any

import msgspec

from doorward.protocol.tailcfg import map as wire_map
from doorward.protocol.tailcfg import node, register, requests

VECTORS = Path(__file__).parent.parent / "vectors"

TYPES: dict[str, type[msgspec.Struct]] = {
    name: kind
    for module in (wire_map, node, register, requests)
    for name, kind in vars(module).items()
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct)
}


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A request as a stock client wrote it."""

    name: str
    client: str
    type: str
    method: str
    path: str
    json: str

    @property
    def kind(self) -> Any:
        return TYPES[self.type]

    @property
    def plain(self) -> dict[str, Any]:
        result: dict[str, Any] = json.loads(self.json)
        return result


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A message in the form in which it is written."""

    name: str
    type: str
    json: str

    @property
    def kind(self) -> Any:
        return TYPES[self.type]


class _Requests(msgspec.Struct, forbid_unknown_fields=True):
    about: str
    requests: list[Request]


class _Messages(msgspec.Struct, forbid_unknown_fields=True):
    about: str
    messages: list[Message]


REQUESTS = msgspec.json.decode((VECTORS / "tailcfg_requests.json").read_bytes(), type=_Requests).requests
MESSAGES = msgspec.json.decode((VECTORS / "tailcfg_messages.json").read_bytes(), type=_Messages).messages


def recorded(client: str, name: str) -> Request:
    """The one request of that client and name."""
    (found,) = [request for request in REQUESTS if (request.client, request.name) == (client, name)]
    return found
