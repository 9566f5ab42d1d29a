"""Label tables: which recordings, or which parts of them, hold what."""

from __future__ import annotations

import csv
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from avex._core.errors import ConfigError, did_you_mean

RECORDING_COLUMNS = ("recording", "path", "file", "filename", "file_name", "filepath", "file_path")
LABEL_COLUMNS = ("label", "labels")
_TIMES = ("start_s", "end_s")
_SEPARATOR = re.compile(r"[;|]")


@dataclass(frozen=True)
class LabelTable:
    """Rows that say: this recording (from `start_s` to `end_s`) holds these labels.

    Attributes:
        recordings: (R) recording of each row, as written.
        labels: (R) labels of each row, without repetitions; empty for "nothing of interest".
        start_s: (R) begin in seconds; None where the table has no times.
        end_s: (R) end in seconds; infinite where it is not stated; None where the table has no times.
        columns: All other columns (`fold`, `split`, `site`, ...), as text.
        source: What the table is called in messages.
        folder: Folder that relative paths are looked up in; None if the table is not a file.

    Example:
        >>> table = LabelTable.read({"path": ["a.wav", "b.wav"], "label": ["frog", "frog; newt"]})
        >>> table.labels, table.classes
        ((('frog',), ('frog', 'newt')), ('frog', 'newt'))
    """

    recordings: tuple[str, ...]
    labels: tuple[tuple[str, ...], ...]
    start_s: tuple[float, ...] | None = None
    end_s: tuple[float, ...] | None = None
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    source: str = "label table"
    folder: Path | None = None

    def __len__(self) -> int:
        return len(self.recordings)

    @property
    def classes(self) -> tuple[str, ...]:
        """All labels that occur, sorted."""
        return tuple(sorted({label for row in self.labels for label in row}))

    @classmethod
    def read(cls, table: Any, *, label_column: str | None = None) -> LabelTable:
        """Read a table of labels.

        The recording is in the first column found of `recording`, `path`, `file`, `filename`; its labels are
        in `label` (one label, taken as it is) or `labels` (several, separated by `;` or `|`; so is a `label`
        that holds one of these). `start_s` and `end_s` are in seconds and optional.

        Args:
            table: A CSV, TSV or Parquet file; a pandas DataFrame; or a mapping of column names to sequences.
            label_column: Column to take labels from, instead of `label` or `labels`.

        Raises:
            ConfigError: The file cannot be read, a column is missing, or a cell makes no sense.
        """
        if isinstance(table, LabelTable):
            return table
        if isinstance(table, (str, os.PathLike)):
            path = Path(table)
            return _build(_read_file(path), f"label table '{path}'", label_column, path.parent)
        if isinstance(table, Mapping):
            columns = {str(name): list(values) for name, values in table.items()}
        elif hasattr(table, "to_dict") and hasattr(table, "columns"):
            columns = {str(name): values for name, values in table.to_dict("list").items()}
        else:
            raise ConfigError(
                f"A label table cannot be a {type(table).__name__}. Expected the path of a CSV, TSV or "
                "Parquet file, a "
                "pandas DataFrame, or a mapping of column names to sequences."
            )
        return _build(columns, "label table", label_column, None)

    def column(self, name: str) -> tuple[str, ...]:
        """Return a further column as text.

        Raises:
            ConfigError: There is none of this name.
        """
        if name not in self.columns:
            raise ConfigError(
                f"The {self.source} has no column '{name}'.{did_you_mean(name, self.columns)} "
                f"Its further columns: {', '.join(self.columns) or 'none'}."
            )
        return self.columns[name]


def _read_file(path: Path) -> dict[str, list[Any]]:
    suffix = path.suffix.lower()
    if not path.is_file():
        raise ConfigError(f"There is no label table at '{path}'. Expected a CSV, TSV or Parquet file.")
    if suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            return pq.read_table(path).to_pydict()
        except (pa.ArrowInvalid, OSError) as error:
            raise ConfigError(f"Label table '{path}' cannot be read: {error}") from error
    if suffix not in (".csv", ".tsv", ".txt"):
        raise ConfigError(f"Label table '{path}' has the ending '{suffix}'. Expected .csv, .tsv or .parquet.")
    return _read_text(path, "," if suffix == ".csv" else "\t")


def _read_text(path: Path, delimiter: str) -> dict[str, list[Any]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [row for row in csv.reader(file, delimiter=delimiter, strict=True) if row]
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"Label table '{path}' is not UTF-8 (byte {error.start}). Save it as UTF-8."
        ) from error
    except csv.Error as error:
        raise ConfigError(f"Label table '{path}' is not a table: {error}.") from error
    if not rows:
        raise ConfigError(
            f"Label table '{path}' is empty. Expected a line of column names and one line per row."
        )
    names = [name.strip() for name in rows[0]]
    if len(set(names)) != len(names):
        raise ConfigError(f"Label table '{path}' has two columns of one name: {', '.join(names)}.")
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(names):
            raise ConfigError(
                f"Label table '{path}': row {number} has {len(row)} cells, but there are {len(names)} "
                "columns. "
                "Quote cells that contain the separator."
            )
    return {name: [row[i] for row in rows[1:]] for i, name in enumerate(names)}


def _build(
    columns: Mapping[str, Sequence[Any]], source: str, label_column: str | None, folder: Path | None
) -> LabelTable:
    recording = _find(columns, RECORDING_COLUMNS, source, "recordings")
    label = _find(columns, (label_column,) if label_column else LABEL_COLUMNS, source, "labels")
    names = [cell_text(value) for value in columns[recording]]
    if not names:
        raise ConfigError(f"The {source} has no rows.")
    for row, name in enumerate(names, start=1):
        if not name:
            raise ConfigError(f"The {source}, row {row}: the column '{recording}' is empty.")
    starts, ends = _times(columns, source, len(names))
    taken = {recording, label, *_TIMES}
    return LabelTable(
        tuple(names),
        tuple(cell_labels(value) for value in columns[label]),
        starts,
        ends,
        {name: tuple(map(cell_text, values)) for name, values in columns.items() if name not in taken},
        source,
        folder,
    )


def _find(columns: Mapping[str, Any], choices: Sequence[str], source: str, what: str) -> str:
    for name in choices:
        if name in columns:
            return name
    raise ConfigError(
        f"The {source} has no column of {what}: expected {' or '.join(map(repr, choices))}. "
        f"Its columns are: {', '.join(columns) or 'none'}."
    )


def cell_text(value: Any) -> str:
    """A cell as text: empty for None and NaN, whole numbers without a point."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # pandas makes floats of whole numbers where a cell is empty
    return str(value).strip()


def cell_labels(value: Any) -> tuple[str, ...]:
    """Labels of a cell: a list, or text separated by `;` or `|`; each once."""
    if isinstance(value, (list, tuple, set)) or hasattr(value, "tolist"):
        parts = [cell_text(part) for part in (value.tolist() if hasattr(value, "tolist") else value)]
    else:
        parts = [part.strip() for part in _SEPARATOR.split(cell_text(value))]
    return tuple(dict.fromkeys(part for part in parts if part))


def _times(
    columns: Mapping[str, Sequence[Any]], source: str, rows: int
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    if not any(name in columns for name in _TIMES):
        return None, None
    starts = [
        _seconds(v, "start_s", i, source, 0.0) for i, v in enumerate(columns.get("start_s", [""] * rows), 1)
    ]
    ends = [
        _seconds(v, "end_s", i, source, math.inf) for i, v in enumerate(columns.get("end_s", [""] * rows), 1)
    ]
    for row, (start, end) in enumerate(zip(starts, ends, strict=True), start=1):
        if not 0 <= start < end:
            raise ConfigError(
                f"The {source}, row {row}: {start:g} to {end:g} s is not a part of a recording."
            )
    return tuple(starts), tuple(ends)


def _seconds(value: Any, name: str, row: int, source: str, default: float) -> float:
    text = cell_text(value)
    if not text:
        return default
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds):
        raise ConfigError(f"The {source}, row {row}: {name} = {text!r} is not a number of seconds.")
    return seconds
