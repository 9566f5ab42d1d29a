"""Which recordings to process: files, folders, globs and manifests, in a stable order."""

from __future__ import annotations

import glob
import math
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from avex._core.errors import AudioError, ConfigError
from avex.audio.suffixes import AUDIO_SUFFIXES
from avex.data.columns import RECORDING_COLUMNS, cell_path, cell_stretch, find_column
from avex.data.rows import Row, read_rows

MANIFEST_SUFFIXES = frozenset({".csv", ".tsv", ".parquet", ".jsonl"})
# A table may have several of them: the full path comes first.
_PATH_COLUMNS = tuple(dict.fromkeys(("path", *RECORDING_COLUMNS, "audiofilename")))


@dataclass(frozen=True, slots=True)
class Source:
    """A recording to process, or a part of one.

    Attributes:
        path: Where the file is.
        start_s: Where to start, in seconds.
        end_s: Where to stop, or None for the end.
    """

    path: str
    start_s: float = 0.0
    end_s: float | None = None

    @property
    def name(self) -> str:
        """Its name in tables: the path, and `#t=start,end` (W3C media fragment) for a part of a recording."""
        if self.start_s == 0 and self.end_s is None:
            return self.path
        times = [self.start_s] if self.end_s is None else [self.start_s, self.end_s]
        return f"{self.path}#t={','.join(repr(time).removesuffix('.0') for time in times)}"


def file_state(path: str) -> tuple[int, int]:
    """Size in bytes and modification time in ns of a regular file.

    Raises:
        AudioError: It is missing, not a file, or not accessible.
    """
    try:
        status = os.stat(path)
    except FileNotFoundError as error:
        raise AudioError(f"'{path}' does not exist.", cause="missing") from error
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise AudioError(f"'{path}' cannot be accessed: {error}.", cause="permission") from error
    if stat.S_ISDIR(status.st_mode) and not os.access(path, os.R_OK | os.X_OK):
        raise AudioError(f"Folder '{path}' may not be searched (permission denied).", cause="permission")
    if not stat.S_ISREG(status.st_mode):
        raise AudioError(f"'{path}' is not a file.", cause="not_a_file")
    return status.st_size, status.st_mtime_ns


def discover(inputs: Iterable[str | Path] | str | Path) -> list[Source]:
    """Find the recordings behind files, folders, globs and manifests.

    Folders are searched recursively for audio file names, hidden files left out, and sorted by name. A file
    that is named explicitly is taken whatever its name, even if it does not exist: it is reported when its
    turn comes. A manifest (`.csv`, `.tsv`, `.parquet`, `.jsonl`) has a column `path` and may have `start_s` and
    `end_s`; its relative paths are looked up next to it first, then in the working directory.

    Raises:
        ConfigError: No input, a glob or folder without recordings, or a manifest that cannot be used.

    Example:
        >>> [source.path for source in discover("examples/audio/*.flac")][:1]     # doctest: +SKIP
        ['examples/audio/blackbird_urban.flac']
    """
    if isinstance(inputs, (str, Path)):
        inputs = [inputs]
    found: dict[tuple[str, float, float | None], Source] = {}
    for item in inputs:
        for source in _expand(os.fspath(item)):
            # `season/a.wav` and `./season/a.wav` are one recording; it keeps the name it was given first.
            found.setdefault((os.path.abspath(source.path), source.start_s, source.end_s), source)
    if not found:
        raise ConfigError("No recordings were given. Name files, folders, globs or a manifest.")
    return list(found.values())


def _expand(item: str) -> Iterator[Source]:
    if os.path.isdir(item):
        paths = list(_walk(item))
        if not paths and _suffix(item) in AUDIO_SUFFIXES:
            paths = [item]  # a folder that calls itself a recording: reported when its turn comes
        if not paths:
            raise ConfigError(f"Folder '{item}' holds no audio files ({_suffix_list()}).")
        yield from (Source(path) for path in paths)
    elif _suffix(item) in MANIFEST_SUFFIXES and os.path.isfile(item):
        yield from read_manifest(item)
    elif glob.has_magic(item) and not os.path.exists(item):
        matches = sorted(glob.glob(item, recursive=True))
        if not matches:
            raise ConfigError(f"Nothing matches '{item}'.")
        for match in matches:
            if os.path.isdir(match):
                yield from (Source(path) for path in _walk(match))
            elif _suffix(match) in MANIFEST_SUFFIXES:
                yield from read_manifest(match)
            else:
                yield Source(match)
    else:
        yield Source(item)


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def _suffix_list() -> str:
    return ", ".join(sorted(AUDIO_SUFFIXES))


def _walk(folder: str) -> Iterator[str]:
    """Paths with audio names below a folder, sorted; each real folder is visited once."""
    visited: set[tuple[int, int]] = set()
    stack = [folder]
    while stack:
        current = stack.pop()
        try:
            status = os.stat(current)
            entries = sorted(os.scandir(current), key=lambda entry: entry.name)
        except OSError:
            yield current  # unreadable: reported as a recording that cannot be read
            continue
        if (status.st_dev, status.st_ino) in visited:
            continue
        visited.add((status.st_dev, status.st_ino))
        folders = []
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if _is_folder(entry):
                folders.append(entry.path)
                if _suffix(entry.name) in AUDIO_SUFFIXES and _is_empty(entry.path):
                    yield entry.path
            elif _suffix(entry.name) in AUDIO_SUFFIXES:
                yield entry.path
        stack.extend(reversed(folders))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle: reported as a recording that cannot be read
        return False


def _is_empty(folder: str) -> bool:
    try:
        return not os.listdir(folder)
    except OSError:
        return False  # reported when it is searched


def read_manifest(path: str | Path) -> list[Source]:
    """Read a table of recordings.

    Args:
        path: `.csv`, `.tsv`, `.parquet` or `.jsonl` with a column `path` (or `recording`, `file`, `filename`)
            and optionally `start_s` and `end_s` in seconds.

    Raises:
        ConfigError: The file cannot be read, has no path column, is empty, or holds an impossible time.
    """
    rows = read_rows(Path(path))
    columns = dict.fromkeys(name for row in rows for name in row.values)
    column = find_column(columns, _PATH_COLUMNS, f"Manifest '{path}'", "recordings")
    return [_row_source(row, column, Path(path).parent) for row in rows]


def _row_source(row: Row, column: str, folder: Path) -> Source:
    name = cell_path(row, column)
    beside = folder / name
    path = str(beside) if beside.exists() or not os.path.exists(name) else name
    start, end = cell_stretch(row, ("start_s", "end_s"))
    return Source(path, start, None if math.isinf(end) else end)
