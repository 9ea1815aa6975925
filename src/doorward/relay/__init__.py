"""The relay: DERP over an HTTP upgrade or a WebSocket, and STUN on UDP (protocol note derp.md).

Nodes that find no direct path to each other meet here. Packets are sealed end to end; the relay sees two keys and a
length. A connection's life::

    GREETING --ClientInfo--> ADMITTING --admit says yes--> OPEN --> CLOSED
        |                        |                           |
        +------ 10 s ------------+-- no: closed, no word     +-- a broken rule, a stalled reader, a deleted node

``hub`` and ``connection`` are pure and decide everything: who is here, where a packet goes, what is dropped.
``session`` walks one connection through its life, ``server`` is the whole: keep-alives, deadlines, HTTP routes.
``websocket`` carries the same bytes for browsers, ``stun`` tells nodes their public address, ``certificate`` makes
the certificate by which clients start faster and the pin by which they trust ours.

The relays of one region are one to their clients: ``mesh`` keeps a line from ours to each other, and the hub passes on
what is for a node there. ``verify`` asks control whom to admit, for a relay that runs by itself.

The package knows nothing of nodes: a function says who is admitted.
"""

from doorward.relay.connection import Limits
from doorward.relay.server import Relay

__all__ = ["Limits", "Relay"]
