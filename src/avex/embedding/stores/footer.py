"""What a store file says about itself, in the key-value part of its Parquet footer.

Parts and finished tables carry the same two keys, so every part is itself a small store:

- `avex`: JSON with `schema_version`, `session` (one writing of the table, from start to merge) and `header`.
- `avex.recordings`: the recordings in row order as JSON `[[name, bytes, mtime_ns, rows], ...]`, zlib-compressed and
  base64-encoded, because Parquet readers limit the length of text in a footer.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from avex._core.errors import StoreError
from avex.embedding.stores.base import SCHEMA_VERSION, RecordingKey, StoreHeader
from avex.embedding.stores.names import decode_name, encode_name

RUN_KEY = b"avex"
RECORDINGS_KEY = b"avex.recordings"


@dataclass(frozen=True, slots=True)
class Entry:
    """One committed recording and the number of its rows, which follow those of the entry before."""

    key: RecordingKey
    rows: int


@dataclass(frozen=True)
class Footer:
    """The session that wrote a file, the header of its store, and its recordings in row order."""

    session: str
    header: StoreHeader
    entries: list[Entry]

    @property
    def rows(self) -> int:
        """Number of rows in the file."""
        return sum(entry.rows for entry in self.entries)


def encode_footer(footer: Footer) -> dict[bytes, bytes]:
    """Return the key-value metadata for a file."""
    run = {"schema_version": SCHEMA_VERSION, "session": footer.session, "header": footer.header.as_dict()}
    entries = [[encode_name(e.key.recording), e.key.bytes, e.key.mtime_ns, e.rows] for e in footer.entries]
    packed = zlib.compress(json.dumps(entries, separators=(",", ":")).encode(), level=1)
    return {RUN_KEY: json.dumps(run).encode(), RECORDINGS_KEY: base64.b64encode(packed)}


def read_footer(path: Path) -> Footer | None:
    """Read the footer of a store file; None when the file is not one.

    Raises:
        StoreError: It is a store file, but its footer is damaged or of a newer version of avex.
        FileNotFoundError: There is no such file.
    """
    try:
        metadata = pq.read_metadata(path)
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException):
        return None
    pairs = metadata.metadata or {}
    if RUN_KEY not in pairs:
        return None
    footer = _decode(pairs, path)
    if footer.rows != metadata.num_rows:
        raise StoreError(
            f"'{path}' is damaged: its recordings have {footer.rows} rows, its table {metadata.num_rows}."
        )
    return footer


def check_version(found: Any, path: Path) -> None:
    """Refuse a store of a version that this release does not know.

    Raises:
        StoreError: The version is newer, or is no version at all.
    """
    if not isinstance(found, int) or found < 1:
        raise StoreError(f"'{path}' is damaged: {found!r} is no schema version.")
    if found > SCHEMA_VERSION:
        raise StoreError(
            f"'{path}' has schema version {found}; this avex reads versions up to {SCHEMA_VERSION}. Upgrade avex."
        )


def _decode(pairs: dict[bytes, bytes], path: Path) -> Footer:
    try:
        run = json.loads(pairs[RUN_KEY])
        check_version(run.get("schema_version"), path)
        listed = json.loads(zlib.decompress(base64.b64decode(pairs[RECORDINGS_KEY])))
        entries = [
            Entry(RecordingKey(decode_name(name), size, mtime), rows) for name, size, mtime, rows in listed
        ]
        return Footer(run["session"], StoreHeader.from_dict(run["header"]), entries)
    except (KeyError, TypeError, ValueError, AttributeError, zlib.error, binascii.Error) as error:
        raise StoreError(f"The footer of '{path}' is damaged ({type(error).__name__}: {error}).") from error
