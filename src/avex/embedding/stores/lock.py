"""One writer per store: an operating-system lock, which ends with its process however that ends."""

from __future__ import annotations

import json
import os
import socket
import time
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path

import filelock

from avex._core.errors import StoreLockedError
from avex.io.atomic import write_text

LOCK_NAME = "lock"
HOLDER_NAME = "holder.json"

# A writer that is just ending removes the folder under our feet; a real holder is still there a moment later.
_ATTEMPTS = 5
_PAUSE_S = 0.02


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
        self._lock = _acquire(folder, store)
        try:
            write_text(folder / HOLDER_NAME, json.dumps(_this_process()))
        except BaseException:
            self.remove()
            raise

    def remove(self) -> None:
        """Release the lock, and remove its files and its folder if nothing else is in it. Safe to call twice."""
        if not self._lock.is_locked:
            return
        # The lock's name goes while the lock is held: filelock refuses a lock on a file that has lost its name, so
        # nobody can hold the old file while somebody else holds a new one.
        self._remove_files(HOLDER_NAME, LOCK_NAME)
        self._lock.release(force=True)
        if os.name == "nt":  # Windows removes no open file
            self._remove_files(LOCK_NAME)

    def _remove_files(self, *names: str) -> None:
        with suppress(OSError):
            for name in names:
                (self._folder / name).unlink(missing_ok=True)
            self._folder.rmdir()


def _acquire(folder: Path, store: Path) -> filelock.BaseFileLock:
    # Not thread-local: a store is often opened in one thread and closed in another.
    lock = filelock.FileLock(str(folder / LOCK_NAME), thread_local=False)
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(_PAUSE_S)
        folder.mkdir(parents=True, exist_ok=True)
        with suppress(filelock.Timeout, FileNotFoundError):
            lock.acquire(blocking=False)
            return lock
    raise StoreLockedError(
        f"'{store}' is being written by {_holder(folder)}. Wait until it ends, stop it, or choose another output."
    )


def _this_process() -> dict[str, object]:
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return {"pid": os.getpid(), "host": socket.gethostname(), "since_utc": started}


def _holder(folder: Path) -> str:
    try:
        holder = json.loads((folder / HOLDER_NAME).read_text(encoding="utf-8"))
        return f"process {holder['pid']} on host '{holder['host']}' since {holder['since_utc']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
