"""Names that columns have in people's tables, and cells read as text, labels and seconds."""

from __future__ import annotations

import math
import re
from collections.abc import Container, Iterable, Mapping
from typing import Any

from avex._core.errors import ConfigError
from avex.data.rows import Row

RECORDING_COLUMNS = ("recording", "path", "file", "filename", "file_name", "filepath", "file_path")
LABEL_COLUMNS = ("label", "labels")
TIME_COLUMNS = (("start_s", "end_s"), ("start_time", "end_time"), ("start", "end"))
"""Begin and end of a clip. The first pair counts also where there is one of them only."""

_SEPARATOR = re.compile(r"[;|]")
_MISSING = frozenset({"NAType", "NaTType"})  # of pandas, which is not imported for this


def find_column(columns: Mapping[str, Any], choices: Iterable[str], source: str, what: str) -> str:
    """The first of some names that a table has.

    Raises:
        ConfigError: It has none of them.
    """
    for name in choices:
        if name in columns:
            return name
    expected = " or ".join(map(repr, choices))
    raise ConfigError(
        f"{source} has no column of {what}: expected {expected}. Its columns are: {', '.join(columns) or 'none'}."
    )


def find_times(columns: Container[str]) -> tuple[str, str] | None:
    """The columns of begin and end, of which one may be missing; None where there are no times.

    Example:
        >>> find_times({"path", "start", "end"})
        ('start', 'end')
    """
    seconds = TIME_COLUMNS[0]
    if any(name in columns for name in seconds):
        return seconds
    return next((pair for pair in TIME_COLUMNS if all(name in columns for name in pair)), None)


def cell_text(value: Any) -> str:
    """A cell as text: empty for what is missing, whole numbers without a point."""
    if value is None or (isinstance(value, float) and math.isnan(value)) or type(value).__name__ in _MISSING:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # pandas makes floats of whole numbers where a cell is empty
    return str(value).strip()


def cell_labels(value: Any) -> tuple[str, ...]:
    """Labels of a cell: a list, or text separated by `;` or `|`; each once."""
    if isinstance(value, (list, tuple, set)) or hasattr(value, "tolist"):
        items = value.tolist() if hasattr(value, "tolist") else value
        parts = [cell_text(part) for part in (items if isinstance(items, (list, tuple, set)) else [items])]
    else:
        parts = [part.strip() for part in _SEPARATOR.split(cell_text(value))]
    return tuple(dict.fromkeys(part for part in parts if part))


def cell_path(row: Row, name: str) -> str:
    """The cell that names a recording.

    Raises:
        ConfigError: It is empty, or no text.
    """
    value = row.values.get(name)
    text = "" if isinstance(value, (list, tuple, dict)) else cell_text(value)
    if not text:
        what = "empty" if not value else f"a {type(value).__name__}"
        raise ConfigError(f"{row.place}, column '{name}': {what}. Expected the path of a recording.")
    return text


def cell_stretch(row: Row, names: tuple[str, str] | None) -> tuple[float, float]:
    """Begin and end in seconds; 0 and infinity where they are not stated.

    Raises:
        ConfigError: A cell is no number of seconds from 0, or the end is not after the begin.
    """
    if names is None:
        return 0.0, math.inf
    start, end = _seconds(row, names[0], 0.0), _seconds(row, names[1], math.inf)
    if not start < end:
        raise ConfigError(
            f"{row.place}, columns '{names[0]}' and '{names[1]}': {start:g} to {end:g} s is not a part of a "
            "recording."
        )
    return start, end


def _seconds(row: Row, name: str, default: float) -> float:
    text = cell_text(row.values.get(name))
    if not text:
        return default
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds) or seconds < 0:
        raise ConfigError(f"{row.place}, column '{name}': {text!r} is not a number of seconds from 0.")
    return seconds
