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

from filelock import FileLock

from avex._core.errors import AudioError
from avex.data.clips import Clip
from avex.io.checksum import Stamp, sha256_of, stamp_of

logger = logging.getLogger(__name__)
_DIGITS = 32
_BATCH = 1000


class FileContents:
    """sha256 of recordings, remembered in a table.

    Args:
        table: File of JSON lines; created when something is to be remembered.
    """

    def __init__(self, table: Path) -> None:
        self._table = table
        self._known: dict[str, tuple[Stamp, str]] | None = None

    def clip_keys(self, clips: Sequence[Clip], max_seconds: float | None) -> list[str]:
        """(N) names of what is heard of clips: equal where file contents and times are.

        Raises:
            AudioError: A recording is not there.
        """
        content = self._contents(dict.fromkeys(clip.path for clip in clips))
        keys = []
        for clip in clips:
            text = json.dumps([content[clip.path], *heard(clip, max_seconds)])
            keys.append(hashlib.sha256(text.encode()).hexdigest()[:_DIGITS])
        return keys

    def check_unchanged(self, clips: Iterable[Clip]) -> None:
        """Make sure that recordings are still those that the keys are of.

        Raises:
            AudioError: One was changed.
        """
        known = self._read()
        for path in dict.fromkeys(clip.path for clip in clips):
            if known[_name(path)][0] != _stamp(path):
                raise AudioError(f"'{path}' was changed while it was embedded. Evaluate again.")

    def _contents(self, paths: Iterable[Path]) -> dict[Path, str]:
        known, found = self._read(), {}
        fresh: list[str] = []
        for path in paths:
            name, stamp = _name(path), _stamp(path)
            noted = known.get(name)
            if noted is None or noted[0] != stamp:
                noted = known[name] = (stamp, sha256_of(path))
                fresh.append(json.dumps([name, stamp, noted[1]], ensure_ascii=False))
            found[path] = noted[1]
            if len(fresh) == _BATCH:
                self._append(fresh)
                fresh = []
        self._append(fresh)
        return found

    def _read(self) -> dict[str, tuple[Stamp, str]]:
        if self._known is None:
            self._known = {}
            lines = self._table.read_bytes().split(b"\n") if self._table.is_file() else []
            for line in lines:
                try:
                    name, stamp, sha256 = json.loads(line)
                except ValueError:  # empty, or cut off by a crash: the file is hashed again
                    continue
                self._known[name] = (tuple(stamp), sha256)
        return self._known

    def _append(self, lines: Sequence[str]) -> None:
        """Add lines; a line end comes first, in case the last line was cut off."""
        if not lines:
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


def _name(path: Path) -> str:
    return path.resolve().as_posix()


def _stamp(path: Path) -> Stamp:
    try:
        return stamp_of(path)
    except OSError as error:
        raise AudioError(f"'{path}' cannot be read: {error.strerror}.", cause="missing") from error
