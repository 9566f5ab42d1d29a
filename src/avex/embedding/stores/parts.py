"""Files of a store: written once as a whole, read row group by row group."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from avex._core.errors import StoreError
from avex.embedding.stores.footer import Entry, Footer, encode_footer, read_footer
from avex.io.atomic import publish

Ranges = list[tuple[int, int]]


@dataclass(frozen=True)
class Segment:
    """A store file and the recordings in it, in row order."""

    path: Path
    entries: list[Entry]


class PartWriter:
    """Writes one file under a temporary name; `finish` makes it appear, complete, under its own.

    Args:
        temporary: Name while it is written. An older file of that name is replaced.
        schema: Columns.
    """

    def __init__(self, temporary: Path, schema: pa.Schema) -> None:
        self.rows = 0
        self._temporary = temporary
        self._sink = pa.OSFile(str(temporary), "wb")
        self._writer = pq.ParquetWriter(self._sink, schema, **_encoding(schema))

    def write(self, batch: pa.RecordBatch) -> None:
        """Write a row group."""
        if batch.num_rows:
            self._writer.write_batch(batch, row_group_size=batch.num_rows)
            self.rows += batch.num_rows

    def finish(self, footer: Footer, target: Path) -> Segment:
        """Write the footer, flush to the disk and rename to `target`."""
        self._writer.add_key_value_metadata(encode_footer(footer))
        self._writer.close()
        self._sink.close()
        publish(self._temporary, target)
        return Segment(target, footer.entries)

    def abort(self) -> None:
        """Drop what was written."""
        with suppress(OSError, pa.ArrowException):
            self._writer.close()
        self._writer.is_open = False  # after a failed close, the finaliser would try again and complain
        with suppress(OSError):
            self._sink.close()
        with suppress(OSError):
            self._temporary.unlink(missing_ok=True)


def write_part(
    temporary: Path, target: Path, batches: Iterator[pa.RecordBatch], schema: pa.Schema, footer: Footer
) -> Segment:
    """Write a whole file, one row group per batch.

    Raises:
        OSError: As the system reports it; the temporary file is removed.
        StoreError: A file that is read along the way is damaged.
    """
    writer = PartWriter(temporary, schema)
    try:
        for batch in batches:
            writer.write(batch)
        return writer.finish(footer, target)
    except BaseException:
        writer.abort()
        raise


def read_segment(path: Path) -> tuple[Segment, Footer]:
    """Read the footer of a part.

    Raises:
        StoreError: The part is damaged.
        FileNotFoundError: It is not there.
    """
    footer = read_footer(path)
    if footer is None:
        raise StoreError(
            f"Part '{path}' of this store is damaged: it has no readable footer. Restore it, or delete it to "
            "have its recordings embedded again."
        )
    return Segment(path, footer.entries), footer


def live_entries(segments: Sequence[Segment]) -> tuple[list[Entry], list[Ranges]]:
    """Tell what counts: each recording where it was committed last.

    Returns:
        The recordings that count, in row order, and for each segment the row ranges that hold them.
    """
    last = {
        entry.key.recording: (i, j)
        for i, segment in enumerate(segments)
        for j, entry in enumerate(segment.entries)
    }
    entries: list[Entry] = []
    ranges: list[Ranges] = []
    for i, segment in enumerate(segments):
        offset = 0
        found: Ranges = []
        for j, entry in enumerate(segment.entries):
            if last[entry.key.recording] == (i, j):
                entries.append(entry)
                if entry.rows and found and found[-1][1] == offset:
                    found[-1] = (found[-1][0], offset + entry.rows)
                elif entry.rows:
                    found.append((offset, offset + entry.rows))
            offset += entry.rows
        ranges.append(found)
    return entries, ranges


def scan_segments(
    segments: Sequence[Segment], columns: list[str], batch_rows: int
) -> Iterator[pa.RecordBatch]:
    """Yield the rows that count, in order; one row group is in memory at a time.

    Raises:
        StoreError: A file is damaged or has gone.
    """
    _, ranges = live_entries(segments)
    for segment, wanted in zip(segments, ranges, strict=True):
        if wanted:
            yield from _scan_file(segment.path, wanted, columns, batch_rows)


def _scan_file(path: Path, wanted: Ranges, columns: list[str], batch_rows: int) -> Iterator[pa.RecordBatch]:
    # Only the reads are guarded: an error of the consumer, thrown in at a yield, is not damage.
    batches = _read_groups(path, wanted, columns, batch_rows)
    while True:
        try:
            batch = next(batches, None)
        except FileNotFoundError as error:
            raise StoreError(
                f"'{path}' has gone while it was read; its store was completed or replaced. Open it again."
            ) from error
        except (OSError, pa.ArrowException) as error:
            raise StoreError(
                f"'{path}' is damaged and cannot be read: {error}. Restore it, or embed its recordings again."
            ) from error
        if batch is None:
            return
        yield batch


def _read_groups(path: Path, wanted: Ranges, columns: list[str], batch_rows: int) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        end = 0
        for group in range(file.num_row_groups):
            begin, end = end, end + file.metadata.row_group(group).num_rows
            if not _overlaps(wanted, begin, end):
                continue
            offset = begin
            for batch in file.iter_batches(
                batch_rows, row_groups=[group], columns=columns, use_threads=False
            ):
                for start, stop in _overlaps(wanted, offset, offset + batch.num_rows):
                    yield (
                        batch.slice(start - offset, stop - start)
                        .select(columns)
                        .replace_schema_metadata(None)
                    )
                offset += batch.num_rows


def _overlaps(wanted: Ranges, begin: int, end: int) -> Ranges:
    """Return what sorted, disjoint ranges have in common with `[begin, end)`."""
    first = bisect_right(wanted, begin, key=lambda found: found[1])
    common: Ranges = []
    for start, stop in islice(wanted, first, None):
        if start >= end:
            break
        common.append((max(start, begin), min(stop, end)))
    return common


def _encoding(schema: pa.Schema) -> dict[str, object]:
    """Return the writer's options: small columns zstd, embeddings as they are.

    Embeddings shrink by about a tenth under zstd and cost half of the speed, so they are not compressed. Checksums
    find pages that a failing disk has changed.
    """
    scalars = [field.name for field in schema if not pa.types.is_fixed_size_list(field.type)]
    vectors = [f"{name}.list.element" for name in schema.names if name not in scalars]
    return {
        "compression": dict.fromkeys(scalars, "zstd") | dict.fromkeys(vectors, "none"),
        "compression_level": dict.fromkeys(scalars, 1),
        "use_dictionary": ["recording"],
        "write_statistics": scalars,
        "write_page_checksum": True,
    }
