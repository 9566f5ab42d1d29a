"""One writer per store: an operating-system lock, which ends with its process however that ends."""

from __future__ import annotations

import json
import os
import socket
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path

import filelock

from avex._core.errors import StoreLockedError
from avex.io.atomic import write_text

LOCK_NAME = "lock"
HOLDER_NAME = "holder.json"
_ATTEMPTS = 20


class WriterLock:
    """The right to write one store, held from construction to `release`.

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
            self.release()
            raise

    def release(self) -> None:
        """Let another process write; safe to call twice."""
        self._lock.release(force=True)

    def remove(self) -> None:
        """Remove the lock's files and its folder, if nothing else is in it, and release the lock."""
        # The name goes while the lock is still held: whoever opened the old file can tell that it lost its name.
        with suppress(OSError):  # Windows cannot remove an open file; it goes below
            (self._folder / LOCK_NAME).unlink(missing_ok=True)
        with suppress(OSError):
            (self._folder / HOLDER_NAME).unlink(missing_ok=True)
        with suppress(OSError):
            self._folder.rmdir()
        self.release()
        if os.name == "nt":
            with suppress(OSError):
                (self._folder / LOCK_NAME).unlink(missing_ok=True)
                self._folder.rmdir()


def _acquire(folder: Path, store: Path) -> filelock.BaseFileLock:
    path = folder / LOCK_NAME
    for _ in range(_ATTEMPTS):
        folder.mkdir(parents=True, exist_ok=True)
        # Not thread-local: a store is often opened in one thread and closed in another.
        lock = filelock.FileLock(str(path), thread_local=False)
        try:
            lock.acquire(blocking=False)
        except filelock.Timeout:
            raise StoreLockedError(
                f"'{store}' is being written by {_holder(folder)}. Wait until it ends, stop it, or choose "
                "another output."
            ) from None
        except FileNotFoundError:
            continue  # the writer before us removed the folder in between
        if _still_named(path):
            return lock
        lock.release(force=True)
    raise StoreLockedError(
        f"'{store}' is being opened and closed by other processes all the time. Try again later."
    )


def _still_named(path: Path) -> bool:
    """Tell whether the lock that was just taken is on the file that now has the name.

    The writer before us removes the folder at its end. A lock on a file that was removed guards nothing; a second
    attempt by name succeeds then, and fails as it should otherwise.
    """
    if not path.exists():
        return False
    probe = filelock.FileLock(str(path), thread_local=False)
    try:
        probe.acquire(blocking=False)
    except (filelock.Timeout, FileNotFoundError):
        return path.exists()
    probe.release(force=True)
    return False


def _this_process() -> dict[str, object]:
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return {"pid": os.getpid(), "host": socket.gethostname(), "since_utc": started}


def _holder(folder: Path) -> str:
    try:
        holder = json.loads((folder / HOLDER_NAME).read_text(encoding="utf-8"))
        return f"process {holder['pid']} on host '{holder['host']}' since {holder['since_utc']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
