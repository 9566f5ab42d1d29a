"""What the rules of stores work with: a way to make stores, headers, batches and keys, and a look at the table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from avex.embedding.stores import EmbeddingBatch, EmbeddingStore, RecordingKey, StoreHeader, matrix

StoreFactory = Callable[[StoreHeader, Path], EmbeddingStore]
Row = tuple[str, float, float, int, tuple[float, ...]]


@dataclass
class StoreSubject:
    """A kind of store under test.

    Attributes:
        factory: Makes an empty store; its second argument is a folder of its own.
        folder: Where those folders are.
        closing: Stores that were made, to be closed.
    """

    factory: StoreFactory
    folder: Path
    closing: list[EmbeddingStore] = field(default_factory=list)

    def make(self, header: StoreHeader | None = None) -> EmbeddingStore:
        """An empty store in a folder of its own."""
        place = self.folder / f"store-{len(self.closing)}"
        place.mkdir()
        store = self.factory(header or make_header(), place)
        self.closing.append(store)
        return store

    def filled(self, *recordings: tuple[str, int], header: StoreHeader | None = None) -> EmbeddingStore:
        """A store with so many rows of each recording, committed one after the other, still open."""
        store = self.make(header)
        for name, rows in recordings:
            store.append(make_batch(name, rows))
            store.commit(key_of(name))
        return store

    def close(self) -> None:
        """Close all stores that were made."""
        for store in self.closing:
            store.close()


def make_header(**changes: Any) -> StoreHeader:
    """A header for embeddings of three numbers."""
    settings: dict[str, Any] = {
        "embedding_dim": 3,
        "card": "beats",
        "weights_sha256": "ab" * 32,
        "sample_rate": 16_000,
        "resampler": "kaiser_best",
        "window_s": 5.0,
        "hop_s": 2.5,
        "tail": "pad",
        "min_tail_s": 0.0,
        "channel": "mean",
        "layers": ["last_layer"],
        "pooling": "mean",
        "precision": "float32",
        "runtime": "torch cpu",
    }
    return StoreHeader(**(settings | changes))


def make_batch(recording: str, rows: int, first: int = 0) -> EmbeddingBatch:
    """Rows `first`, `first + 1`, ... of a recording; every value names its row and its column."""
    index = np.arange(first, first + rows, dtype=np.int64)
    start_s = index.astype(np.float64) * 2.5
    return EmbeddingBatch(
        recording=recording,
        start_s=start_s,
        end_s=start_s + 5.0,
        channel=index % 2,
        embedding=(index[:, None] + np.arange(3) / 8).astype(np.float32),
    )


def make_row(recording: str, index: int) -> Row:
    """What `make_batch` puts into row `index`."""
    return (recording, index * 2.5, index * 2.5 + 5.0, index % 2, (index, index + 0.125, index + 0.25))


def key_of(recording: str, size: int = 1000) -> RecordingKey:
    """A key of a recording."""
    return RecordingKey(recording, size, 1_700_000_000_123_456_789)


def table(store: EmbeddingStore) -> list[Row]:
    """All rows of a store."""
    found: list[Row] = []
    for batch in store.scan():
        vectors = map(tuple, matrix(batch.column("embedding")).tolist())
        columns = [batch.column(name).to_pylist() for name in ("recording", "start_s", "end_s", "channel")]
        found += list(zip(*columns, vectors, strict=True))
    return found


def differs(what: str, actual: object, expected: object) -> list[str]:
    """A finding if the two are not equal.

    Example:
        >>> differs("the number of rows", 2, 3)
        ['the number of rows must be 3, not 2']
    """
    return [] if actual == expected else [f"{what} must be {expected!r}, not {actual!r}"]
