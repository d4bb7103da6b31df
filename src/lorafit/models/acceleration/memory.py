"""How the C library deals with the memory of tensors that come and go every step."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_KIBIBYTE, _MEBIBYTE = 1 << 10, 1 << 20


def keep_freed_memory() -> bool:
    """Let this process keep memory that was freed, instead of handing it back to the system and asking anew.

    Left to itself, glibc gives large blocks back at once; every step then waits for the kernel to clear fresh pages
    (`tests/models/acceleration/test_memory.py` counts them). Blocks up to 32 MiB, the most that glibc allows, come from
    its heap from now on.

    Returns:
        Whether it was done; only glibc on Linux can.
    """
    settings = ((_M_MMAP_THRESHOLD, 32 * _MEBIBYTE), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 64 * _MEBIBYTE))
    done = [_set_allocation(name, value) for name, value in settings]
    return all(done)


@contextmanager
def give_back_at_once() -> Iterator[None]:
    """Inside the block, give blocks back as soon as they are freed, so that the peak memory is what is really in use.

    Where `release_freed_memory` would cut up the heap, on which every later step then is slower, this leaves the heap
    alone. After the block freed memory is kept.
    """
    _set_allocation(_M_MMAP_THRESHOLD, 128 * _KIBIBYTE)
    try:
        yield
    finally:
        keep_freed_memory()


def _set_allocation(name: int, value: int) -> bool:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    return mallopt is not None and mallopt(name, value) == 1


def release_freed_memory() -> None:
    """Hand memory that is free back to the system all the same, between two jobs; where glibc can."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
