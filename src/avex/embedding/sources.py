"""Which recordings to process: files, folders, globs and manifests, in a stable order."""

from __future__ import annotations

import glob
import math
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avex._core.errors import AudioError, ConfigError

_AUDIO_FORMATS = "wav|wave|flac|ogg|oga|opus|mp3|aif|aiff|aifc|w64|rf64|caf|au|snd|m4a|mp4|aac|wma"
AUDIO_SUFFIXES = frozenset("." + name for name in _AUDIO_FORMATS.split("|"))
MANIFEST_SUFFIXES = frozenset({".csv", ".tsv", ".parquet", ".jsonl"})
_PATH_COLUMNS = (
    "path",
    "recording",
    "file",
    "filename",
    "file_name",
    "audiofilename",
    "filepath",
    "file_path",
)


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
        end = "" if self.end_s is None else f",{self.end_s!r}"
        return f"{self.path}#t={self.start_s!r}{end}".replace(".0,", ",").removesuffix(".0")


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
    rows = _read_rows(str(path))
    if not rows:
        raise ConfigError(f"Manifest '{path}' has no rows.")
    column = next((name for name in _PATH_COLUMNS if name in rows[0]), None)
    if column is None:
        raise ConfigError(
            f"Manifest '{path}' has no column 'path'. Its columns are: {', '.join(map(str, rows[0]))}."
        )
    folder = Path(path).parent
    return [_row_source(row, column, folder, f"'{path}', row {i}") for i, row in enumerate(rows, start=1)]


def _row_source(row: dict[str, Any], column: str, folder: Path, where: str) -> Source:
    value = row[column]
    if value is None or not str(value).strip():
        raise ConfigError(f"Manifest {where}: the column '{column}' is empty.")
    beside = folder / str(value)
    path = (
        str(beside)
        if not os.path.isabs(str(value)) and (beside.exists() or not os.path.exists(value))
        else str(value)
    )
    start = _seconds(row.get("start_s"), "start_s", where) or 0.0
    end = _seconds(row.get("end_s"), "end_s", where)
    if start < 0 or (end is not None and end <= start):
        raise ConfigError(f"Manifest {where}: the times {start} to {end} s are not a part of a recording.")
    return Source(path, start, end)


def _seconds(value: Any, name: str, where: str) -> float | None:
    if value is None or value == "" or value != value:  # NaN: an empty cell of a numeric column
        return None
    try:
        seconds = float(value)
        if not math.isfinite(seconds):
            raise ValueError("not finite")
        return seconds
    except (TypeError, ValueError) as error:
        raise ConfigError(f"Manifest {where}: {name} = {value!r} is not a number of seconds.") from error


def _read_rows(path: str) -> Sequence[dict[str, Any]]:
    import pyarrow as pa

    suffix = _suffix(path)
    try:
        if suffix == ".parquet":
            import pyarrow.parquet as pq

            return pq.read_table(path).to_pylist()
        if suffix == ".jsonl":
            from pyarrow import json as pa_json

            return pa_json.read_json(path).to_pylist()
        from pyarrow import csv as pa_csv

        # Names stay text: a recording called 20240501.wav or 007 must not become a number.
        text_columns = pa_csv.ConvertOptions(
            column_types=dict.fromkeys(_PATH_COLUMNS, pa.string()), strings_can_be_null=True
        )
        parse = pa_csv.ParseOptions(delimiter="\t" if suffix == ".tsv" else ",", newlines_in_values=True)
        return pa_csv.read_csv(path, parse_options=parse, convert_options=text_columns).to_pylist()
    except (pa.ArrowInvalid, pa.ArrowTypeError, OSError) as error:
        raise ConfigError(f"Manifest '{path}' cannot be read: {error}") from error
