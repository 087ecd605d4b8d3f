"""glibc's allocator, told to keep what it has.

Every step allocates and frees the same few megabytes. By default glibc returns such blocks to the kernel and gets them
back as fresh zero pages, which costs more than the arithmetic of a small model: measured 25 -> 42 tokens/s for one
stream.
"""

import ctypes
import sys

# malloc.h
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_SETTINGS = {_M_MMAP_THRESHOLD: 32 * 2**20, _M_TRIM_THRESHOLD: 2**31 - 1, _M_TOP_PAD: 64 * 2**20}


def keep_memory() -> None:
    """Serve all but the largest blocks from memory that is never given back. Without glibc: nothing."""
    if sys.platform == "linux" and hasattr(_libc := ctypes.CDLL(None), "mallopt"):
        for option, value in _SETTINGS.items():
            if _libc.mallopt(option, value) != 1:
                raise OSError(f"mallopt({option}, {value}) was refused")


def trim() -> None:
    """Give back what is free now: after loading, which needs other blocks than computing."""
    if sys.platform == "linux" and hasattr(_libc := ctypes.CDLL(None), "malloc_trim"):
        _libc.malloc_trim(0)
