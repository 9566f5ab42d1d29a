"""Read any selection table: `read_table` finds out by the content which kind it is."""

from __future__ import annotations

import os
import re

from avex._core.errors import ConfigError
from avex.detection.formats.audacity import read as read_audacity
from avex.detection.formats.raven import read as read_raven
from avex.detection.formats.rows import column_key, open_binary
from avex.detection.records import Detection
from avex.detection.tables import FORMATS, Format, get_format

__all__ = ["read_audacity", "read_raven", "read_table", "sniff_format"]

_HEAD = 65_536
_BOM = b"\xef\xbb\xbf"
_LABEL_LINE = re.compile(r"[-+]?[\d.,eE+-]+\t[-+]?[\d.,eE+-]+(\t|$)")


def read_table(
    path: str | os.PathLike[str], fmt: str | Format | None = None, **options: object
) -> list[Detection]:
    """Read a table in any of the formats.

    Args:
        path: The table.
        fmt: Its format; None recognises it by the content, not by the name.
        options: Arguments of the format's `read`, such as `label_column` for Raven.

    Raises:
        ConfigError: The content is of no known format, or wrong, with file, line and column.
        UnknownNameError: There is no format `fmt`.

    Example:
        >>> import tempfile, pathlib
        >>> table = pathlib.Path(tempfile.mkdtemp()) / "dawn.csv"
        >>> header = "Start (s),End (s),Scientific name,Common name,Confidence,File"
        >>> _ = table.write_text(header + chr(10) + "0.0,3.0,Parus major,Great Tit,0.9,dawn.wav")
        >>> read_table(table)[0].label
        'Parus major_Great Tit'
    """
    chosen = sniff_format(path) if fmt is None else get_format(fmt)
    return chosen.read(path, **options)


def sniff_format(path: str | os.PathLike[str]) -> Format:
    """Recognise the format of a table by its first line.

    An empty file is a label track without labels if it is named as one (`.results.txt`).

    Raises:
        ConfigError: There is no such file, or it is of no known format.
    """
    with open_binary(path) as file:
        head = file.read(_HEAD)
    name = _recognise(head)
    if name is None and not head.strip() and str(path).endswith(FORMATS["audacity"].suffix):
        name = "audacity"
    if name is None:
        raise ConfigError(
            f"'{path}' is no table that avex knows. Expected one of: {', '.join(FORMATS)}. Its first line does not "
            "look like any of them. Save it as UTF-8 text; if you know which it is, read it with fmt=..."
        )
    return FORMATS[name]


def _recognise(head: bytes) -> str | None:
    if head.startswith(b"PAR1"):
        return "parquet"
    # Only ASCII words are looked for, so the encoding of the rest does not matter here.
    content = head.removeprefix(_BOM).decode("latin-1").lstrip("\r\n")
    if content.lstrip().startswith("{"):
        return "json"
    first_line = content.replace("\r", "\n").split("\n", 1)[0]
    if "begin time (s)" in _header(first_line, "\t"):
        return "raven"
    comma_header = _header(first_line, ",")
    if {"start (s)", "end (s)"} <= comma_header:
        return "csv"
    if {"in file", "offset"} <= comma_header:
        return "kaleidoscope"
    return "audacity" if _LABEL_LINE.match(first_line) else None


def _header(line: str, delimiter: str) -> set[str]:
    return {column_key(name.strip().strip('"')) for name in line.split(delimiter)}
