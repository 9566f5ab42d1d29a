"""Files that are either whole or not there.

A file is written beside its target under a temporary name, flushed to the disk, and renamed over the target
in one step. A crash, a full disk or a power cut leaves the old file (or none), never half of the new one.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO, Literal, TextIO, overload

from avex._core.errors import ConfigError

_PREFIX = ".avex-"
_SUFFIX = ".tmp"
# Some network and FUSE file systems cannot flush a folder; the rename itself is still one step there.
_NO_FOLDER_FSYNC = {errno.EINVAL, errno.ENOTSUP, errno.EBADF}


@overload
def atomic_write(
    path: str | os.PathLike[str], mode: Literal["wb"] = "wb"
) -> AbstractContextManager[BinaryIO]: ...
@overload
def atomic_write(path: str | os.PathLike[str], mode: Literal["w"]) -> AbstractContextManager[TextIO]: ...
def atomic_write(
    path: str | os.PathLike[str], mode: Literal["wb", "w"] = "wb"
) -> AbstractContextManager[IO[Any]]:
    r"""Open `path` for writing; it appears, complete, when the block ends without an error.

    Text is UTF-8 and line ends are written as given, so the bytes are the same on every system.

    Args:
        path: Target. Its folder must exist. A symbolic link is followed; an existing file keeps its
            permissions.
        mode: `"wb"` for bytes, `"w"` for text.

    Raises:
        ConfigError: Any other mode.
        OSError: As the system reports it (`ENOSPC` when the disk is full); the target is then as before.

    Example:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "notes.txt"
        >>> with atomic_write(target, "w") as file:
        ...     _ = file.write("dawn chorus\n")
        >>> target.read_text()
        'dawn chorus\n'
    """
    if mode not in ("wb", "w"):
        raise ConfigError(
            f"atomic_write cannot open a file in mode '{mode}'. Pass 'wb' (bytes) or 'w' (text)."
        )
    return _open_atomically(path, mode)


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give the name of an empty temporary file, and rename it to `path` when the block ends without an error.

    For writers that want a file name rather than an open file. The temporary name ends in `.tmp` whatever the
    target is called, so a search for `*.parquet` never finds one that a killed process left behind.

    Args:
        path: Target, as for `atomic_write`.

    Raises:
        OSError: As the system reports it; the target is then as it was before.
    """
    target = Path(os.path.realpath(path))
    temporary = target.parent / f"{_PREFIX}{os.getpid()}-{secrets.token_hex(8)}{_SUFFIX}"
    if not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "Cannot write here: no such folder", str(target.parent))
    # os.open rather than tempfile: the umask applies, so the result is as readable as any other new file.
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666))
    try:
        yield temporary
        if target.exists():
            temporary.chmod(target.stat().st_mode & 0o7777)
        publish(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def publish(temporary: Path, target: Path) -> None:
    """Rename a finished file over `target`, on the same disk; when this returns it survives a power cut.

    Raises:
        OSError: As the system reports it.
    """
    _flush_to_disk(temporary)
    temporary.replace(target)
    _flush_folder(target.parent)


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` to `path` in one step."""
    with atomic_write(path) as file:
        file.write(data)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` to `path` in one step, as UTF-8."""
    write_bytes(path, text.encode("utf-8"))


def is_temporary(path: str | os.PathLike[str]) -> bool:
    """Tell whether a file name is one of the temporary names of this module (left by a killed process)."""
    name = Path(path).name
    return name.startswith(_PREFIX) and name.endswith(_SUFFIX)


@contextmanager
def _open_atomically(path: str | os.PathLike[str], mode: str) -> Iterator[IO[Any]]:
    text: dict[str, str] = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    with atomic_path(path) as temporary, open(temporary, mode, **text) as file:  # type: ignore[call-overload]
        yield file


def _flush_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flush_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows has no handle on a folder to flush
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_FSYNC:
            raise
    finally:
        os.close(descriptor)
