"""sha256 of files: streamed, and remembered for as long as the process lives."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from avex._core.errors import ChecksumError

_BLOCK = 1 << 20


def sha256_of(path: str | Path) -> str:
    """Return the sha256 of a file's bytes, in lower-case hexadecimal.

    The file is read in blocks. The result is kept in memory by path, size and time of change, never on the
    disk.

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
    status = resolved.stat()
    return _sha256(resolved, status.st_size, status.st_mtime_ns)


def verify_sha256(path: str | Path, expected: str) -> None:
    """Check that a file is the one whose sha256 is known.

    Args:
        path: The file.
        expected: Its sha256 in hexadecimal, in either case.

    Raises:
        ChecksumError: The sums differ.
    """
    actual = sha256_of(path)
    if actual != expected.strip().lower():
        raise ChecksumError(
            f"File '{path}' is damaged or is another file than expected: its sha256 is {actual}, expected "
            f"{expected.strip().lower()}. Delete it and download it again, or, if it is the file you want, "
            "correct the expected sha256."
        )


@lru_cache(maxsize=256)
def _sha256(path: Path, size: int, mtime_ns: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
