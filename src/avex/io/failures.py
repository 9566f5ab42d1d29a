"""What can go wrong between a URI and a local file, told in one voice.

Each remote file system raises exceptions of its own libraries, which are only there when that library is.
They are looked up by name among the modules that are loaded, so that nothing is imported just to be caught.
"""

from __future__ import annotations

import errno
import sys
from pathlib import Path

from avex._core.errors import AvexError, OfflineError

_NETWORK_ERRORS = (
    ("aiohttp", "ClientError"),
    ("botocore.exceptions", "BotoCoreError"),
    ("botocore.exceptions", "ClientError"),
    ("gcsfs.retry", "HttpError"),
    ("google.auth.exceptions", "GoogleAuthError"),
    ("http.client", "HTTPException"),
    ("httpx", "HTTPError"),
    ("httpx2", "HTTPError"),
    ("requests.exceptions", "RequestException"),
)
# These say that this machine is at fault, not the connection.
_LOCAL_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE}


class MissingFileError(AvexError, FileNotFoundError):
    """A local or remote file does not exist, or may not be seen."""


def network_errors() -> tuple[type[BaseException], ...]:
    """Return the exception types by which the loaded remote libraries report a failed transfer."""
    found: list[type[BaseException]] = [OSError, TimeoutError]
    for module, name in _NETWORK_ERRORS:
        kind = getattr(sys.modules.get(module), name, None)
        if isinstance(kind, type) and issubclass(kind, BaseException):
            found.append(kind)
    return tuple(found)


def is_local_failure(error: BaseException) -> bool:
    """Tell whether an error is about this machine (disk full, read-only, too many open files)."""
    return isinstance(error, OSError) and error.errno in _LOCAL_ERRNOS


def not_available(uri: str, folder: Path, cause: BaseException | None = None) -> OfflineError:
    """Make the error for a file that is not cached and cannot be downloaded.

    Args:
        uri: The file.
        folder: The cache folder that was looked in.
        cause: What the download failed with; None when offline mode forbade it.
    """
    if cause is None:
        why = "avex is offline (offline=True was passed, or AVEX_OFFLINE or HF_HUB_OFFLINE is set)"
        remedy = "Allow the network once"
    else:
        text = str(cause).strip().partition("\n")[0]
        why = f"it could not be downloaded ({type(cause).__name__}{': ' * bool(text)}{text})"
        remedy = "Check the connection and try again"
    return OfflineError(
        f"'{uri}' is not in the cache folder '{folder}', and {why}. {remedy}, or download the file elsewhere "
        "and give the path of that copy instead (for weights: checkpoint_path='/path/to/file')."
    )


def not_there(uri: str, cause: BaseException) -> MissingFileError:
    """Make the error for a remote file that does not exist or is private."""
    text = str(cause).strip().partition("\n")[0]
    return MissingFileError(
        f"'{uri}' does not exist, or is private and this computer is not logged in "
        f"({type(cause).__name__}{': ' * bool(text)}{text}). Check the spelling and your access rights."
    )
