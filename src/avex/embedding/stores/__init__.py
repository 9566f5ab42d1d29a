"""Where embeddings go: in memory, or in one Parquet file that survives kills and full disks. No torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from avex._core.lazy import lazy_names
from avex.embedding.stores.base import (
    SCHEMA_VERSION,
    EmbeddingBatch,
    EmbeddingStore,
    RecordingKey,
    StoreHeader,
)
from avex.embedding.stores.names import decode_name, encode_name

if TYPE_CHECKING:
    from avex.embedding.stores.memory import MemoryStore
    from avex.embedding.stores.parquet import ParquetStore, open_store
    from avex.embedding.stores.rows import matrix
    from avex.embedding.stores.writer import SealPolicy

# These import pyarrow, so they load on first use.
_LAZY = {
    "MemoryStore": "memory",
    "ParquetStore": "parquet",
    "SealPolicy": "writer",
    "matrix": "rows",
    "open_store": "parquet",
}

__all__ = [
    "SCHEMA_VERSION",
    "EmbeddingBatch",
    "EmbeddingStore",
    "MemoryStore",
    "ParquetStore",
    "RecordingKey",
    "SealPolicy",
    "StoreHeader",
    "decode_name",
    "encode_name",
    "matrix",
    "open_store",
]


__getattr__ = lazy_names(__name__, _LAZY)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
