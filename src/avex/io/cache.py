"""Where downloaded files live, and what is known about each of them.

Every downloaded file has a folder of its own, named after its URI, that holds the file under its own name (so
that extensions and messages stay readable), a lock and a record of where it came from. Files from the Hugging
Face Hub are not here: the Hub client keeps them in its own cache, which other programs share.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from avex.io.atomic import write_text

_TRUE = {"1", "true", "yes", "on"}
_MAX_NAME = 120  # characters; leaves room for multi-byte letters below the 255 bytes that file systems allow


def cache_folder() -> Path:
    """Return the folder for downloads: `AVEX_CACHE` if set, else `avex` in the platform's cache folder.

    That is `$XDG_CACHE_HOME` or `~/.cache` on Linux and macOS, `%LOCALAPPDATA%` on Windows. The environment
    is read at every call; the folder is not created.
    """
    if chosen := os.environ.get("AVEX_CACHE"):
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or (os.environ.get("LOCALAPPDATA") if os.name == "nt" else None)
    return (Path(base) if base else Path.home() / ".cache") / "avex"


def is_offline(offline: bool | None = None) -> bool:
    """Tell whether the network may not be used.

    Args:
        offline: The caller's own wish; None asks the environment (`AVEX_OFFLINE` or `HF_HUB_OFFLINE` set to
            `1`, `true`, `yes` or `on`).
    """
    if offline is not None:
        return offline
    return any(os.environ.get(name, "").lower() in _TRUE for name in ("AVEX_OFFLINE", "HF_HUB_OFFLINE"))


@dataclass(frozen=True)
class CacheRecord:
    """What is remembered about a downloaded file.

    Attributes:
        uri: Where it came from.
        version: What the server said identifies that version (ETag, generation, time of change); empty if
            nothing.
        size: Bytes.
        sha256: Of the bytes as they arrived, in hexadecimal.
    """

    uri: str
    version: str
    size: int
    sha256: str


@dataclass(frozen=True)
class CacheEntry:
    """The place of one URI in the cache."""

    uri: str
    folder: Path

    @classmethod
    def of(cls, uri: str, cache_dir: str | Path | None = None) -> CacheEntry:
        """Return the entry of `uri` below `cache_dir` (default: `cache_folder()`); nothing is created."""
        root = Path(cache_dir).expanduser() if cache_dir is not None else cache_folder()
        return cls(uri, root / "files" / hashlib.sha256(uri.encode()).hexdigest()[:16])

    @property
    def file(self) -> Path:
        """Where the downloaded file is, or would be."""
        name = PurePosixPath(unquote(urlsplit(self.uri).path)).name
        # Leading dots are dropped so that no name collides with the lock and the record.
        clean = re.sub(r'[\x00-\x1f<>:"/\\|?*]', "_", name).lstrip(".") or "file"
        stem, suffix = PurePosixPath(clean).stem, PurePosixPath(clean).suffix[:20]
        return self.folder / (stem[: _MAX_NAME - len(suffix)] + suffix)

    def record(self) -> CacheRecord | None:
        """Return what is known of the cached file, or None when it is absent or not the size it should be."""
        try:
            record = CacheRecord(**json.loads(self._record_file.read_text(encoding="utf-8")))
            return record if self.file.stat().st_size == record.size else None
        except (OSError, ValueError, TypeError):
            # A damaged or foreign record says nothing about the file: it is downloaded again.
            return None

    def remember(self, record: CacheRecord) -> None:
        """Store the record of the file that has just been written."""
        write_text(self._record_file, json.dumps(asdict(record), indent=2) + "\n")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold this entry, against other threads and other processes, while the block runs."""
        from filelock import FileLock

        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / ".lock"):
            yield

    @property
    def _record_file(self) -> Path:
        return self.folder / ".source.json"
