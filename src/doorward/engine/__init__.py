"""How doorward itself is on a tailnet: whose is this connection, connect to that node, how are we.

``base`` says what is asked (``Engine``); ``tailscaled`` answers by a stock daemon, the host's or a private one, over its
LocalAPI (``localapi``). ``programs`` finds the stock client, ``setup`` makes it where there is none, ``processes`` holds
children that never outlive us. Nothing here knows users or policy: an answer is a node's stable id, and what that node
may do is the snapshot's to say.
"""

from doorward.engine.base import Engine, EngineError, Ping, Status, Stream, WhoIs
from doorward.engine.programs import ClientPaths, ProgramError, find_client

__all__ = [
    "ClientPaths",
    "Engine",
    "EngineError",
    "Ping",
    "ProgramError",
    "Status",
    "Stream",
    "WhoIs",
    "find_client",
]
