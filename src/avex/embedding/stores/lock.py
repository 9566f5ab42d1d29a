"""One writer per store: an operating-system lock, which ends with its process however that ends.

The lock file is removed together with the partial folder, so whoever locks must know whether the file still has
its name. Packages for file locks differ in this from release to release; these few lines do not.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import random
import socket
import sys
import time
import weakref
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path

from avex._core.errors import StoreLockedError
from avex.io.atomic import write_text

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

logger = logging.getLogger(__name__)

LOCK_NAME = "lock"
HOLDER_NAME = "holder.json"

# A writer that is just ending removes the folder under our feet; a real holder is still there a moment later.
_ATTEMPTS = 5
_PAUSE_S = 0.02
# Seconds after which a folder that is never there is taken for one that cannot be made.
_VANISHING_S = 5.0
_HELD = frozenset({errno.EACCES, errno.EAGAIN, errno.EWOULDBLOCK, errno.EDEADLK})
_NO_LOCKS = frozenset({errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK})


class WriterLock:
    """The right to write one store, held from construction to `remove`.

    Args:
        folder: The partial folder of the store; created if it is missing.
        store: Path of the finished table, for the message.

    Raises:
        StoreLockedError: Another process, or another object in this one, is writing the store.
        OSError: The folder cannot be created or written.
    """

    def __init__(self, folder: Path, store: Path) -> None:
        self._folder = folder
        # Closing the file releases the lock; a store that is forgotten in a notebook does that too.
        self._release = weakref.finalize(self, os.close, _acquire(folder, store))
        try:
            write_text(folder / HOLDER_NAME, json.dumps(_this_process()))
        except BaseException:
            self.remove()
            raise

    def remove(self) -> None:
        """Release the lock, and remove its files and its folder if nothing else is in it. Safe to call twice."""
        if not self._release.alive:
            return
        try:
            # The name goes while the lock is held: nobody can then hold this file while somebody holds a new one.
            self._remove_files(HOLDER_NAME, LOCK_NAME)
        finally:
            self._release()
        if sys.platform == "win32":  # which removes no open file
            self._remove_files(LOCK_NAME)

    def _remove_files(self, *names: str) -> None:
        with suppress(OSError):
            for name in names:
                (self._folder / name).unlink(missing_ok=True)
            self._folder.rmdir()


def _acquire(folder: Path, store: Path) -> int:
    give_up = time.monotonic() + _VANISHING_S
    attempts = 0
    while attempts < _ATTEMPTS:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = _open_locked(folder / LOCK_NAME, store)
        except (FileNotFoundError, FileExistsError):
            if folder.is_file() or time.monotonic() > give_up:
                raise
            # A writer that ended removed the folder in between; that says nothing of who holds it now.
            time.sleep(_PAUSE_S * random.random())
            continue
        if descriptor is not None:
            return descriptor
        attempts += 1
        if attempts < _ATTEMPTS:
            time.sleep(_PAUSE_S)
    raise StoreLockedError(
        f"'{store}' is being written by {_holder(folder)}. Wait until it ends, stop it, or choose another output."
    )


def _open_locked(path: Path, store: Path) -> int | None:
    """Open the lock file and lock it; None when it is held, or lost its name before it was locked."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        _lock(descriptor)
        if os.path.samestat(os.fstat(descriptor), path.stat()):
            return descriptor
    except OSError as error:
        if error.errno in _NO_LOCKS:
            logger.warning(
                "The file system of '%s' has no locks. Make sure that no other process writes there.", store
            )
            return descriptor
        os.close(descriptor)
        if error.errno in _HELD:
            return None
        raise
    os.close(descriptor)
    return None


def _lock(descriptor: int) -> None:
    if sys.platform == "win32":
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _this_process() -> dict[str, object]:
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return {"pid": os.getpid(), "host": socket.gethostname(), "since_utc": started}


def _holder(folder: Path) -> str:
    try:
        holder = json.loads((folder / HOLDER_NAME).read_text(encoding="utf-8"))
        return f"process {holder['pid']} on host '{holder['host']}' since {holder['since_utc']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
