"""What a TLS connection reads into on asyncio's own loop. uvloop has its own way and is left alone."""

import asyncio
import asyncio.sslproto
from typing import Any, Final

# A TLS record has 16 KiB at most; two of them keep reads of bulk data large enough.
TLS_READ_BUFFER: Final = 32 * 1024


class ReadBuffer:
    """One read buffer for all TLS connections that one loop serves.

    asyncio gives each connection 256 KiB for life, which is most of what an idle one costs. But its loops on POSIX read
    into a connection's buffer and hand the bytes on to OpenSSL in one step, so no two connections ever need it at once.
    It leans on names that asyncio does not promise: where they are not there, a connection keeps a small buffer of its own.
    """

    def __init__(self) -> None:
        # Until a connection is made it has its own, and what it decrypts at once is bounded by the same number.
        asyncio.sslproto.SSLProtocol.max_size = TLS_READ_BUFFER
        self._bytes = bytearray(TLS_READ_BUFFER)
        self._view = memoryview(self._bytes)

    def lend(self, transport: Any) -> bool:
        """Let a connection that was just made read into this buffer. False: it has no TLS, or a loop of another kind."""
        protocol = getattr(transport, "_ssl_protocol", None)
        # Its own must be no larger, or it would ask for more than this one has.
        if not isinstance(protocol, asyncio.sslproto.SSLProtocol) or protocol.max_size > len(self._bytes):
            return False
        if not all(hasattr(protocol, name) for name in ("_ssl_buffer", "_ssl_buffer_view")):
            return False
        setattr(protocol, "_ssl_buffer", self._bytes)  # noqa: B010 - mypy's picture of asyncio has no such name
        setattr(protocol, "_ssl_buffer_view", self._view)  # noqa: B010 - as above
        return True
