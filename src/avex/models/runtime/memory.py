"""How a process keeps the memory it works in."""

from __future__ import annotations

import ctypes
import os
import platform
from functools import cache

# Parameters of glibc's `mallopt` (malloc.h).
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
# Bytes. Blocks up to the first size come from the heap, whose free end stays up to the second; by the third the
# heap of a thread grows, which shrinks and grows again with each layer otherwise.
_SETTINGS = {_M_MMAP_THRESHOLD: 256 << 20, _M_TRIM_THRESHOLD: 1 << 30, _M_TOP_PAD: 16 << 20}
# The most that glibc before 2.35 takes for blocks.
_OLD_MOST = 32 << 20


@cache
def keep_freed_memory() -> bool:
    """Tell the C library to use freed memory again instead of giving it back to the system at once.

    A network's maps are otherwise fetched from the system and zeroed, page by page, at every layer of every batch:
    5 to 15 % of the time on a CPU. The process then keeps up to 1 GB that it needed once. Only glibc (Linux) is
    told, once, and only where the environment (`MALLOC_...`, `GLIBC_TUNABLES`) says nothing else about it.

    Returns:
        Whether the settings were made.

    Example:
        >>> isinstance(keep_freed_memory(), bool)
        True
    """
    if platform.libc_ver()[0] != "glibc" or _environment_decides():
        return False
    libc = ctypes.CDLL(None)
    made = [
        libc.mallopt(name, value) or libc.mallopt(name, min(value, _OLD_MOST))
        for name, value in _SETTINGS.items()
    ]
    return all(made)


def _environment_decides() -> bool:
    return any(name == "GLIBC_TUNABLES" or name.startswith("MALLOC_") for name in os.environ)
