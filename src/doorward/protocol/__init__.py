"""Wire formats, pure: bytes to typed messages and back.

No socket, event loop, clock, environment or randomness of its own: keys and entropy are arguments, time is an argument.
A connection object has ``receive(data)``, verbs that send, and ``data_to_send()``; it keeps no reference to a
transport. May import only ``doorward.errors`` and the libraries of its layer (msgspec, cryptography, PyNaCl, zstd).
"""
