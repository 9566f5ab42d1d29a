"""Rules about rows in a store: what fits the header goes in unchanged, what does not is refused; ways out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from avex._core.errors import StoreError
from avex._core.optional import available
from avex.embedding.stores import matrix
from avex.testing.report import refuses
from avex.testing.store_subject import (
    StoreSubject,
    differs,
    key_of,
    make_batch,
    make_header,
    make_row,
    table,
)

_MISFITS: list[tuple[dict[str, Any], list[str]]] = [
    ({"embedding": np.zeros((2, 4), np.float32)}, ["'embedding'", "(2, 4)", "expects (2, 3)"]),
    ({"embedding": np.zeros(2, np.float32)}, ["'embedding'", "(2,)", "expects (2, 3)"]),
    ({"embedding": np.zeros((2, 3), np.complex64)}, ["'embedding'", "complex64"]),
    ({"start_s": np.zeros(3)}, ["'start_s'", "(3,)", "expects (2,)"]),
    ({"end_s": np.array([5.0, np.nan])}, ["'end_s'", "not finite"]),
    ({"end_s": np.array([5.0, 2.5])}, ["ends before it starts"]),
    ({"channel": np.array([0, 40_000])}, ["'channel'", "do not fit into int16"]),
    ({"channel": np.array([0.0, 0.5])}, ["'channel'", "float64", "int16"]),
    ({"extra": {"score": np.zeros(2)}}, ["['score']", "names []"]),
]


def finite(subject: StoreSubject) -> Iterator[str]:
    """Numbers that are not finite are refused, and the row is named."""
    for bad in (np.nan, np.inf, -np.inf):
        with subject.make() as store:
            batch = make_batch("a.wav", 3)
            batch.embedding[1, 2] = bad
            words = ["'embedding' of recording 'a.wav'", "not finite (row 1)"]
            yield from refuses(lambda: store.append(batch), StoreError, f"an embedding with {bad}", words)  # noqa: B023


def misfits(subject: StoreSubject) -> Iterator[str]:
    """Rows that do not fit the header are refused, and a refused batch opens nothing."""
    for change, words in _MISFITS:
        with subject.make() as store:
            batch = make_batch("a.wav", 2)
            for name, value in change.items():
                setattr(batch, name, value)
            what = f"a batch whose {next(iter(change))} does not fit"
            yield from refuses(lambda: store.append(batch), StoreError, what, words)  # noqa: B023
            store.rollback()
            store.append(make_batch("b.wav", 1))
            store.commit(key_of("b.wav"))
        yield from differs("recordings() after a refused batch", store.recordings(), ["b.wav"])


def reuse(subject: StoreSubject) -> Iterator[str]:
    """Arrays may be overwritten once `append` has returned."""
    with subject.make() as store:
        batch = make_batch("a.wav", 2)
        store.append(batch)
        batch.embedding[:] = -1
        batch.start_s[:] = -1
        store.commit(key_of("a.wav"))
    yield from differs("the table", table(store), [make_row("a.wav", 0), make_row("a.wav", 1)])


def half_precision(subject: StoreSubject) -> Iterator[str]:
    """A float16 store rounds to nearest and refuses what is too large."""
    with subject.make(make_header(dtype="float16")) as store:
        batch = make_batch("a.wav", 1)
        batch.embedding[0] = [1 / 3, 65504, -2.0]
        store.append(batch)
        store.commit(key_of("a.wav"))
        batch.embedding[0, 1] = 70_000
        words = ["too large for float16", "dtype='float32'"]
        yield from refuses(lambda: store.append(batch), StoreError, "70,000 in float16", words)
    values = store.to_numpy()
    yield from differs("the number format of to_numpy()", str(values.dtype), "float16")
    yield from differs("the values", values.tolist(), [[0.333251953125, 65504.0, -2.0]])


def further_columns(subject: StoreSubject) -> Iterator[str]:
    """Further columns of the header are required, stored and scanned by name."""
    header = make_header(columns={"score": "float32[2]", "frame": "int64"}, labels=["crow", "rook"])
    with subject.make(header) as store:
        batch = make_batch("a.wav", 2)
        words = ["further columns []", "['frame', 'score']"]
        yield from refuses(lambda: store.append(batch), StoreError, "a batch without its columns", words)
        batch.extra = {"score": np.array([[0.5, 0.25], [0.0, 1.0]]), "frame": np.array([7, 2**40])}
        store.append(batch)
        store.commit(key_of("a.wav"))
    (rows,) = store.scan(["frame", "score"])
    yield from differs("the columns", rows.schema.names, ["frame", "score"])
    yield from differs("the column of integers", rows.column("frame").to_pylist(), [7, 2**40])
    yield from differs(
        "the column of vectors", matrix(rows.column("score")).tolist(), [[0.5, 0.25], [0.0, 1.0]]
    )


def scan(subject: StoreSubject) -> Iterator[str]:
    """`scan` gives batches of the size asked for; unknown columns and empty batches are refused."""
    with subject.filled(*((f"{i}.wav", rows) for i, rows in enumerate([1, 5, 0, 2, 3]))) as store:
        for batch_rows in (1, 3, 4, 100):
            sizes = [batch.num_rows for batch in store.scan(["start_s"], batch_rows=batch_rows)]
            whole, rest = divmod(11, batch_rows)
            expected = [batch_rows] * whole + [rest] * (rest > 0)
            yield from differs(f"the sizes of batches of {batch_rows}", sizes, expected)
    words = ["no column 'label'", "recording, start_s"]
    yield from refuses(lambda: list(store.scan(["label"])), StoreError, "a column that is not there", words)
    words = ["cannot have 0 rows"]
    yield from refuses(lambda: list(store.scan(batch_rows=0)), StoreError, "a batch of no rows", words)


def data_frame(subject: StoreSubject) -> Iterator[str]:
    """`to_pandas` gives the whole table, where pandas is installed."""
    with subject.filled(("a.wav", 2)) as store:
        pass
    if not available("pandas"):
        return
    frame = store.to_pandas()
    columns = ["recording", "start_s", "end_s", "channel", "embedding"]
    yield from differs("the columns", list(frame.columns), columns)
    yield from differs("the recordings", frame["recording"].tolist(), ["a.wav", "a.wav"])
    yield from differs("the second embedding", frame["embedding"][1].tolist(), [1.0, 1.125, 1.25])


def npy_mirror(subject: StoreSubject) -> Iterator[str]:
    """`export_npy` writes the embeddings, and an index that says what each row is."""
    for dtype in ("float32", "float16"):
        header = make_header(dtype=dtype)
        with subject.filled(("two\nlines.wav", 2), ("b.wav", 2), header=header) as store:
            pass
        npy, index = store.export_npy(subject.folder / f"{dtype}.npy")
        yield from differs("the files", (npy.name, index.name), (f"{dtype}.npy", f"{dtype}.index.csv"))
        mirrored = np.load(npy)
        yield from differs("the number format of the mirror", str(mirrored.dtype), dtype)
        yield from differs("the mirror", mirrored.tolist(), store.to_numpy().tolist())
        lines = (
            "recording,start_s,end_s,channel\n"
            '"two\nlines.wav",0.0,5.0,0\n"two\nlines.wav",2.5,7.5,1\n'
            "b.wav,0.0,5.0,0\nb.wav,2.5,7.5,1\n"
        )
        yield from differs("the index", index.read_bytes().decode(), lines)
    wrong, words = subject.folder / "mirror.csv", ["'.npy' file", "mirror.csv"]
    yield from refuses(lambda: store.export_npy(wrong), StoreError, "a mirror called .csv", words)
    with subject.make() as empty:
        pass
    npy, _ = empty.export_npy(subject.folder / "empty.npy")
    yield from differs("the shape of the mirror of nothing", np.load(npy).shape, (0, 3))
