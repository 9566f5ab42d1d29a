"""Which audio a clip is: the content of its file and the stretch that is heard, whatever the file is called.

Reading a file takes longer than asking for its size and times, so the sha256 of each is remembered in a table
of lines, for as long as size, inode and the times of the last change of content and of status are the same.
The last one cannot be set back: a recording that was replaced by another one of the same length, with its times
restored, is still noticed.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock

from avex._core.errors import AudioError
from avex.audio import info
from avex.data.clips import Clip
from avex.io.checksum import Stamp, sha256_of, stamp_of

logger = logging.getLogger(__name__)
_DIGITS = 32
_BATCH = 1000
# Containers whose headers say exactly how long a recording is; others only estimate it at times.
_EXACT = {"WAV", "WAVEX", "RF64", "W64", "AIFF", "FLAC"}


class _Noted(NamedTuple):
    """What is known of a file; the duration in seconds is None where its header leaves doubts."""

    stamp: Stamp
    sha256: str
    duration_s: float | None


class FileContents:
    """sha256 of recordings, remembered in a table.

    Args:
        table: File of JSON lines; created when something is to be remembered.
        read_only: Whether the table is to stay as it is; what is hashed is remembered in memory only.
    """

    def __init__(self, table: Path, *, read_only: bool = False) -> None:
        self._table = table
        self._read_only = read_only
        self._known: dict[str, _Noted] | None = None

    def clip_keys(self, clips: Sequence[Clip], max_seconds: float | None) -> list[str]:
        """(N) names of what is heard of clips: equal where file contents and times are.

        An end beyond the end of the recording is the end of the recording.

        Raises:
            AudioError: A recording is not there.
        """
        content = self._contents(dict.fromkeys(clip.path for clip in clips))
        keys = []
        for clip in clips:
            known, (start, end) = content[clip.path], heard(clip, max_seconds)
            if end is not None and known.duration_s is not None and end >= known.duration_s:
                end = None
            text = json.dumps([known.sha256, start, end])
            keys.append(hashlib.sha256(text.encode()).hexdigest()[:_DIGITS])
        return keys

    def check_unchanged(self, clips: Iterable[Clip]) -> None:
        """Make sure that recordings are still those that the keys are of.

        Raises:
            AudioError: One was changed.
        """
        known = self._read()
        for path in dict.fromkeys(clip.path for clip in clips):
            if known[_name(path)].stamp != _stamp(path):
                raise AudioError(f"'{path}' was changed while it was embedded. Evaluate again.")

    def _contents(self, paths: Iterable[Path]) -> dict[Path, _Noted]:
        known, found = self._read(), {}
        fresh: list[str] = []
        for path in paths:
            name, stamp = _name(path), _stamp(path)
            noted = known.get(name)
            if noted is None or noted.stamp != stamp:
                noted = known[name] = _Noted(stamp, sha256_of(path), _exact_duration(path))
                fresh.append(json.dumps([name, *noted]))
            found[path] = noted
            if len(fresh) == _BATCH:
                self._append(fresh)
                fresh = []
        self._append(fresh)
        return found

    def _read(self) -> dict[str, _Noted]:
        if self._known is None:
            self._known = {}
            lines = self._table.read_bytes().split(b"\n") if self._table.is_file() else []
            for line in lines:
                try:
                    name, stamp, sha256, duration_s = json.loads(line)
                except ValueError:  # empty, or cut off by a crash: the file is hashed again
                    continue
                self._known[name] = _Noted(tuple(stamp), sha256, duration_s)
        return self._known

    def _append(self, lines: Sequence[str]) -> None:
        """Add lines; a line end comes first, in case the last line was cut off."""
        if not lines or self._read_only:
            return
        try:
            self._table.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self._table.with_suffix(".lock")), self._table.open("ab") as file:
                file.write(("\n" + "\n".join(lines) + "\n").encode())
        except OSError as error:
            # Embeddings on a read-only disk can still be read, only slower.
            logger.debug("The contents of %d files could not be noted: %s", len(lines), error)


def heard(clip: Clip, max_seconds: float | None) -> tuple[float, float | None]:
    """Begin and end in seconds of what is heard of a clip; an end of None is that of the recording.

    Example:
        >>> heard(Clip(Path("dawn.wav"), 3.0), 5.0), heard(Clip(Path("dawn.wav"), 3.0, 6.0), 5.0)
        ((3.0, 8.0), (3.0, 6.0))
    """
    start = float(clip.start_s)
    ends = [clip.end_s, None if max_seconds is None else start + max_seconds]
    return start, min((float(end) for end in ends if end is not None), default=None)


def _exact_duration(path: Path) -> float | None:
    try:
        header = info(path)
    except AudioError:  # reading it says why
        return None
    return header.duration_s if header.format in _EXACT else None


def _name(path: Path) -> str:
    return path.resolve().as_posix()


def _stamp(path: Path) -> Stamp:
    try:
        return stamp_of(path)
    except OSError as error:
        raise AudioError(f"'{path}' cannot be read: {error.strerror}.", cause="missing") from error
