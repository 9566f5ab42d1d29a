"""Rows of a table file with the place that each is from: CSV, TSV, Parquet, JSON lines."""

from __future__ import annotations

import csv
import json
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from avex._core.errors import ConfigError

_DELIMITERS = {".csv": ",", ".tsv": "\t", ".txt": "\t"}
_JSON_LINES = (".jsonl", ".ndjson")
TABLE_SUFFIXES = (*_DELIMITERS, *_JSON_LINES, ".parquet")


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table.

    Attributes:
        values: Cells by column.
        source: File, or what the table is called.
        number: Its line; of a Parquet file its row, from 1.
        unit: What the number counts.
    """

    values: dict[str, Any]
    source: str
    number: int
    unit: str = "line"

    @property
    def place(self) -> str:
        """Where it is, for messages.

        Example:
            >>> Row({}, "clips.csv", 3).place
            "'clips.csv', line 3"
        """
        return f"'{self.source}', {self.unit} {self.number}"


def read_rows(path: Path, *, without: Container[str] = ()) -> list[Row]:
    """Read a table.

    Args:
        path: A `.csv`, `.tsv`, `.txt` (tab-separated), `.jsonl`, `.ndjson` or `.parquet` file. Text is UTF-8. A
            CSV file may have semicolons, as spreadsheets of some languages write it. Columns without a name are
            left out.
        without: Columns of a Parquet file that are not read, such as audio.

    Raises:
        ConfigError: The file is missing, of another kind, damaged or empty; with file and line.
    """
    suffix = path.suffix.lower()
    if not path.exists():
        raise ConfigError(f"There is no table at '{path}'.")
    if suffix not in TABLE_SUFFIXES or not path.is_file():
        raise ConfigError(
            f"Table '{path}' has the ending '{suffix}'. Expected a file with one of {', '.join(TABLE_SUFFIXES)}."
        )
    if suffix == ".parquet":
        rows = list(_parquet(path, without))
    else:
        try:
            rows = list(_text(path, suffix))
        except UnicodeDecodeError as error:
            raise ConfigError(
                f"Table '{path}' is not UTF-8 (byte {error.start}). Save it as UTF-8."
            ) from error
    if not rows:
        raise ConfigError(f"Table '{path}' has no rows.")
    return rows


def _text(path: Path, suffix: str) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        if suffix in _JSON_LINES:
            yield from _json_lines(path, file)
            return
        reader = csv.reader(file, delimiter=_delimiter(file, suffix), strict=True)
        try:
            yield from _cells(path, reader)
        except csv.Error as error:
            raise ConfigError(f"'{path}', line {reader.line_num}: not a table ({error}).") from error


def _delimiter(file: TextIO, suffix: str) -> str:
    """What separates the cells: what the ending says, or where that is not in the first line, what is."""
    first = file.readline()
    file.seek(0)
    usual = _DELIMITERS[suffix]
    return usual if usual in first else next((mark for mark in (";", "\t") if mark in first), usual)


def _cells(path: Path, reader: Any) -> Iterator[Row]:
    names: list[str] | None = None
    source = str(path)
    for cells in reader:
        if not any(map(str.strip, cells)):
            continue
        if names is None:
            names = [name.strip() for name in cells]
            named = [name for name in names if name]
            if len(set(named)) != len(named):
                raise ConfigError(
                    f"'{path}', line {reader.line_num}: two columns have one name: {', '.join(names)}."
                )
        elif len(cells) != len(names):
            raise ConfigError(
                f"'{path}', line {reader.line_num}: {len(cells)} cells, but there are {len(names)} columns. Quote "
                "cells that contain the separator."
            )
        else:
            # Columns without a name are the numbers of rows that pandas writes.
            values = {name: cell for name, cell in zip(names, cells, strict=True) if name}
            yield Row(values, source, reader.line_num)


def _json_lines(path: Path, lines: Any) -> Iterator[Row]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        place = f"'{path}', line {number}"
        try:
            values = json.loads(line)
        except json.JSONDecodeError as error:
            raise ConfigError(f"{place}: not JSON ({error.msg}, column {error.colno}).") from error
        if not isinstance(values, dict):
            raise ConfigError(
                f"{place}: expected an object of names and values, not {type(values).__name__}."
            )
        yield Row(values, str(path), number)


def _parquet(path: Path, without: Container[str]) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            names = [name for name in file.schema_arrow.names if name not in without]
            for batch in file.iter_batches(columns=names):
                for values in batch.to_pylist():
                    number += 1
                    yield Row(values, str(path), number, "row")
    except (pa.ArrowInvalid, OSError) as error:
        raise ConfigError(f"Table '{path}' cannot be read: {error}") from error
