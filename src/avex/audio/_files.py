"""Open a recording as a plain binary file, or say precisely why that is impossible."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from avex._core.errors import AudioError

PathLike = str | bytes | os.PathLike


def quoted(path: PathLike) -> str:
    r"""Return the name in quotes for a message; newlines and bytes that are not UTF-8 are shown escaped.

    Example:
        >>> quoted("a\tb.wav")
        "'a\\tb.wav'"
    """
    return repr(os.fsdecode(path))


def open_recording(path: PathLike) -> BinaryIO:
    """Open `path` for reading, unbuffered.

    Raises:
        AudioError: With cause `missing`, `not_a_file`, `permission`, `empty` or `decode_error` (an input error).
    """
    name = quoted(path)
    try:
        status = Path(os.fsdecode(path)).stat()
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for its other end
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a device or pipe"
            raise AudioError(f"{name} is {kind}, not a file. Pass a recording.", cause="not_a_file")
        if status.st_size == 0:
            raise AudioError(f"{name} is empty (0 bytes). Remove it or copy it again.", cause="empty")
        return open(path, "rb", buffering=0)
    except AudioError:
        raise
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        raise AudioError(f"{name} does not exist. Check the path.", cause="missing") from error
    except PermissionError as error:
        raise AudioError(f"{name} may not be read (permission denied).", cause="permission") from error
    except OSError as error:
        raise AudioError(
            f"{name} cannot be opened: {error.strerror or error}.", cause="decode_error"
        ) from error
