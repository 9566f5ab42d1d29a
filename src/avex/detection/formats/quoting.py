"""Write CSV by RFC 4180."""

from __future__ import annotations

import re
from collections.abc import Iterable

from avex.detection.formats import text

# Outer blanks are quoted too: some readers trim bare cells.
_NEEDS_QUOTES = re.compile(r'[",\r\n]|^\s|\s$')


def csv_line(cells: Iterable[str]) -> str:
    r"""Return one record with its line feed, quoting only the cells that need it.

    Example:
        >>> csv_line(["3.0", 'a "b", c'])
        '3.0,"a ""b"", c"\n'
    """
    return ",".join(_cell(text.escape(cell, text.NOTHING)) for cell in cells) + "\n"


def _cell(cell: str) -> str:
    if not _NEEDS_QUOTES.search(cell):
        return cell
    doubled = cell.replace('"', '""')
    return f'"{doubled}"'
