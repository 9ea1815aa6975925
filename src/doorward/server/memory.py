"""How this process asks the system for memory."""

import ctypes
import sys
from typing import Final

# glibc's mallopt(3): blocks of at least so many bytes are mapped by themselves and given back when they are freed; and so
# much may be free at the end of the heap before that is given back.
_M_MMAP_THRESHOLD: Final = -3
_M_TRIM_THRESHOLD: Final = -1
# uvloop gives each TLS connection a read buffer of exactly this size and touches little of it.
LARGE_BLOCK: Final = 256 * 1024


def settle_memory() -> bool:
    """Keep large blocks apart from small ones for the life of the process; False where the C library knows no such thing.

    glibc starts so, but raises the limit to the largest block that was ever freed. From then on the read buffers of TLS
    connections lie between everything else, on pages that others made dirty: an idle connection costs twice the memory.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    # To set one of them stops glibc from adapting either; the second is what it would have come to: twice the first.
    return bool(mallopt(_M_MMAP_THRESHOLD, LARGE_BLOCK) and mallopt(_M_TRIM_THRESHOLD, 2 * LARGE_BLOCK))
