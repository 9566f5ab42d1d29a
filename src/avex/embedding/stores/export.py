"""Mirrors of a store for tools that do not read Parquet."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa

from avex._core.errors import StoreError
from avex.embedding.stores.base import StoreHeader
from avex.embedding.stores.rows import matrix
from avex.io.atomic import atomic_write

INDEX_COLUMNS = ["recording", "start_s", "end_s", "channel"]


def write_npy(
    batches: Iterable[pa.RecordBatch], rows: int, header: StoreHeader, path: str | os.PathLike[str]
) -> tuple[Path, Path]:
    """Write `<name>.npy`, (rows, d), and `<name>.index.csv` with what each row is.

    The array is written as a stream: a memory map would end the process with a bus error when the disk is full.

    Args:
        batches: Rows with at least the columns `INDEX_COLUMNS` and `embedding`.
        rows: Their number.
        header: Settings of the store.
        path: Where the array goes; must end in `.npy`.

    Returns:
        Paths of the array and of the index.

    Raises:
        StoreError: The path does not end in `.npy`.
        OSError: As the system reports it; neither file appears.
    """
    npy = Path(path)
    if npy.suffix != ".npy":
        raise StoreError(f"The mirror of a store is a '.npy' file, but the path is '{npy}'.")
    index = npy.with_name(npy.stem + ".index.csv")
    dtype = np.dtype(header.dtype).newbyteorder("<")
    layout = {"descr": dtype.str, "fortran_order": False, "shape": (rows, header.embedding_dim)}
    with ExitStack() as stack:
        numbers = stack.enter_context(atomic_write(npy))
        text = stack.enter_context(atomic_write(index, "w"))
        np.lib.format.write_array_header_1_0(numbers, layout)
        table = csv.writer(text, lineterminator="\n")
        table.writerow(INDEX_COLUMNS)
        for batch in batches:
            numbers.write(matrix(batch.column("embedding")).astype(dtype, copy=False).tobytes())
            table.writerows(zip(*(batch.column(name).to_pylist() for name in INDEX_COLUMNS), strict=True))
    return npy, index
