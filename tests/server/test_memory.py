import ctypes
import subprocess
import sys

import pytest

# Whether a large block is mapped by itself after another one was freed, which is when glibc changes its mind.
ASK = """
import ctypes, sys
from doorward.server.memory import LARGE_BLOCK, settle_memory

class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()]

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
libc.mallinfo2.restype = Info
if sys.argv[1] == "settled":
    assert settle_memory()
libc.free(libc.malloc(LARGE_BLOCK))
before = libc.mallinfo2().hblks
libc.malloc(LARGE_BLOCK)
print(libc.mallinfo2().hblks - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="not glibc 2.33 or later")
@pytest.mark.parametrize(("how", "mapped"), [("settled", "1\n"), ("unsettled", "0\n")])
def test_large_blocks_stay_apart_after_one_was_freed(how: str, mapped: str) -> None:
    done = subprocess.run([sys.executable, "-c", ASK, how], capture_output=True, text=True, check=True)
    assert done.stdout == mapped
