"""A store that lives in memory, for notebooks and tests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING

import pyarrow as pa

from avex._core.errors import StoreError
from avex.embedding.stores import rows
from avex.embedding.stores.base import EmbeddingBatch, RecordingKey, StoreHeader, check_turn
from avex.embedding.stores.reading import TableReader

if TYPE_CHECKING:
    from typing_extensions import Self


class MemoryStore(TableReader):
    """An `EmbeddingStore` without a file. It stays readable after `close`.

    Args:
        header: The settings of the run.

    Example:
        >>> store = MemoryStore(header)  # doctest: +SKIP
        >>> store.append(batch)  # doctest: +SKIP
        >>> store.commit(RecordingKey("dawn.wav", 320_044, 0))  # doctest: +SKIP
        >>> store.to_numpy().shape  # doctest: +SKIP
        (12, 768)
    """

    def __init__(self, header: StoreHeader) -> None:
        self.header = header
        self._schema = rows.store_schema(header)
        self._keys: dict[str, RecordingKey] = {}
        self._rows: dict[str, list[pa.RecordBatch]] = {}
        self._open: tuple[str, list[pa.RecordBatch]] | None = None
        self._closed = False

    def done(self) -> Mapping[str, RecordingKey]:
        """Return the committed recordings, name to key, in commit order."""
        return MappingProxyType(self._keys)

    def append(self, batch: EmbeddingBatch) -> None:
        """Add rows to the open recording, or open the batch's recording.

        Raises:
            StoreError: Another recording is open, the rows do not fit the header, or the store is closed.
        """
        self._check_writable()
        check_turn(self._open[0] if self._open else None, batch.recording)
        arrow = rows.to_arrow(batch, self.header, self._schema)
        if self._open is None:
            self._open = (batch.recording, [])
        self._open[1].append(arrow)

    def commit(self, key: RecordingKey) -> None:
        """Make the open recording part of the store.

        Raises:
            StoreError: Another recording is open, or the store is closed.
        """
        self._check_writable()
        name, batches = self._open or (key.recording, [])
        check_turn(name, key.recording)
        self._keys.pop(name, None)  # committed again: it moves to the end
        self._rows.pop(name, None)
        self._keys[name] = key
        self._rows[name] = batches
        self._open = None

    def rollback(self) -> None:
        """Drop the rows of the open recording, if one is open."""
        self._open = None

    def scan(self, columns: list[str] | None = None, batch_rows: int = 4096) -> Iterator[pa.RecordBatch]:
        """Iterate over the committed rows in commit order.

        Raises:
            StoreError: A column does not exist, or `batch_rows` is below 1.
        """
        names = rows.check_scan(columns, batch_rows, self._schema)
        batches = [batch.select(names) for parts in self._rows.values() for batch in parts]
        return rows.rechunk(batches, batch_rows)

    def close(self) -> None:
        """Refuse further rows. A recording that was not committed is dropped."""
        self._open = None
        self._closed = True

    def _check_writable(self) -> None:
        if self._closed:
            raise StoreError("This store is closed: nothing can be added to it.")

    def __len__(self) -> int:
        return sum(batch.num_rows for parts in self._rows.values() for batch in parts)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
