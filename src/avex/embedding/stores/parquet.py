"""The store on disk: one Parquet file, which a kill, a full disk or a second writer cannot harm."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Literal

import pyarrow as pa

from avex._core.errors import StoreError
from avex.embedding.stores import rows
from avex.embedding.stores.base import EmbeddingBatch, RecordingKey, StoreHeader
from avex.embedding.stores.folder import PartialFolder, read_finished
from avex.embedding.stores.full_disk import full_disk, is_full
from avex.embedding.stores.lock import WriterLock
from avex.embedding.stores.merge import merge
from avex.embedding.stores.opening import begin, read_snapshot, resolve_target, resume
from avex.embedding.stores.parts import Segment, live_entries, scan_segments
from avex.embedding.stores.reading import TableReader
from avex.embedding.stores.writer import GroupWriter, SealPolicy

if TYPE_CHECKING:
    from typing_extensions import Self

logger = logging.getLogger(__name__)

Mode = Literal["resume", "overwrite", "read"]


class ParquetStore(TableReader):
    """An `EmbeddingStore` that ends as one Parquet file; the format is in `docs/reference/store-format.md`.

    While it is written, whole recordings are sealed into small immutable files in `<path>.partial`. `close` merges
    them into `<path>`. Leaving a `with` block by an error keeps them instead (`suspend`), and the next
    `mode="resume"` goes on from there. One thread writes at a time.

    Args:
        path: The finished table, by custom `*.parquet`. Missing folders are created.
        header: Settings of the run; None only for `mode="read"`.
        mode: `"resume"` continues what is there, finished or not, and starts anew where nothing is;
            `"overwrite"` starts anew, and an older table stays until the new one is complete;
            `"read"` writes nothing and needs no lock.
        seal: When buffered recordings go to the disk.

    Raises:
        StoreExistsError: What is there was made with other settings, or is not a store.
        StoreLockedError: Another process is writing this store.
        StoreFullError: The disk is full.
        StoreError: What is there is damaged, or cannot be written.

    Example:
        >>> with ParquetStore("dawn.parquet", header) as store:  # doctest: +SKIP
        ...     store.append(batch)
        ...     store.commit(RecordingKey("dawn.wav", 320_044, 1_718_000_000_000_000_000))
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        header: StoreHeader | None = None,
        mode: Mode = "resume",
        *,
        seal: SealPolicy | None = None,
    ) -> None:
        if mode not in ("resume", "overwrite", "read"):
            raise StoreError(f"A store has no mode '{mode}'. Expected 'resume', 'overwrite' or 'read'.")
        self.path = resolve_target(path)
        self._mode = mode
        self._folder = PartialFolder(self.path)
        self._lock: WriterLock | None = None
        self._writer: GroupWriter | None = None
        self._segments: list[Segment] = []
        self._keys: dict[str, RecordingKey] = {}
        self._counts: dict[str, int] = {}
        self._rows = 0
        if mode == "read":
            self.header, self._segments = read_snapshot(self.path)
            self._schema = rows.store_schema(self.header)
        elif header is None:
            raise StoreError(f"'{self.path}' cannot be written without a header. Pass one, or mode='read'.")
        else:
            with self._disk_errors("begin"):
                self._open_for_writing(header, seal or SealPolicy())
        self._recount()

    def _open_for_writing(self, header: StoreHeader, seal: SealPolicy) -> None:
        read_finished(self.path, writing=True)  # before anything is created beside a file that is not ours
        self._lock = WriterLock(self._folder.path, self.path)
        try:
            if self._mode == "overwrite":
                self._session = begin(self._folder, header, read_finished(self.path, writing=True))
            else:
                self._session, self._segments = resume(self.path, self._folder, header)
        except BaseException:
            self._lock.remove()
            raise
        self.header = self._session.header
        self._schema = rows.store_schema(self.header)
        self._writer = GroupWriter(self._folder, self._session, self._schema, seal)

    def done(self) -> Mapping[str, RecordingKey]:
        """Return the committed recordings, name to key, in commit order; a live view.

        Recordings that were committed moments ago may still wait in memory (see `SealPolicy`); a kill loses them
        and the next run embeds them again.

        Example:
            >>> todo = [key for key in found if store.done().get(key.recording) != key]  # doctest: +SKIP
        """
        return MappingProxyType(self._keys)

    def append(self, batch: EmbeddingBatch) -> None:
        """Add rows to the open recording, or open the batch's recording.

        Raises:
            StoreFullError: The disk is full; the store is closed.
            StoreError: Another recording is open, the rows do not fit the header, or the store is not open.
        """
        writer = self._check_writable()
        arrow = rows.to_arrow(batch, self.header, self._schema)
        with self._disk_errors("go on"):
            writer.append(batch.recording, arrow)

    def commit(self, key: RecordingKey) -> None:
        """Make the open recording part of the store; without rows it says that none came of it.

        Raises:
            StoreFullError: The disk is full; the store is closed.
            StoreError: Another recording is open, or the store is not open.
        """
        writer = self._check_writable()
        with self._disk_errors("go on"):
            self._note(key, writer.commit(key))

    def rollback(self) -> None:
        """Drop the rows of the open recording, if one is open, also those on the disk."""
        if self._writer is not None:
            self._writer.rollback()

    def scan(self, columns: list[str] | None = None, batch_rows: int = 4096) -> Iterator[pa.RecordBatch]:
        """Iterate over the committed rows in commit order, in constant memory.

        Names that are not UTF-8 appear in their stored form; `avex.embedding.stores.decode_name` gives them back.

        Args:
            columns: Names of columns; None for all.
            batch_rows: Rows per batch; only the last may be shorter.

        Raises:
            StoreError: A column does not exist, `batch_rows` is below 1, or a file is damaged.
        """
        names = rows.check_scan(columns, batch_rows, self._schema)
        if self._writer is not None:
            with self._disk_errors("go on"):
                self._writer.seal()
        return rows.rechunk(scan_segments(self._files(), names, batch_rows), batch_rows)

    def close(self) -> None:
        """Merge what was committed into the finished table; a recording that was not committed is dropped.

        When nothing was added to a finished table, it stays as it is. The store can still be read afterwards.

        Raises:
            StoreFullError: The disk is full. Nothing that was committed is lost, and the next run ends the merge.
            StoreError: A part is damaged.
        """
        if self._writer is None:
            return
        try:
            with self._disk_errors("end"):
                self._writer.rollback()
                self._writer.seal()
                self._finish()
        finally:
            self._let_go()

    def suspend(self) -> None:
        """Seal what was committed and let go, without merging; a later run resumes.

        Raises:
            StoreFullError: The disk is full.
        """
        if self._writer is None:
            return
        try:
            with self._disk_errors("go on"):
                self._writer.rollback()
                self._writer.seal()
                if not self._folder.parts():
                    self._folder.clear()  # nothing came of it: leave nothing behind
        finally:
            self._let_go()

    def _finish(self) -> None:
        merged = merge(self._files(), self.path, self._folder, self._session, self._schema)
        self._segments, self._writer = [merged], None
        try:
            self._folder.clear()
        except OSError as error:
            logger.warning(
                "'%s' is complete, but '%s' could not be removed: %s", self.path, self._folder.path, error
            )

    def _let_go(self) -> None:
        """Stop writing and release the lock; what is sealed stays readable through this object."""
        if self._writer is not None:
            self._writer.rollback()
            self._segments, self._writer = self._files(), None
        if self._lock is not None:
            self._lock.remove()
            self._lock = None
        self._recount()

    def _files(self) -> list[Segment]:
        return [*self._segments, *(self._writer.segments if self._writer else ())]

    def _recount(self) -> None:
        entries, _ = live_entries(self._files())
        self._keys.clear()  # in place: `done` hands out views
        self._keys.update((entry.key.recording, entry.key) for entry in entries)
        self._counts = {entry.key.recording: entry.rows for entry in entries}
        self._rows = sum(self._counts.values())

    def _note(self, key: RecordingKey, count: int) -> None:
        self._keys.pop(key.recording, None)  # committed again: it moves to the end
        self._keys[key.recording] = key
        self._rows += count - self._counts.pop(key.recording, 0)
        self._counts[key.recording] = count

    def _check_writable(self) -> GroupWriter:
        if self._writer is None:
            state = "is open for reading only" if self._mode == "read" else "is closed"
            raise StoreError(f"'{self.path}' {state}: nothing can be added to it.")
        return self._writer

    @contextmanager
    def _disk_errors(self, action: str) -> Iterator[None]:
        """Let go and say what to do when the system refuses to write."""
        try:
            yield
        except StoreError:
            raise
        except OSError as error:
            needed = self._bytes_to_write()
            self._let_go()
            if is_full(error):
                raise full_disk(error, self.path, action, needed, len(self._keys), self._rows) from error
            raise StoreError(f"'{self.path}' cannot {action}: {error}.") from error

    def _bytes_to_write(self) -> int:
        """Return what the next write takes: what waits in memory, or for a merge the size of all files."""
        waiting = self._writer.pending_bytes if self._writer else 0
        return waiting or sum(file.path.stat().st_size for file in self._files() if file.path.exists())

    def __len__(self) -> int:
        return self._rows

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.suspend()


def open_store(path: str | os.PathLike[str]) -> ParquetStore:
    """Open a store for reading: a finished one, or the committed part of one that is still being written.

    Raises:
        StoreError: There is no store, or it is damaged.

    Example:
        >>> vectors = open_store("dawn.parquet").to_numpy()  # doctest: +SKIP
    """
    return ParquetStore(path, mode="read")
