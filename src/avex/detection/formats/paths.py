"""Take the paths of recordings apart as strings, so that putting them together gives the same string."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\")


def separators(recording: str) -> str:
    """Return the characters that separate folders in this path: a backslash only in paths of Windows."""
    return "/\\" if os.sep == "\\" or _WINDOWS.match(recording) else "/"


def split_name(recording: str) -> tuple[str, str]:
    """Split into folder, with its last separator, and file name; their sum is `recording`.

    Example:
        >>> split_name("site A/dawn.wav")
        ('site A/', 'dawn.wav')
    """
    cut = 1 + max(recording.rfind(separator) for separator in separators(recording))
    return recording[:cut], recording[cut:]


def common_folder(recordings: Iterable[str]) -> str:
    """Return the deepest folder, with its last separator, that holds all recordings; empty when there is none.

    Example:
        >>> common_folder(["data/a/1.wav", "data/b/2.wav"])
        'data/'
    """
    root: str | None = None
    for recording in recordings:
        folder, _ = split_name(recording)
        root = folder if root is None else root
        while not folder.startswith(root):
            root = split_name(root[:-1])[0]
    return root or ""


def trim(folder: str) -> str:
    """Drop the last separator of a folder, unless the folder is nothing else."""
    return folder[:-1] if len(folder) > 1 and folder[-1] in "/\\" else folder


def join(*parts: str) -> str:
    """Join what `trim` trimmed, with the separator that the first parts use."""
    joined = ""
    for part in parts:
        if not joined or not part:
            joined += part
            continue
        separator = "\\" if "\\" in separators(joined) and "/" not in joined else "/"
        joined += part if joined.endswith(tuple(separators(joined))) else separator + part
    return joined
