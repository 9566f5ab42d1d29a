"""How a process keeps the memory it works in."""

from __future__ import annotations

import ctypes
import os
import platform

# Parameters of glibc's `mallopt` (malloc.h).
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
# Bytes; the padding is what the heap of a thread grows by, which shrinks and grows again with each layer otherwise.
_SETTINGS = {_M_MMAP_THRESHOLD: 1 << 30, _M_TRIM_THRESHOLD: 2**31 - 1, _M_TOP_PAD: 16 << 20}


def keep_freed_memory() -> bool:
    """Tell the C library to use freed memory again instead of giving it back to the system at once.

    A network's maps of 32 MB and more are otherwise fetched from the system and zeroed, page by page, at every
    layer of every batch: 5 to 10 % of the time on a CPU. The process then keeps what its largest batch took.
    Only glibc (Linux) is told, and only where the environment says nothing else about it.

    Returns:
        Whether the setting was made.

    Example:
        >>> isinstance(keep_freed_memory(), bool)
        True
    """
    if platform.libc_ver()[0] != "glibc" or _environment_decides():
        return False
    libc = ctypes.CDLL(None)
    made = [libc.mallopt(name, value) for name, value in _SETTINGS.items()]
    return all(made)


def _environment_decides() -> bool:
    return any(name == "GLIBC_TUNABLES" or name.startswith("MALLOC_") for name in os.environ)
