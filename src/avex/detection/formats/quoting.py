"""Write CSV by RFC 4180."""

from __future__ import annotations

import re
from collections.abc import Iterable

from avex.detection.formats import text

# Outer blanks are quoted too: some readers trim bare cells.
_NEEDS_QUOTES = re.compile(r'[",\r\n]|^\s|\s$')
# One look at the whole line is enough for most; a false alarm only costs time.
_MAY_NEED_CARE = re.compile(r'["\r\n\0\ud800-\udfff\u2409-\u2424]|\s,|,\s|^\s|\s$')


def csv_line(cells: Iterable[str]) -> str:
    r"""Return one record with its line feed, quoting only the cells that need it.

    Example:
        >>> csv_line(["3.0", 'a "b", c'])
        '3.0,"a ""b"", c"\n'
    """
    cells = tuple(cells)
    line = ",".join(cells)
    if line.count(",") >= len(cells) or _MAY_NEED_CARE.search(line):
        line = ",".join(_cell(text.escape(cell, text.NOTHING)) for cell in cells)
    return line + "\n"


def _cell(cell: str) -> str:
    if not _NEEDS_QUOTES.search(cell):
        return cell
    doubled = cell.replace('"', '""')
    return f'"{doubled}"'
