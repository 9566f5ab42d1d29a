"""Rows between NumPy and Arrow: the schema of a store, checked batches in, arrays and tables out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from avex._core.errors import StoreError
from avex._core.optional import require
from avex.embedding.stores.base import EmbeddingBatch
from avex.embedding.stores.header import StoreHeader, parse_column_type
from avex.embedding.stores.names import encode_name

if TYPE_CHECKING:
    import pandas as pd


def store_schema(header: StoreHeader) -> pa.Schema:
    """Return the columns of a store, none of them nullable."""
    columns = {
        "recording": pa.string(),
        "start_s": pa.float64(),
        "end_s": pa.float64(),
        "channel": pa.int16(),
        "embedding": _vector_type(header.dtype, header.embedding_dim),
    }
    for name, spec in header.columns.items():
        dtype, length = parse_column_type(spec)
        columns[name] = _vector_type(dtype, length) if length else _scalar_type(dtype)
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in columns.items()])


def to_arrow(batch: EmbeddingBatch, header: StoreHeader, schema: pa.Schema) -> pa.RecordBatch:
    """Check a batch against the header and copy it into Arrow.

    Raises:
        StoreError: Shapes differ from the header, times are not half-open windows, or a number is not finite.
    """
    n = len(batch.embedding)
    start_s = _column(batch, "start_s", batch.start_s, "float64", (n,))
    end_s = _column(batch, "end_s", batch.end_s, "float64", (n,))
    if not (start_s < end_s).all():
        raise StoreError(f"A window of '{batch.recording}' ends before it starts. Expected start_s < end_s.")
    channel = _column(batch, "channel", batch.channel, "int16", (n,))
    embedding = _column(batch, "embedding", batch.embedding, header.dtype, (n, header.embedding_dim))
    arrays = [
        _repeated(encode_name(batch.recording), n),
        *map(_flat, (start_s, end_s, channel)),
        _vectors(embedding),
    ]
    extra = batch.extra or {}
    if extra.keys() != header.columns.keys():
        raise StoreError(
            f"Rows of '{batch.recording}' bring the further columns {sorted(extra)}, but the header of this store "
            f"names {sorted(header.columns)}."
        )
    for name, spec in header.columns.items():
        dtype, length = parse_column_type(spec)
        values = _column(batch, name, extra[name], dtype, (n, length) if length else (n,))
        arrays.append(_vectors(values) if length else _flat(values))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


# Arrays are made of their buffers, because `pa.array` imports pandas wherever it is installed: half a second
# at the start of every run.


def _flat(values: npt.NDArray[Any]) -> pa.Array:
    if values.dtype == np.bool_:
        return pa.array(values)  # bits, not bytes
    # `_column` made a contiguous copy, so the buffer is nobody else's.
    return pa.Array.from_buffers(
        pa.from_numpy_dtype(values.dtype), values.size, [None, pa.py_buffer(values.reshape(-1))]
    )


def _vectors(values: npt.NDArray[Any]) -> pa.Array:
    kind = _vector_type(str(values.dtype), values.shape[1])
    return pa.Array.from_buffers(kind, len(values), [None], children=[_flat(values)])


def _repeated(text: str, n: int) -> pa.Array:
    data = text.encode()
    offsets = np.arange(n + 1, dtype=np.int64) * len(data)
    if offsets[-1] > np.iinfo(np.int32).max:
        return pa.array([text] * n, pa.string())
    buffers = [None, pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(data * n)]
    return pa.Array.from_buffers(pa.string(), n, buffers)


def matrix(column: pa.Array) -> npt.NDArray[Any]:
    """Return a vector column (`embedding` of a scanned batch) as (n, d), without a copy.

    Example:
        >>> kind = pa.list_(pa.float32(), 2)
        >>> matrix(pa.array([[1, 2], [3, 4]], kind)).tolist()
        [[1.0, 2.0], [3.0, 4.0]]
    """
    values = column.flatten().to_numpy(zero_copy_only=False)
    return values.reshape(len(column), column.type.list_size)


def rechunk(batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    """Yield the same rows in batches of exactly `rows` (at least 1); only the last may be shorter."""
    waiting: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        offset = 0
        while count + batch.num_rows - offset >= rows:
            taken = rows - count
            yield joined([*waiting, batch.slice(offset, taken)])
            waiting, count, offset = [], 0, offset + taken
        if offset < batch.num_rows:
            waiting.append(batch.slice(offset))
            count += batch.num_rows - offset
    if waiting:
        yield joined(waiting)


def joined(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    """Return one batch with the rows of several (at least one)."""
    if len(batches) == 1:
        return batches[0]
    columns = [
        pa.concat_arrays([batch.column(i) for batch in batches]) for i in range(batches[0].num_columns)
    ]
    return pa.RecordBatch.from_arrays(columns, schema=batches[0].schema)


def check_scan(columns: list[str] | None, batch_rows: int, schema: pa.Schema) -> list[str]:
    """Return the columns to read, all when None.

    Raises:
        StoreError: A name is not a column of the store, or a batch would have no rows.
    """
    if batch_rows < 1:
        raise StoreError(f"A batch cannot have {batch_rows} rows. Pass batch_rows=1 or more.")
    unknown = [name for name in columns or () if name not in schema.names]
    if unknown:
        raise StoreError(f"This store has no column '{unknown[0]}'. It has: {', '.join(schema.names)}.")
    return list(schema.names) if columns is None else columns


def stack_embeddings(batches: Iterable[pa.RecordBatch], rows: int, header: StoreHeader) -> npt.NDArray[Any]:
    """Return the embeddings of all batches, (rows, d), holding no second copy of them."""
    result = np.empty((rows, header.embedding_dim), dtype=header.dtype)
    offset = 0
    for batch in batches:
        result[offset : offset + batch.num_rows] = matrix(batch.column("embedding"))
        offset += batch.num_rows
    return result


def data_frame(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> pd.DataFrame:
    """Return a DataFrame; `embedding` is a column of (d,) arrays.

    Raises:
        MissingExtraError: pandas is not installed.
    """
    require("pandas", "pandas", "A store as a DataFrame")
    return pa.Table.from_batches(list(batches), schema=schema).to_pandas()


def _scalar_type(dtype: str) -> pa.DataType:
    return pa.from_numpy_dtype(np.dtype(dtype))


def _vector_type(dtype: str, length: int) -> pa.DataType:
    return pa.list_(pa.field("element", _scalar_type(dtype), nullable=False), length)


def _column(
    batch: EmbeddingBatch, name: str, values: npt.ArrayLike, dtype: str, shape: tuple[int, ...]
) -> npt.NDArray[Any]:
    """Return a checked copy of one column: its shape, no number lost, no number that is not finite."""
    given = np.asarray(values)
    where = f"'{name}' of recording '{batch.recording}'"
    if given.shape != shape:
        raise StoreError(f"{where} has shape {given.shape}; this store expects {shape}.")
    if not np.can_cast(given.dtype, dtype, casting="same_kind"):
        raise StoreError(f"{where} is {given.dtype}; this store expects {dtype}.")
    with np.errstate(over="ignore"):  # what does not fit becomes infinite and is reported below
        copy = np.array(given, dtype=dtype, order="C", copy=True)
    if copy.dtype.kind == "f":
        _check_finite(copy, given, where)
    elif copy.dtype != given.dtype and not np.array_equal(copy, given):
        raise StoreError(f"{where} holds numbers that do not fit into {dtype}.")
    return copy


def _check_finite(copy: npt.NDArray[Any], given: npt.NDArray[Any], where: str) -> None:
    finite = np.isfinite(copy)
    if finite.all():
        return
    row = int(np.argwhere(~finite)[0][0])
    if np.isfinite(given).all():
        raise StoreError(
            f"{where} holds numbers too large for {copy.dtype} (row {row}). Use a store with dtype='float32'."
        )
    raise StoreError(
        f"{where} holds numbers that are not finite (row {row}). The model or its input is at fault; "
        "roll the recording back and report it."
    )
