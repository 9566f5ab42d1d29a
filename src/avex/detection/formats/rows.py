"""Read delimited text with messages that say file, line and column."""

from __future__ import annotations

import codecs
import csv
import io
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, TextIO

from avex._core.errors import ConfigError, did_you_mean
from avex.detection.records import Detection

TablePath = str | os.PathLike[str]


@lru_cache(maxsize=1024)  # asked for several times per line
def column_key(name: str) -> str:
    """Return a column name without what varies: case, outer blanks, the `*` that Kaleidoscope appends."""
    return name.strip().rstrip("*").rstrip().casefold()


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table, its cells found by column name.

    Attributes:
        place: File and line, for messages.
        cells: As many as there are columns, or fewer.
        columns: `column_key` of each name to its index.
    """

    place: str
    cells: Sequence[str]
    columns: Mapping[str, int]

    def text(self, name: str) -> str:
        """Return a cell as it is, or an empty string where the column or the cell is missing."""
        index = self.columns.get(column_key(name), len(self.cells))
        return self.cells[index] if index < len(self.cells) else ""

    def number(self, name: str, default: float | None = None) -> float:
        """Return a cell as a finite number, or `default` where it is blank.

        Raises:
            ConfigError: It is blank and there is no default, or it is not a number.
        """
        text = self.text(name).strip()
        if not text and default is not None:
            return default
        return parse_number(text, f"{self.place}, column '{name}'")

    def integer(self, name: str, default: int) -> int:
        """Return a cell as a whole number, or `default` where it is blank.

        Raises:
            ConfigError: It is neither blank nor a whole number.
        """
        value = self.number(name, default)
        if value != int(value):
            raise ConfigError(f"{self.place}, column '{name}': found '{value}', expected a whole number.")
        return int(value)


@dataclass(frozen=True, slots=True)
class Table:
    """A header, and the rows below it (one pass).

    Attributes:
        path: File name, for messages.
        names: Column names as written.
        rows: Lines below the header; blank ones are skipped.
    """

    path: str
    names: tuple[str, ...]
    rows: Iterator[Row]

    def find(self, names: Iterable[str]) -> str | None:
        """Return the first of `names` that is a column here, or None."""
        present = {column_key(name) for name in self.names}
        return next((name for name in names if column_key(name) in present), None)

    def require(self, *names: str) -> None:
        """Check that every one of `names` is a column.

        Raises:
            ConfigError: One is missing.
        """
        missing = [name for name in names if self.find([name]) is None]
        if missing:
            raise ConfigError(
                f"Table '{self.path}', line 1: there is no column '{missing[0]}'."
                f"{did_you_mean(missing[0], self.names)} Expected {quoted(names)}; found {quoted(self.names)}."
            )

    def choose(self, wanted: str | None, candidates: Sequence[str], what: str) -> str:
        """Return the column that holds `what`: the wanted one, or the first of the candidates.

        Raises:
            ConfigError: It is not there.
        """
        if wanted is not None:
            self.require(wanted)
            return wanted
        found = self.find(candidates)
        if found is None:
            raise ConfigError(
                f"Table '{self.path}', line 1: no column holds the {what}. Expected one of {quoted(candidates)}; "
                f"found {quoted(self.names)}. Say which with {what}_column=..."
            )
        return found


@contextmanager
def open_text(path: TablePath, encoding: str = "utf-8") -> Iterator[TextIO]:
    """Open a table for reading; a byte order mark is skipped.

    Raises:
        ConfigError: There is no such file, or it is not in this encoding.
    """
    try:
        codec = codecs.lookup(encoding).name
    except LookupError as error:
        raise ConfigError(
            f"Unknown encoding '{encoding}'. Expected one that Python knows, such as 'cp1252'."
        ) from error
    with open_binary(path) as binary:
        # The wrapper closes the file beneath it, which may be closed twice.
        file = io.TextIOWrapper(binary, "utf-8-sig" if codec == "utf-8" else codec, newline="")
        try:
            yield file
        except UnicodeDecodeError as error:
            raise ConfigError(
                f"Table '{path}' is not {encoding} text ({error.reason}). "
                "Save it as UTF-8, or read it with encoding='cp1252' if a Windows program wrote it."
            ) from error


def open_binary(path: TablePath) -> BinaryIO:
    """Open a table for reading bytes.

    Raises:
        ConfigError: There is no such file.
    """
    try:
        return Path(path).open("rb")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise ConfigError(f"There is no table at '{path}'. Expected a file.") from error


@contextmanager
def open_table(path: TablePath, delimiter: str, encoding: str = "utf-8") -> Iterator[Table]:
    """Open a delimited text file with a header.

    With commas, cells may be quoted (RFC 4180); with tabs they are taken as they are, as Raven writes them.

    Raises:
        ConfigError: It cannot be read, or has no header.
    """
    with open_text(path, encoding) as file:
        lines = _quoted_lines(file, path) if delimiter == "," else _plain_lines(file, delimiter)
        filled = ((line, cells) for line, cells in lines if any(cell.strip() for cell in cells))
        _, header = next(filled, (0, []))
        if not header:
            raise ConfigError(f"Table '{path}' is empty. Expected a header line.")
        columns: dict[str, int] = {}
        for index, name in enumerate(header):
            columns.setdefault(column_key(name), index)
        yield Table(str(path), tuple(header), _rows(str(path), columns, len(header), filled))


def parse_number(text: str, place: str) -> float:
    """Return a text as a finite number.

    Raises:
        ConfigError: It is not one; the message begins with `place`.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        hint = " Write decimals with a point." if "," in text else ""
        raise ConfigError(f"{place}: found '{text}', expected a number.{hint}")
    return value


def make_detection(place: str, **fields: object) -> Detection:
    """Build a detection; an impossible value is reported with its file and line."""
    try:
        return Detection(**fields)  # type: ignore[arg-type]
    except ConfigError as error:
        raise ConfigError(f"{place}: {error}") from None
    except TypeError as error:
        raise ConfigError(f"{place}: a field is missing, unknown or of the wrong type ({error}).") from error


def place_of(path: TablePath, line: int) -> str:
    """Return how messages name a line."""
    return f"Table '{path}', line {line}"


def quoted(names: Iterable[str]) -> str:
    """List names in quotes."""
    return ", ".join(f"'{name}'" for name in names)


def _plain_lines(file: TextIO, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(file, start=1):
        yield number, line.rstrip("\r\n").split(delimiter)


def _quoted_lines(file: TextIO, path: TablePath) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(file, strict=True)
    try:
        for cells in reader:
            yield reader.line_num, cells
    except csv.Error as error:
        raise ConfigError(f"{place_of(path, reader.line_num)}: not valid CSV ({error}).") from error


def _rows(
    path: str, columns: Mapping[str, int], width: int, lines: Iterable[tuple[int, list[str]]]
) -> Iterator[Row]:
    for line, cells in lines:
        place = place_of(path, line)
        if any(cell.strip() for cell in cells[width:]):
            raise ConfigError(
                f"{place}: found {len(cells)} cells, expected {width} as in the header. "
                "A cell may hold the delimiter; quote or remove it."
            )
        yield Row(place, cells, columns)
