"""What every embedding store promises, whatever is behind it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from avex._core.errors import StoreError
from avex.embedding.stores import (
    EmbeddingBatch,
    EmbeddingStore,
    MemoryStore,
    ParquetStore,
    RecordingKey,
    SealPolicy,
    StoreHeader,
    decode_name,
    matrix,
)

MakeStore = Callable[..., EmbeddingStore]


def make_header(**changes: object) -> StoreHeader:
    settings: dict[str, object] = {
        "embedding_dim": 3,
        "card": "beats",
        "weights_sha256": "ab" * 32,
        "sample_rate": 16_000,
        "resampler": "kaiser_best",
        "window_s": 5.0,
        "hop_s": 2.5,
        "tail": "pad",
        "min_tail_s": 0.0,
        "channel": "mix",
        "layers": ["last_layer"],
        "pooling": "mean",
        "precision": "float32",
        "runtime": "torch cpu",
    }
    return StoreHeader(**(settings | changes))  # type: ignore[arg-type]


def make_batch(recording: str, rows: int, first: int = 0, dim: int = 3) -> EmbeddingBatch:
    """Rows `first`, `first + 1`, ... of a recording; every value names its row and its column."""
    index = np.arange(first, first + rows)
    return EmbeddingBatch(
        recording=recording,
        start_s=index * 2.5,
        end_s=index * 2.5 + 5.0,
        channel=index % 2,
        embedding=(index[:, None] + np.arange(dim) / 8).astype(np.float32),
    )


def key_of(recording: str, size: int = 1000) -> RecordingKey:
    return RecordingKey(recording, size, 1_700_000_000_123_456_789)


def table(store: EmbeddingStore) -> list[tuple[str, float, float, int, tuple[float, ...]]]:
    found = []
    for batch in store.scan():
        vectors = map(tuple, matrix(batch.column("embedding")).tolist())
        columns = [batch.column(name).to_pylist() for name in ("recording", "start_s", "end_s", "channel")]
        found += list(zip(*columns, vectors, strict=True))
    return found


@pytest.fixture(params=["memory", "parquet", "parquet-sealing-each-commit"])
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> MakeStore:
    def make(header: StoreHeader | None = None) -> EmbeddingStore:
        header = header or make_header()
        if request.param == "memory":
            return MemoryStore(header)
        seal = SealPolicy() if request.param == "parquet" else SealPolicy(rows=1, seconds=0.0, stream_rows=2)
        return ParquetStore(tmp_path / "out.parquet", header, seal=seal)

    return make


def test_rows_come_back_in_commit_order_with_their_times(make_store: MakeStore) -> None:
    with make_store() as store:
        store.append(make_batch("b.wav", 2))
        store.append(make_batch("b.wav", 1, first=2))
        store.commit(key_of("b.wav"))
        store.append(make_batch("a.wav", 1))
        store.commit(key_of("a.wav"))
    expected = [
        ("b.wav", 0.0, 5.0, 0, (0.0, 0.125, 0.25)),
        ("b.wav", 2.5, 7.5, 1, (1.0, 1.125, 1.25)),
        ("b.wav", 5.0, 10.0, 0, (2.0, 2.125, 2.25)),
        ("a.wav", 0.0, 5.0, 0, (0.0, 0.125, 0.25)),
    ]
    assert table(store) == expected
    assert len(store) == 4
    assert store.recordings() == ["b.wav", "a.wav"]
    assert dict(store.done()) == {"b.wav": key_of("b.wav"), "a.wav": key_of("a.wav")}


def test_open_store_shows_what_is_committed_and_nothing_else(make_store: MakeStore) -> None:
    with make_store() as store:
        store.append(make_batch("a.wav", 3))
        store.commit(key_of("a.wav"))
        store.append(make_batch("b.wav", 5))
        assert len(store) == 3
        assert store.to_numpy().shape == (3, 3)
        assert "b.wav" not in store.done()
        store.commit(key_of("b.wav"))
        assert len(store) == len(table(store)) == 8


def test_a_recording_without_rows_is_remembered(make_store: MakeStore) -> None:
    with make_store() as store:
        store.commit(key_of("silent.wav"))
        store.append(make_batch("empty.wav", 0))
        store.commit(key_of("empty.wav"))
    assert len(store) == 0
    assert table(store) == []
    assert store.to_numpy().shape == (0, 3)
    assert store.recordings() == ["silent.wav", "empty.wav"]


def test_rollback_drops_the_open_recording_only(make_store: MakeStore) -> None:
    with make_store() as store:
        store.append(make_batch("good.wav", 2))
        store.commit(key_of("good.wav"))
        for first in range(0, 12, 3):
            store.append(make_batch("broken.wav", 3, first))
        store.rollback()
        store.rollback()
        store.append(make_batch("next.wav", 1))
        store.commit(key_of("next.wav"))
    assert [row[0] for row in table(store)] == ["good.wav", "good.wav", "next.wav"]
    assert store.recordings() == ["good.wav", "next.wav"]


def test_close_drops_what_was_not_committed(make_store: MakeStore) -> None:
    with make_store() as store:
        store.append(make_batch("half.wav", 7))
    assert len(store) == 0
    assert not store.done()


def test_recording_committed_again_replaces_its_rows_and_moves_to_the_end(make_store: MakeStore) -> None:
    with make_store() as store:
        for name, rows in (("a.wav", 2), ("b.wav", 1)):
            store.append(make_batch(name, rows))
            store.commit(key_of(name))
        store.append(make_batch("a.wav", 1, first=40))
        store.commit(key_of("a.wav", size=2000))
        assert len(store) == 2
    assert [(row[0], row[1]) for row in table(store)] == [("b.wav", 0.0), ("a.wav", 100.0)]
    assert store.done()["a.wav"].bytes == 2000
    assert store.recordings() == ["b.wav", "a.wav"]


def test_another_recording_must_wait_for_its_turn(make_store: MakeStore) -> None:
    with make_store() as store:
        store.append(make_batch("a.wav", 1))
        with pytest.raises(StoreError, match=r"'b\.wav' cannot begin while 'a\.wav' is open"):
            store.append(make_batch("b.wav", 1))
        with pytest.raises(StoreError, match=r"'b\.wav' cannot begin while 'a\.wav' is open"):
            store.commit(key_of("b.wav"))
        store.commit(key_of("a.wav"))
    assert store.recordings() == ["a.wav"]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused(make_store: MakeStore, bad: float) -> None:
    with make_store() as store:
        batch = make_batch("a.wav", 3)
        batch.embedding[1, 2] = bad
        with pytest.raises(StoreError, match=r"'embedding' of recording 'a\.wav'.*not finite \(row 1\)"):
            store.append(batch)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"embedding": np.zeros((2, 4), np.float32)}, r"'embedding'.*\(2, 4\).*expects \(2, 3\)"),
        ({"embedding": np.zeros(2, np.float32)}, r"'embedding'.*\(2,\).*expects \(2, 3\)"),
        ({"embedding": np.zeros((2, 3), np.complex64)}, "'embedding'.*complex64"),
        ({"start_s": np.zeros(3)}, r"'start_s'.*\(3,\).*expects \(2,\)"),
        ({"end_s": np.array([5.0, np.nan])}, "'end_s'.*not finite"),
        ({"end_s": np.array([5.0, 2.5])}, "ends before it starts"),
        ({"channel": np.array([0, 40_000])}, "'channel'.*do not fit into int16"),
        ({"channel": np.array([0.0, 0.5])}, "'channel'.*float64.*int16"),
        ({"extra": {"score": np.zeros(2)}}, r"\['score'\].*names \[\]"),
    ],
)
def test_rows_that_do_not_fit_the_header_are_refused(
    make_store: MakeStore, change: dict[str, object], message: str
) -> None:
    with make_store() as store:
        batch = make_batch("a.wav", 2)
        for name, value in change.items():
            setattr(batch, name, value)
        with pytest.raises(StoreError, match=message):
            store.append(batch)
        store.append(make_batch("b.wav", 1))  # a refused batch opens nothing
        store.commit(key_of("b.wav"))
    assert store.recordings() == ["b.wav"]


def test_arrays_may_be_reused_after_append(make_store: MakeStore) -> None:
    with make_store() as store:
        batch = make_batch("a.wav", 2)
        store.append(batch)
        batch.embedding[:] = -1
        batch.start_s[:] = -1
        store.commit(key_of("a.wav"))
    assert store.to_numpy()[:, 0].tolist() == [0.0, 1.0]
    assert [row[1] for row in table(store)] == [0.0, 2.5]


def test_half_precision_rounds_to_nearest_and_refuses_overflow(make_store: MakeStore) -> None:
    with make_store(make_header(dtype="float16")) as store:
        batch = make_batch("a.wav", 1)
        batch.embedding[0] = [1 / 3, 65504, -2.0]
        store.append(batch)
        store.commit(key_of("a.wav"))
        batch.embedding[0, 1] = 70_000
        with pytest.raises(StoreError, match=r"too large for float16.*dtype='float32'"):
            store.append(batch)
    assert store.to_numpy().dtype == np.float16
    assert store.to_numpy().tolist() == [[0.333251953125, 65504.0, -2.0]]


def test_further_columns(make_store: MakeStore) -> None:
    header = make_header(columns={"score": "float32[2]", "frame": "int64"}, labels=["crow", "rook"])
    with make_store(header) as store:
        batch = make_batch("a.wav", 2)
        with pytest.raises(StoreError, match=r"further columns \[\].*\['frame', 'score'\]"):
            store.append(batch)
        batch.extra = {"score": np.array([[0.5, 0.25], [0.0, 1.0]]), "frame": np.array([7, 2**40])}
        store.append(batch)
        store.commit(key_of("a.wav"))
    (rows,) = store.scan(["frame", "score"])
    assert rows.schema.names == ["frame", "score"]
    assert rows.column("frame").to_pylist() == [7, 2**40]
    assert matrix(rows.column("score")).tolist() == [[0.5, 0.25], [0.0, 1.0]]


STRANGE_NAMES = [
    "marsh/2024 05/0412.wav",
    "two\nlines\r.wav",
    "quote\"'`,;\t.wav",
    "鳥/🐦.flac",
    "combining e\u0301.wav",
    "nul\0byte",
    "caf\udce9.wav",  # the bytes of a Latin-1 file name, as os.fsdecode gives them
    "back\\slash\udcff\\udcff.wav",
    "avex-escaped:not really.wav",
    "avex-escaped:\\udce9",
    "",
]


def test_every_name_comes_back(make_store: MakeStore) -> None:
    with make_store() as store:
        for index, name in enumerate(STRANGE_NAMES):
            store.append(make_batch(name, 1, first=index))
            store.commit(key_of(name))
    assert store.recordings() == STRANGE_NAMES
    assert [decode_name(row[0]) for row in table(store)] == STRANGE_NAMES
    assert [row[0] for row in table(store)][:6] == STRANGE_NAMES[:6]  # other names are stored as they are


@pytest.mark.parametrize("batch_rows", [1, 3, 4, 100])
def test_scan_gives_batches_of_the_size_asked_for(make_store: MakeStore, batch_rows: int) -> None:
    with make_store() as store:
        for index, rows in enumerate([1, 5, 0, 2, 3]):
            store.append(make_batch(f"{index}.wav", rows))
            store.commit(key_of(f"{index}.wav"))
        sizes = [batch.num_rows for batch in store.scan(["start_s"], batch_rows=batch_rows)]
        assert sum(sizes) == 11
        assert all(size == batch_rows for size in sizes[:-1])
        assert 0 < sizes[-1] <= batch_rows
    with pytest.raises(StoreError, match=r"no column 'label'.*recording, start_s"):
        store.scan(["label"])


def test_data_frame(make_store: MakeStore) -> None:
    pytest.importorskip("pandas")
    with make_store() as store:
        store.append(make_batch("a.wav", 2))
        store.commit(key_of("a.wav"))
    frame = store.to_pandas()
    assert list(frame.columns) == ["recording", "start_s", "end_s", "channel", "embedding"]
    assert frame["recording"].tolist() == ["a.wav", "a.wav"]
    assert frame["embedding"][1].tolist() == [1.0, 1.125, 1.25]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_npy_mirror(make_store: MakeStore, tmp_path: Path, dtype: str) -> None:
    with make_store(make_header(dtype=dtype)) as store:
        for name in ("two\nlines.wav", "b.wav"):
            store.append(make_batch(name, 2))
            store.commit(key_of(name))
    npy, index = store.export_npy(tmp_path / "mirror.npy")
    assert (npy, index) == (tmp_path / "mirror.npy", tmp_path / "mirror.index.csv")
    mirrored = np.load(npy)
    assert mirrored.dtype == dtype
    np.testing.assert_array_equal(mirrored, store.to_numpy())
    assert index.read_bytes().decode() == (
        "recording,start_s,end_s,channel\n"
        '"two\nlines.wav",0.0,5.0,0\n"two\nlines.wav",2.5,7.5,1\n'
        "b.wav,0.0,5.0,0\nb.wav,2.5,7.5,1\n"
    )
    with pytest.raises(StoreError, match=r"'\.npy' file, but the path is '.*mirror\.csv'"):
        store.export_npy(tmp_path / "mirror.csv")


def test_npy_mirror_of_nothing(make_store: MakeStore, tmp_path: Path) -> None:
    with make_store() as store:
        pass
    npy, _ = store.export_npy(tmp_path / "mirror.npy")
    assert np.load(npy).shape == (0, 3)


def test_closed_store_takes_nothing_more(make_store: MakeStore) -> None:
    store = make_store()
    store.append(make_batch("a.wav", 1))
    store.commit(key_of("a.wav"))
    store.close()
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.append(make_batch("b.wav", 1))
    with pytest.raises(StoreError, match="closed"):
        store.commit(key_of("b.wav"))
    assert len(store) == 1


def test_scan_needs_rows_in_a_batch(make_store: MakeStore) -> None:
    with pytest.raises(StoreError, match="cannot have 0 rows"):
        make_store().scan(batch_rows=0)
