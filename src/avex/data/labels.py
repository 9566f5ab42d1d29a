"""Label tables: which recordings, or which parts of them, hold what."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from avex._core.errors import ConfigError, did_you_mean
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
        that holds one of these). `start_s` and `end_s` (or `start` and `end`, `start_time` and `end_time`) are in
        seconds and optional.

        Args:
            table: A CSV, TSV, JSON lines or Parquet file; a pandas DataFrame; or a mapping of column names to
                sequences.
            label_column: Column to take labels from, instead of `label` or `labels`.

        Raises:
            ConfigError: The file cannot be read, a column is missing, or a cell makes no sense.
        """
        if isinstance(table, LabelTable):
            return table
        if isinstance(table, (str, os.PathLike)):
            path = Path(table)
            return _build(read_rows(path), f"label table '{path}'", label_column, path.parent)
        if isinstance(table, Mapping):
            columns = {str(name): list(values) for name, values in table.items()}
        elif hasattr(table, "to_dict") and hasattr(table, "columns"):
            columns = {str(name): values for name, values in table.to_dict("list").items()}
        else:
            raise ConfigError(
                f"A label table cannot be a {type(table).__name__}. Expected the path of a CSV, TSV, JSON lines or "
                "Parquet file, a pandas DataFrame, or a mapping of column names to sequences."
            )
        return _build(_rows_of(columns), "label table", label_column, None)

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


def _rows_of(columns: Mapping[str, Sequence[Any]]) -> list[Row]:
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ConfigError(f"The columns of the label table differ in length: {lengths}.")
    if not any(lengths.values()):
        raise ConfigError("The label table has no rows.")
    return [
        Row(dict(zip(columns, cells, strict=True)), "label table", number, "row")
        for number, cells in enumerate(zip(*columns.values(), strict=True), start=1)
    ]


def _build(rows: Sequence[Row], source: str, label_column: str | None, folder: Path | None) -> LabelTable:
    columns = dict.fromkeys(name for row in rows for name in row.values)
    recording = find_column(columns, RECORDING_COLUMNS, f"The {source}", "recordings")
    choices = (label_column,) if label_column else LABEL_COLUMNS
    label = find_column(columns, choices, f"The {source}", "labels")
    times = find_times(columns)
    stretches = [cell_stretch(row, times) for row in rows] if times else None
    taken = {recording, label, *(times or ())}
    return LabelTable(
        tuple(cell_path(row, recording) for row in rows),
        tuple(cell_labels(row.values.get(label)) for row in rows),
        tuple(start for start, _ in stretches) if stretches else None,
        tuple(end for _, end in stretches) if stretches else None,
        {
            name: tuple(cell_text(row.values.get(name)) for row in rows)
            for name in columns
            if name not in taken
        },
        source,
        folder,
    )
