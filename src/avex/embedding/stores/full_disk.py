"""What a full disk is, and what a store says of one."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

from avex._core.errors import StoreFullError

# A quota (EDQUOT) and a limit on file size (EFBIG) need the same remedy as a full disk.
_FULL = frozenset({errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)})


def is_full(error: OSError) -> bool:
    """Tell whether an error means that the disk, or what this user may write on it, is full."""
    return error.errno in _FULL


def free_space(path: Path) -> int:
    """Return the free bytes on the disk that holds `path` (or would hold it)."""
    existing = next(folder for folder in (path, *path.parents) if folder.exists())
    return shutil.disk_usage(existing).free


def full_disk(
    error: OSError, store: Path, action: str, needed: int, recordings: int, rows: int
) -> StoreFullError:
    """Return the error for a store whose disk is full; it says what is safe and how to go on."""
    size = readable_size(needed) if needed else "some space"
    full = StoreFullError(
        f"The disk is full: '{store}' needs at least {size} more to {action}, {readable_size(free_space(store))} "
        f"are free. {recordings} recordings ({rows} rows) are safe and can be read; free some space and run "
        "the same command again, it continues after them."
    )
    full.errno = error.errno
    return full


def readable_size(count: int) -> str:
    """Return a number of bytes for people.

    Example:
        >>> readable_size(1_530_000)
        '1.5 MB'
    """
    size = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{count} bytes" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
