"""What every embedding store is: the identity of a recording, a batch of rows, the protocol."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from avex._core.errors import StoreError
from avex.embedding.stores.header import SCHEMA_VERSION, StoreHeader

if TYPE_CHECKING:
    import os
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt
    import pandas as pd
    import pyarrow as pa
    from typing_extensions import Self


@dataclass(frozen=True, slots=True)
class RecordingKey:
    """Identity of a recording for resuming: a file of the same name, size and time of change is the same.

    Attributes:
        recording: Name as the pipeline gives it: the path, with `#t=start,end` for a part of a recording.
        bytes: Size of the file.
        mtime_ns: Time of last change, in nanoseconds since 1970.
    """

    recording: str
    bytes: int
    mtime_ns: int


@dataclass(eq=False)
class EmbeddingBatch:
    """Consecutive windows of one recording, `n` rows. Stores copy it: the arrays may be reused afterwards.

    Attributes:
        recording: Name of the recording.
        start_s: (n,) float64, window starts in seconds.
        end_s: (n,) float64, window ends in seconds, exclusive.
        channel: (n,) int, 0 for the mix of all channels, else from 1.
        embedding: (n, d) float32.
        extra: Arrays for the header's further columns, (n,) or (n, length); None when there are none.
    """

    recording: str
    start_s: npt.NDArray[np.float64]
    end_s: npt.NDArray[np.float64]
    channel: npt.NDArray[np.integer[Any]]
    embedding: npt.NDArray[np.float32]
    extra: Mapping[str, npt.NDArray[Any]] | None = None


class EmbeddingStore(Protocol):
    """Where embeddings go. A recording is in a store with all of its rows, or it is not in it at all.

    Rows of one recording are appended one after the other and then committed. What was not committed
    when the store closes, or when the process dies, is as if it had never been appended. A recording that is
    committed again replaces its older rows and moves to the end. One thread writes at a time.
    """

    @property
    def header(self) -> StoreHeader:
        """The settings that the store was made with."""
        ...

    def done(self) -> Mapping[str, RecordingKey]:
        """Return the committed recordings, name to key, in commit order."""
        ...

    def append(self, batch: EmbeddingBatch) -> None:
        """Add rows to the recording that is open, or open the batch's recording."""
        ...

    def commit(self, key: RecordingKey) -> None:
        """Make the open recording part of the store; without rows it says that none came of it."""
        ...

    def rollback(self) -> None:
        """Drop the rows of the open recording, if one is open."""
        ...

    def scan(self, columns: list[str] | None = None, batch_rows: int = 4096) -> Iterator[pa.RecordBatch]:
        """Iterate over the committed rows in commit order."""
        ...

    def recordings(self) -> list[str]:
        """Return the names of the committed recordings, in commit order."""
        ...

    def to_numpy(self) -> npt.NDArray[Any]:
        """Return all embeddings, (N, d), in the number format of the store."""
        ...

    def to_pandas(self) -> pd.DataFrame:
        """Return the whole table."""
        ...

    def export_npy(self, path: str | os.PathLike[str]) -> tuple[Path, Path]:
        """Write the embeddings to `<name>.npy` and what each row is to `<name>.index.csv`."""
        ...

    def __len__(self) -> int:
        """Return the number of committed rows."""
        ...

    def close(self) -> None:
        """Finish the store; nothing can be appended afterwards."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


__all__ = ["SCHEMA_VERSION", "EmbeddingBatch", "EmbeddingStore", "RecordingKey", "StoreHeader", "check_turn"]


def check_turn(open_recording: str | None, recording: str) -> None:
    """Check that rows or a commit belong to the recording that is open, if one is.

    Raises:
        StoreError: Another recording is open.
    """
    if open_recording is not None and open_recording != recording:
        raise StoreError(
            f"Recording '{recording}' cannot begin while '{open_recording}' is open. "
            "Commit it or roll it back first."
        )
