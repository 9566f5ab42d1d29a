"""sha256 of files: streamed, and remembered for as long as the file stays as it is."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from functools import lru_cache
from pathlib import Path

from avex._core.errors import ChecksumError, ConfigError
from avex.io.atomic import write_text
from avex.io.cache import cache_folder

logger = logging.getLogger(__name__)

_BLOCK = 1 << 20
# Below this, hashing costs less than looking for the note.
_WORTH_A_NOTE = 16 << 20
_FULL, _SHORTEST = 64, 8

Stamp = tuple[int, int, int, int, int]


def sha256_of(path: str | Path) -> str:
    """Return the sha256 of a file's bytes, in lower-case hexadecimal.

    Hashing takes longer than reading, so the result is remembered: in memory and, for files of 16 MiB and more,
    in a note in `cache_folder()/checksums`. It counts as long as path, size, inode and the times of the last
    change of content and of status are the same; the last one cannot be set back by a program that alters the
    file. Nothing is written beside the file.

    Raises:
        OSError: The file cannot be read.

    Example:
        >>> import tempfile
        >>> empty = Path(tempfile.mkdtemp()) / "empty"
        >>> empty.touch()
        >>> sha256_of(empty)[:12]
        'e3b0c44298fc'
    """
    resolved = Path(path).resolve()
    return _sha256(resolved, stamp_of(resolved))


def matches_sha256(path: str | Path, expected: str) -> bool:
    """Tell whether a file has a sha256, of which at least the first 8 digits are known.

    Raises:
        ConfigError: `expected` is not 8 to 64 hexadecimal digits.
        OSError: The file cannot be read.
    """
    return sha256_of(path).startswith(normal_sha256(expected))


def verify_sha256(path: str | Path, expected: str) -> None:
    """Check that a file is the one whose sha256 is known.

    Args:
        path: The file.
        expected: Its sha256 in hexadecimal, in either case: 64 digits, or at least the first 8.

    Raises:
        ChecksumError: The sums differ.
        ConfigError: `expected` is no checksum.
    """
    wanted = normal_sha256(expected)
    if not matches_sha256(path, wanted):
        raise ChecksumError(
            f"File '{path}' is damaged or is another file than expected: its sha256 is {sha256_of(path)}, expected "
            f"{wanted}{'...' if len(wanted) < _FULL else ''}. Delete it and download it again, or, if it is the "
            "file you want, correct the expected sha256."
        )


def normal_sha256(text: str) -> str:
    """Return a sha256, or the beginning of one, in lower case.

    Raises:
        ConfigError: It is not 8 to 64 hexadecimal digits.

    Example:
        >>> normal_sha256(" 7F5810BC ")
        '7f5810bc'
    """
    wanted = text.strip().lower()
    if not _SHORTEST <= len(wanted) <= _FULL or set(wanted) - set("0123456789abcdef"):
        raise ConfigError(f"'{text}' is no sha256. Expected 64 hexadecimal digits, or at least the first 8.")
    return wanted


def stamp_of(path: Path) -> Stamp:
    """Return size, times of the last change of content and of status (ns), inode and device of a file."""
    status = path.stat()
    return (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev)


@lru_cache(maxsize=256)
def _sha256(path: Path, stamp: Stamp) -> str:
    if stamp[0] < _WORTH_A_NOTE:
        return _hash(path)
    note = cache_folder() / "checksums" / f"{hashlib.sha256(os.fsencode(path)).hexdigest()[:32]}.json"
    known = _noted(note, stamp)
    if known is not None:
        return known
    result = _hash(path)
    if stamp_of(path) == stamp:  # it was not changed meanwhile
        _write_note(note, path, stamp, result)
    return result


def _hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _noted(note: Path, stamp: Stamp) -> str | None:
    try:
        content = json.loads(note.read_text(encoding="utf-8"))
        return normal_sha256(content["sha256"]) if tuple(content["stamp"]) == stamp else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # no note, or not one of ours: the file is hashed again


def _write_note(note: Path, path: Path, stamp: Stamp, sha256: str) -> None:
    content = {"path": str(path), "stamp": stamp, "sha256": sha256}
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        write_text(note, json.dumps(content) + "\n")
    except OSError as error:
        # A machine with a read-only home still loads models, only slower.
        logger.debug("The sha256 of '%s' could not be noted in '%s': %s", path, note, error)
