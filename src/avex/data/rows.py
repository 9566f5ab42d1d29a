"""Rows of a table file with the place that each is from: CSV, TSV, Parquet, JSON lines."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


def read_rows(path: Path) -> list[Row]:
    """Read a table.

    Args:
        path: A `.csv`, `.tsv`, `.txt` (tab-separated), `.jsonl`, `.ndjson` or `.parquet` file. Text is UTF-8.

    Raises:
        ConfigError: The file is missing, of another kind, damaged or empty; with file and line.
    """
    suffix = path.suffix.lower()
    if suffix not in TABLE_SUFFIXES:
        raise ConfigError(
            f"Table '{path}' has the ending '{suffix}'. Expected one of {', '.join(TABLE_SUFFIXES)}."
        )
    if not path.is_file():
        raise ConfigError(f"There is no table at '{path}'.")
    if suffix == ".parquet":
        rows = list(_parquet(path))
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
        reader = csv.reader(file, delimiter=_DELIMITERS[suffix], strict=True)
        try:
            yield from _cells(path, reader)
        except csv.Error as error:
            raise ConfigError(f"'{path}', line {reader.line_num}: not a table ({error}).") from error


def _cells(path: Path, reader: Any) -> Iterator[Row]:
    names: list[str] | None = None
    source = str(path)
    for cells in reader:
        if not cells:
            continue
        if names is None:
            names = [name.strip() for name in cells]
            if len(set(names)) != len(names):
                raise ConfigError(
                    f"'{path}', line {reader.line_num}: two columns have one name: {', '.join(names)}."
                )
        elif len(cells) != len(names):
            raise ConfigError(
                f"'{path}', line {reader.line_num}: {len(cells)} cells, but there are {len(names)} columns. Quote "
                "cells that contain the separator."
            )
        else:
            yield Row(dict(zip(names, cells, strict=True)), source, reader.line_num)


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


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches():
                for values in batch.to_pylist():
                    number += 1
                    yield Row(values, str(path), number, "row")
    except (pa.ArrowInvalid, OSError) as error:
        raise ConfigError(f"Table '{path}' cannot be read: {error}") from error
