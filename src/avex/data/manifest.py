"""Manifests: clips read from a table, or from a folder for each class."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from avex._core.errors import ConfigError
from avex.audio.suffixes import AUDIO_SUFFIXES
from avex.data.clips import Clip, check_unique, clip_id
from avex.data.columns import (
    LABEL_COLUMNS,
    RECORDING_COLUMNS,
    cell_labels,
    cell_path,
    cell_stretch,
    cell_text,
    find_column,
    find_times,
)
from avex.data.rows import Row, read_rows

SPLIT_FOLDERS = {"train": "train", "validation": "validation", "valid": "validation", "val": "validation"}
SPLIT_FOLDERS |= {"dev": "validation", "test": "test"}
_PLAIN = ("split", "fold", "group")


def read_manifest(
    path: str | os.PathLike[str],
    *,
    label_column: str | None = None,
    path_column: str | None = None,
    audio_root: str | os.PathLike[str] | None = None,
) -> list[Clip]:
    """Read the clips of a manifest.

    A table has a row per clip: `path` (or `recording`, `file`, `filename`), and optionally `start_s` and `end_s`
    (or `start` and `end`, `start_time` and `end_time`) in seconds, `label` or `labels` (several separated by `;`
    or `|`, or a list), `split`, `fold`, `group` and `id`. All other columns are kept in `Clip.extra`. Rows that
    speak of the same stretch of the same recording are one clip with the labels of all of them. A folder has a
    folder for each class, directly in it or in `train`, `validation` and `test`.

    Args:
        path: A CSV, TSV, JSON lines or Parquet file, or a folder.
        label_column: Column of the labels, if it has another name.
        path_column: Column of the recordings, if it has another name.
        audio_root: Folder that relative paths start from; by default the manifest's own.

    Returns:
        The clips, in order. Recordings are not opened; see `missing_recordings`.

    Raises:
        ConfigError: Something is missing or makes no sense; with file, line and column.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp(), "clips.csv")
        >>> _ = file.write_text("path,start_s,end_s,labels" + chr(10) + "dawn.wav,3,6,wren;robin")
        >>> read_manifest(file)[0].labels
        ('wren', 'robin')
    """
    source = Path(path)
    if source.is_dir():
        return read_folder(source)
    root = source.parent if audio_root is None else Path(audio_root)
    return clips_from_rows(
        read_rows(source), root, f"'{source}'", label_column=label_column, path_column=path_column
    )


def clips_from_rows(
    rows: Iterable[Row],
    root: Path,
    source: str,
    *,
    label_column: str | None = None,
    path_column: str | None = None,
) -> list[Clip]:
    """Make clips of rows, as `read_manifest` does; `source` is the name in messages."""
    rows = list(rows)
    columns = dict.fromkeys(name for row in rows for name in row.values)
    choices = (path_column,) if path_column else (*RECORDING_COLUMNS, "local_path")
    where = find_column(columns, choices, source, "recordings")
    if label_column is not None:
        find_column(columns, (label_column,), source, "labels")
    labels = label_column or next((name for name in LABEL_COLUMNS if name in columns), None)
    make = _ClipMaker(root, tuple(columns), where, labels)
    return merge_rows(((make(row), row) for row in rows), source)


def merge_rows(clips: Iterable[tuple[Clip, Row]], source: str) -> list[Clip]:
    """Join clips of the same stretch of a recording into one with the labels of all.

    Raises:
        ConfigError: They disagree on split, fold or group, or two clips share an id.
    """
    merged: dict[tuple[Path, float, float | None], Clip] = {}
    for clip, row in clips:
        key = (clip.path, clip.start_s, clip.end_s)
        first = merged.setdefault(key, clip)
        if first is clip:
            continue
        for name in (*_PLAIN, "id"):
            if getattr(first, name) != getattr(clip, name):
                raise ConfigError(
                    f"{row.place}, column '{name}': {getattr(clip, name)!r}, but an earlier row of the same clip "
                    f"says {getattr(first, name)!r}."
                )
        merged[key] = replace(first, labels=tuple(dict.fromkeys(first.labels + clip.labels)))
    result = list(merged.values())
    check_unique(result, source)
    return result


def read_folder(folder: Path) -> list[Clip]:
    """Clips of a folder that holds a folder of recordings for each class.

    Raises:
        ConfigError: There are no recordings in such folders.
    """
    clips = []
    for top in sorted(entry for entry in folder.iterdir() if entry.is_dir() and not _hidden(entry)):
        split = SPLIT_FOLDERS.get(top.name.lower())
        inside = [entry for entry in sorted(top.iterdir()) if entry.is_dir() and not _hidden(entry)]
        for label_folder in inside if split else [top]:
            clips += _class_clips(folder, label_folder, split)
    if not clips:
        raise ConfigError(
            f"Folder '{folder}' holds no recordings in folders named after classes. Expected for instance "
            f"'{folder / 'wren' / 'recording.wav'}' or '{folder / 'train' / 'wren' / 'recording.wav'}'."
        )
    return clips


def _class_clips(folder: Path, label_folder: Path, split: str | None) -> list[Clip]:
    files = sorted(
        file
        for file in label_folder.rglob("*")
        if file.suffix.lower() in AUDIO_SUFFIXES and not _hidden(file) and file.is_file()
    )
    return [
        Clip(file, labels=(label_folder.name,), split=split, id=file.relative_to(folder).as_posix())
        for file in files
    ]


def _hidden(path: Path) -> bool:
    return path.name.startswith(".")


class _ClipMaker:
    """Makes clips of rows; each recording's path is made once, however many clips it has."""

    def __init__(self, root: Path, columns: Sequence[str], where: str, labels: str | None) -> None:
        self._root, self._where, self._labels = root, where, labels
        self._times = find_times(columns)
        taken = {where, labels, *(self._times or ()), "id", *_PLAIN}
        self._extra = [name for name in columns if name not in taken]
        self._paths: dict[str, tuple[Path, str]] = {}

    def __call__(self, row: Row) -> Clip:
        values = row.values
        path, name = self._path(row)
        start, end = cell_stretch(row, self._times)
        end_s = None if math.isinf(end) else end
        return Clip(
            path=path,
            start_s=start,
            end_s=end_s,
            labels=cell_labels(values.get(self._labels)) if self._labels else (),
            split=_optional(values, "split"),
            fold=_optional(values, "fold"),
            group=_optional(values, "group"),
            id=_optional(values, "id") or clip_id(name, start, end_s),
            extra={name: values.get(name) for name in self._extra},
        )

    def _path(self, row: Row) -> tuple[Path, str]:
        """A recording's path, and its name as it is written in ids."""
        text = cell_path(row, self._where)
        if text not in self._paths:
            self._paths[text] = (self._root / text, Path(text).as_posix())
        return self._paths[text]


def _optional(values: Mapping[str, Any], name: str) -> str | None:
    return cell_text(values.get(name)) or None
