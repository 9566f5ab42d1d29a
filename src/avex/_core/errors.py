"""Every error avex raises on purpose.

Each derives from `AvexError` and from the builtin that a caller would catch anyway. Messages say what
happened, what was expected and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AvexError(Exception):
    """Base of all errors that avex raises on purpose."""

    def __str__(self) -> str:
        # KeyError would show the repr of its argument; a message is meant to be read.
        return str(self.args[0]) if self.args else ""


class UnknownNameError(AvexError, KeyError, ValueError):
    """A name (family, layer, format, ...) that is not registered."""


class UnknownModelError(UnknownNameError):
    """A model name, alias, path or family that cannot be resolved."""


class FamilyNotAvailableError(AvexError, NotImplementedError):
    """A card exists, but this release does not implement its architecture yet."""


class ConfigError(AvexError, ValueError):
    """A configuration value or file is wrong."""


class MissingExtraError(AvexError, ImportError):
    """An optional dependency is not installed."""


class OfflineError(AvexError, ConnectionError):
    """A remote file is needed, is not in the cache, and the network may not or cannot be used."""


class AudioError(AvexError, OSError):
    """A recording cannot be read.

    Attributes:
        cause: One word for tables: `missing`, `not_a_file`, `permission`, `empty`, `not_audio`, `no_samples`,
            `truncated`, `decode_error`, `unsupported`.
    """

    def __init__(self, message: str, cause: str = "decode_error") -> None:
        super().__init__(message)
        self.cause = cause


class TruncatedAudioError(AudioError):
    """A recording ended before its header said; what decoded was delivered before this was raised."""

    def __init__(self, message: str) -> None:
        super().__init__(message, cause="truncated")


class WeightsError(AvexError, RuntimeError):
    """A checkpoint cannot be used."""


class ChecksumError(WeightsError, ValueError):
    """A file's sha256 is not the one its card states."""


class UnsafeCheckpointError(WeightsError):
    """A pickle holds objects other than tensors and plain data; nothing of it was executed."""


class StoreError(AvexError, RuntimeError):
    """An embedding store cannot be opened, read or written."""


class StoreExistsError(StoreError, FileExistsError):
    """The output exists and was made with other settings."""


class StoreLockedError(StoreError):
    """Another process is writing this store."""


class StoreFullError(StoreError, OSError):
    """The disk is full; what was committed before is still there."""


class TrainingDivergedError(AvexError, ArithmeticError):
    """The loss of a training is no longer a number."""


class PartialFailureError(AvexError, RuntimeError):
    """Some inputs failed under `fail_fast`."""


def did_you_mean(name: str, choices: Iterable[str], n: int = 3) -> str:
    """Return `" Did you mean 'x' or 'y'?"` for the closest choices, or an empty string.

    Example:
        >>> did_you_mean("birdnte", ["birdnet", "perch"])
        " Did you mean 'birdnet'?"
    """
    by_lower = {choice.lower(): choice for choice in choices}
    close = difflib.get_close_matches(name.lower(), by_lower, n=n, cutoff=0.6)
    if not close:
        return ""
    return f" Did you mean {' or '.join(repr(by_lower[c]) for c in close)}?"
