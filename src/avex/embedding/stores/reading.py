"""What every store offers on top of `scan`: arrays, data frames, mirrors."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
import pyarrow as pa

from avex._core.errors import StoreError, StoreFullError
from avex.embedding.stores import rows
from avex.embedding.stores.base import RecordingKey, StoreHeader
from avex.embedding.stores.export import INDEX_COLUMNS, write_npy
from avex.embedding.stores.full_disk import free_space, is_full, readable_size

if TYPE_CHECKING:
    import pandas as pd


class TableReader(ABC):
    """The reading half of an `EmbeddingStore`, given `scan`, `done` and the number of rows."""

    header: StoreHeader

    @abstractmethod
    def scan(self, columns: list[str] | None = None, batch_rows: int = 4096) -> Iterator[pa.RecordBatch]:
        """Iterate over the committed rows in commit order."""

    @abstractmethod
    def done(self) -> Mapping[str, RecordingKey]:
        """Return the committed recordings, name to key, in commit order."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of committed rows."""

    def recordings(self) -> list[str]:
        """Return the names of the committed recordings, in commit order."""
        return list(self.done())

    def to_numpy(self) -> npt.NDArray[Any]:
        """Return all embeddings, (N, d), in the number format of the store."""
        return rows.stack_embeddings(self.scan(["embedding"]), len(self), self.header)

    def to_pandas(self) -> pd.DataFrame:
        """Return the whole table; `embedding` is a column of (d,) arrays.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        return rows.data_frame(self.scan(), rows.store_schema(self.header))

    def export_npy(self, path: str | os.PathLike[str]) -> tuple[Path, Path]:
        """Write the embeddings to `<name>.npy`, (N, d), and what each row is to `<name>.index.csv`.

        Returns:
            Paths of the array and of the index.

        Raises:
            StoreFullError: The disk is full; neither file appears.
            StoreError: The path does not end in `.npy`, or nothing can be written there.
        """
        batches = self.scan([*INDEX_COLUMNS, "embedding"])
        try:
            return write_npy(batches, len(self), self.header, path)
        except StoreError:
            raise
        except OSError as error:
            if not is_full(error):
                raise StoreError(f"'{path}' cannot be written: {error}.") from error
            size = len(self) * self.header.embedding_dim * (2 if self.header.dtype == "float16" else 4)
            raise StoreFullError(
                f"The disk is full: '{path}' takes {readable_size(size)}, "
                f"{readable_size(free_space(Path(path).absolute()))} are free. Nothing was written there."
            ) from error
