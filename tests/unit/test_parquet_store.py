"""The Parquet store: its file, its partial folder, and what it refuses."""

from __future__ import annotations

import base64
import errno
import gc
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from avex import __version__
from avex._core.errors import (
    AvexError,
    StoreError,
    StoreExistsError,
    StoreFullError,
    StoreLockedError,
)
from avex.embedding.stores import MemoryStore, ParquetStore, RecordingKey, SealPolicy, StoreHeader, open_store
from avex.embedding.stores import lock as lock_module

resource = pytest.importorskip("resource", reason="limits on file size are POSIX")

WRITER = Path(__file__).parents[1] / "e2e" / "store_writer.py"
_spec = importlib.util.spec_from_file_location("store_writer", WRITER)
assert _spec is not None
assert _spec.loader is not None
known = importlib.util.module_from_spec(_spec)
sys.modules["store_writer"] = known
_spec.loader.exec_module(known)

EACH_COMMIT = SealPolicy(rows=1, seconds=1e9, stream_rows=2048)


def add(store: ParquetStore | MemoryStore, name: str, rows: int, first: int = 0, size: int = 1000) -> None:
    store.append(known.make_batch(name, rows, first, store.header.embedding_dim))
    store.commit(RecordingKey(name, size, 7))


def names_in(path: Path) -> list[str]:
    return pq.read_table(path).column("recording").to_pylist()


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.parquet"


# The file


def test_finished_file_is_plain_parquet_with_the_documented_footer(out: Path) -> None:
    header = known.make_header(embedding_dim=2, columns={"score": "float32[3]"}, labels=["a", "b", "c"])
    with ParquetStore(out, header) as store:
        batch = known.make_batch("dawn.wav", 2, dim=2)
        batch.extra = {"score": np.ones((2, 3), np.float32)}
        store.append(batch)
        store.commit(RecordingKey("dawn.wav", 320_044, 1_718_000_000_000_000_001))
        store.commit(RecordingKey("silent\udce9.wav", 44, 0))
    file = pq.ParquetFile(out)
    assert [(field.name, str(field.type)) for field in file.schema_arrow] == [
        ("recording", "string"),
        ("start_s", "double"),
        ("end_s", "double"),
        ("channel", "int16"),
        ("embedding", "fixed_size_list<element: float not null>[2]"),
        ("score", "fixed_size_list<element: float not null>[3]"),
    ]
    pairs = file.metadata.metadata
    run = json.loads(pairs[b"avex"])
    assert run["schema_version"] == 1
    assert len(run["session"]) == 32
    assert run["header"]["card"] == "birdnet"
    assert run["header"]["avex_version"] == __version__
    assert run["header"]["labels"] == ["a", "b", "c"]
    assert json.loads(zlib.decompress(base64.b64decode(pairs[b"avex.recordings"]))) == [
        ["dawn.wav", 320_044, 1_718_000_000_000_000_001, 2],
        ["avex-escaped:silent\\udce9.wav", 44, 0, 0],
    ]
    assert open_store(out).header == header
    assert os.listdir(out.parent) == ["out.parquet"]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_pandas_reads_the_file(out: Path, dtype: str) -> None:
    pandas = pytest.importorskip("pandas")
    with ParquetStore(out, known.make_header(embedding_dim=2, dtype=dtype)) as store:
        add(store, "a.wav", 2)
    frame = pandas.read_parquet(out)
    assert frame["start_s"].tolist() == [0.0, 1.5]
    assert np.stack(frame["embedding"].tolist()).dtype == dtype
    np.testing.assert_array_equal(np.stack(frame["embedding"].tolist()), store.to_numpy())


def test_store_without_recordings_is_a_table_without_rows(out: Path) -> None:
    ParquetStore(out, known.make_header()).close()
    assert pq.read_table(out).num_rows == 0
    assert len(open_store(out)) == 0


def test_row_groups_of_the_merged_table(out: Path) -> None:
    header = known.make_header(embedding_dim=1)
    with ParquetStore(out, header, seal=EACH_COMMIT) as store:
        for i in range(9):
            add(store, f"{i}.wav", 1000)
    metadata = pq.read_metadata(out)
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [4096, 4096, 808]


# Group commit


def parts(out: Path) -> list[str]:
    return sorted(path.name for path in (out.parent / "out.parquet.partial").glob("part-*"))


def test_small_recordings_share_a_part(out: Path) -> None:
    store = ParquetStore(out, known.make_header(), seal=SealPolicy(rows=10, seconds=1e9))
    for i in range(10):
        add(store, f"{i}.wav", 1)  # a recording counts as one besides its rows
        assert len(parts(out)) == (i + 1) // 5
    add(store, "10.wav", 1)
    assert len(parts(out)) == 2
    store.close()


def test_recordings_are_sealed_when_time_has_passed(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("avex.embedding.stores.writer.time.monotonic", lambda: now[0])
    store = ParquetStore(out, known.make_header(), seal=SealPolicy(seconds=5.0))
    add(store, "a.wav", 1)
    now[0] += 4.9
    add(store, "b.wav", 1)
    assert parts(out) == []
    now[0] += 0.1
    store.append(known.make_batch("c.wav", 1))  # what waits is sealed although this recording is open
    assert parts(out) == ["part-000001.parquet"]
    assert names_in(out.parent / "out.parquet.partial" / "part-000001.parquet") == ["a.wav", "b.wav"]
    store.commit(RecordingKey("c.wav", 1, 1))
    assert len(parts(out)) == 1
    store.close()


def test_sealing_slows_down_in_very_long_runs(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("avex.embedding.stores.writer.time.monotonic", lambda: now[0])
    monkeypatch.setattr("avex.embedding.stores.writer._PARTS_PER_INTERVAL", 10)
    store = ParquetStore(out, known.make_header(), seal=SealPolicy(seconds=1.0))
    for i in range(100):
        now[0] += 1.0
        add(store, f"{i}.wav", 1)
    # 9 parts after 1 s each, 10 after 2 s, 10 after 3 s, then one each 4 s
    assert len(parts(out)) == 9 + 10 + 10 + (100 - 9 - 20 - 30) // 4
    store.close()
    assert len(open_store(out)) == 100


def test_long_recording_streams_to_its_own_part(out: Path) -> None:
    folder = out.parent / "out.parquet.partial"
    store = ParquetStore(out, known.make_header(), seal=SealPolicy(seconds=1e9, stream_rows=10))
    add(store, "short.wav", 3)
    for first in range(0, 40, 4):
        store.append(known.make_batch("long.wav", 4, first))
    assert parts(out) == ["part-000001.parquet"]  # the short one went before it
    assert (folder / "streaming.tmp").exists()
    assert store._writer is not None
    assert store._writer.pending_bytes < 10 * known.DIM * 4 * 2
    store.commit(RecordingKey("long.wav", 1, 1))
    add(store, "after.wav", 1)
    metadata = pq.read_metadata(folder / "part-000002.parquet")
    assert metadata.num_rows == 40
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [10, 10, 10, 10]
    store.close()
    assert names_in(out) == ["short.wav"] * 3 + ["long.wav"] * 40 + ["after.wav"]


def test_rollback_removes_a_streamed_recording_from_the_disk(out: Path) -> None:
    folder = out.parent / "out.parquet.partial"
    store = ParquetStore(out, known.make_header(), seal=SealPolicy(seconds=1e9, stream_rows=4))
    for first in range(0, 40, 4):
        store.append(known.make_batch("long.wav", 4, first))
    assert (folder / "streaming.tmp").exists()
    store.rollback()
    assert not (folder / "streaming.tmp").exists()
    store.close()
    assert len(open_store(out)) == 0


MEASURE_PEAK = """
import sys
import pyarrow
sys.path.insert(0, sys.argv[1])
import store_writer as known
from avex.embedding.stores import ParquetStore, RecordingKey, SealPolicy

with ParquetStore(sys.argv[2], known.make_header(embedding_dim=256), seal=SealPolicy(seconds=1e9)) as store:
    for i in range(int(sys.argv[3])):
        for first in range(0, 8_000, 500):
            store.append(known.make_batch(f"{i}.wav", 500, first, 256))
        store.commit(RecordingKey(f"{i}.wav", 1, 1))
sys.stdout.write(str(pyarrow.default_memory_pool().max_memory()))
"""


def test_memory_does_not_grow_with_the_table(tmp_path: Path) -> None:
    peaks = []
    for recordings in (3, 9):
        out = tmp_path / f"{recordings}.parquet"
        command = [sys.executable, "-c", MEASURE_PEAK, str(WRITER.parent), str(out), str(recordings)]
        peaks.append(int(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    assert out.stat().st_size > 9 * 8_000 * 256 * 4
    assert peaks[1] < 1.2 * peaks[0]
    assert peaks[1] < out.stat().st_size / 2


# Resuming


def test_resuming_a_finished_store_adds_rows_at_the_end(out: Path) -> None:
    first = known.make_header(created_utc="2024-05-01T00:00:00+00:00")
    with ParquetStore(out, first) as store:
        add(store, "a.wav", 2)
    with ParquetStore(out, known.make_header(runtime="other", extra={"note": 1})) as store:
        assert dict(store.done()) == {"a.wav": RecordingKey("a.wav", 1000, 7)}
        add(store, "b.wav", 1)
    assert names_in(out) == ["a.wav", "a.wav", "b.wav"]
    assert open_store(out).header == first


def test_finished_store_is_not_touched_when_nothing_is_added(out: Path) -> None:
    with ParquetStore(out, known.make_header()) as store:
        add(store, "a.wav", 2)
    before = out.stat()
    with ParquetStore(out, known.make_header()) as store:
        pass
    after = out.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert os.listdir(out.parent) == ["out.parquet"]


def test_changed_recording_is_not_done_and_its_old_rows_go(out: Path) -> None:
    with ParquetStore(out, known.make_header(), seal=EACH_COMMIT) as store:
        for name in ("a.wav", "b.wav", "c.wav"):
            add(store, name, 2)
    changed = RecordingKey("b.wav", 2000, 8)
    with ParquetStore(out, known.make_header(), seal=EACH_COMMIT) as store:
        assert store.done()["b.wav"] != changed
        store.append(known.make_batch("b.wav", 1, first=50))
        store.commit(changed)
        assert len(store) == 5
    assert names_in(out) == ["a.wav", "a.wav", "c.wav", "c.wav", "b.wav"]
    assert open_store(out).done()["b.wav"] == changed
    assert pq.read_metadata(out).num_rows == 5


def test_replaced_rows_go_wherever_row_groups_and_batches_begin(out: Path) -> None:
    """Of the first part, row groups are dropped whole or in pieces."""
    counts = (1, 3, 2, 4, 0, 2, 4, 1, 3, 2)
    policy = SealPolicy(rows=10**6, seconds=1e9, stream_rows=4)  # one part with row groups of four rows
    store, memory = ParquetStore(out, known.make_header(), seal=policy), MemoryStore(known.make_header())
    for i, count in enumerate(counts):
        for target in (store, memory):
            add(target, f"{i}.wav", count, first=100 * i)
    store.suspend()
    assert pq.read_metadata(next(Path(f"{out}.partial").glob("*.parquet"))).num_row_groups == 6
    store = ParquetStore(out, known.make_header(), seal=policy)
    for i in (0, 1, 2, 5, 8):
        for target in (store, memory):
            add(target, f"{i}.wav", 1, first=100 * i + 50)
    for batch_rows in (1, 3, 100):
        rows = [batch.to_pylist() for batch in store.scan(batch_rows=batch_rows)]
        assert [row for batch in rows for row in batch] == [
            row for batch in memory.scan() for row in batch.to_pylist()
        ]
        assert {len(batch) for batch in rows[:-1]} <= {batch_rows}
    store.close()
    np.testing.assert_array_equal(open_store(out).to_numpy(), memory.to_numpy())
    assert pq.read_metadata(out).num_rows == len(memory) == 16


def test_leaving_by_an_error_keeps_what_was_committed(out: Path) -> None:
    store = ParquetStore(out, known.make_header())

    def run() -> None:
        with store:
            add(store, "a.wav", 2)
            store.append(known.make_batch("b.wav", 1))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()
    assert not out.exists()
    assert open_store(out).recordings() == store.recordings() == ["a.wav"]
    assert store.to_numpy().shape == (2, known.DIM)
    with ParquetStore(out, known.make_header()) as store:
        assert store.recordings() == ["a.wav"]
        add(store, "b.wav", 1)
    assert names_in(out) == ["a.wav", "a.wav", "b.wav"]


def test_a_run_that_fails_before_its_first_recording_leaves_nothing(tmp_path: Path) -> None:
    out = tmp_path / "new" / "folder" / "out.parquet"
    with pytest.raises(ZeroDivisionError), ParquetStore(out, known.make_header()):
        raise ZeroDivisionError
    assert list(out.parent.iterdir()) == []


def test_interrupted_write_of_a_long_recording_must_be_rolled_back(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    store = ParquetStore(out, known.make_header(), seal=SealPolicy(stream_rows=2))
    with monkeypatch.context() as patch:
        patch.setattr("avex.embedding.stores.parts.PartWriter.write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            store.append(known.make_batch("a.wav", 5))
    with pytest.raises(StoreError, match=r"'a\.wav' was interrupted"):
        store.commit(RecordingKey("a.wav", 1, 1))
    store.rollback()
    add(store, "a.wav", 5)
    store.close()
    assert len(open_store(out)) == 5


def test_parts_left_by_a_kill_after_the_merge_do_not_count_twice(out: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out.parquet.partial"
    store = ParquetStore(out, known.make_header(), seal=EACH_COMMIT)
    for name in ("a.wav", "b.wav"):
        add(store, name, 2)
    store.suspend()
    shutil.copytree(folder, tmp_path / "copy")
    ParquetStore(out, known.make_header()).close()
    assert not folder.exists()
    shutil.copytree(tmp_path / "copy", folder)  # as if the removal had never happened
    assert names_in(out) == ["a.wav", "a.wav", "b.wav", "b.wav"]
    assert len(open_store(out)) == 4
    with ParquetStore(out, known.make_header()) as store:
        assert len(store) == 4
        add(store, "c.wav", 1)
    assert names_in(out) == ["a.wav", "a.wav", "b.wav", "b.wav", "c.wav"]
    assert not folder.exists()


def test_table_that_went_missing_under_an_unfinished_store(out: Path, tmp_path: Path) -> None:
    with ParquetStore(out, known.make_header()) as store:
        add(store, "a.wav", 1)
    store = ParquetStore(out, known.make_header())
    add(store, "b.wav", 1)
    store.suspend()
    out.rename(tmp_path / "elsewhere.parquet")
    for mode in ("resume", "read"):
        with pytest.raises(StoreError, match=r"has been removed since it began.*out\.parquet\.partial"):
            ParquetStore(out, known.make_header(), mode=mode)
    with ParquetStore(tmp_path / "other.parquet", known.make_header()) as other:
        add(other, "x.wav", 1)
    shutil.copy(tmp_path / "other.parquet", out)
    with pytest.raises(StoreError, match="is not the one since it began"):
        ParquetStore(out, known.make_header())
    (tmp_path / "elsewhere.parquet").replace(out)
    ParquetStore(out, known.make_header()).close()
    assert names_in(out) == ["a.wav", "b.wav"]


# Other settings, other files


def test_other_settings_are_named(out: Path) -> None:
    with ParquetStore(out, known.make_header()) as store:
        add(store, "a.wav", 1)
    other = known.make_header(window_s=5.0, resampler="kaiser_best", layers=["layer_3"])
    with pytest.raises(StoreExistsError) as caught:
        ParquetStore(out, other)
    message = str(caught.value)
    assert "window_s: 3.0 in the store, 5.0 now" in message
    assert "resampler: 'soxr_hq' in the store, 'kaiser_best' now" in message
    assert "layers: ['last_layer'] in the store, ['layer_3'] now" in message
    assert "hop_s" not in message
    assert "--overwrite" in message
    assert isinstance(caught.value, FileExistsError)
    assert os.listdir(out.parent) == ["out.parquet"]
    ParquetStore(out, known.make_header()).close()  # the lock is free


def test_other_settings_of_an_unfinished_store(out: Path) -> None:
    store = ParquetStore(out, known.make_header())
    add(store, "a.wav", 1)
    store.suspend()
    with pytest.raises(StoreExistsError, match=r"hop_s: 1\.5 in the store, 3\.0 now"):
        ParquetStore(out, known.make_header(hop_s=3.0))


def test_first_attempt_without_recordings_does_not_bind_the_second(out: Path) -> None:
    dead = ParquetStore(out, known.make_header(hop_s=1.0))
    assert dead._lock is not None
    dead._lock._release()  # as a kill does
    with ParquetStore(out, known.make_header(hop_s=3.0)) as store:
        add(store, "a.wav", 1)
    assert open_store(out).header.hop_s == 3.0


@pytest.mark.parametrize("mode", ["resume", "overwrite"])
@pytest.mark.parametrize("kind", ["text", "empty", "parquet", "folder"])
def test_what_is_not_a_store_is_never_replaced(out: Path, kind: str, mode: str) -> None:
    if kind == "folder":
        out.mkdir()
    elif kind == "parquet":
        pq.write_table(pa.table({"embedding": [1.0]}), out)
    else:
        out.write_text("my notes" if kind == "text" else "")
    before = None if kind == "folder" else out.read_bytes()
    with pytest.raises(StoreExistsError, match="is not an embedding store of avex"):
        ParquetStore(out, known.make_header(), mode=mode)
    assert os.listdir(out.parent) == ["out.parquet"]
    assert before is None or out.read_bytes() == before
    with pytest.raises(StoreError, match="is not an embedding store of avex"):
        open_store(out)


def test_overwriting_keeps_the_old_table_until_the_new_one_is_complete(out: Path) -> None:
    with ParquetStore(out, known.make_header()) as store:
        add(store, "old.wav", 3)
    store = ParquetStore(out, known.make_header(hop_s=3.0), mode="overwrite", seal=EACH_COMMIT)
    assert not store.done()
    add(store, "new.wav", 1)
    assert open_store(out).recordings() == ["old.wav"]
    store.suspend()
    assert open_store(out).recordings() == ["old.wav"]
    with ParquetStore(out, known.make_header(hop_s=3.0)) as store:  # going on with the new one
        assert store.recordings() == ["new.wav"]
        add(store, "newer.wav", 1)
    assert names_in(out) == ["new.wav", "newer.wav"]
    assert open_store(out).header.hop_s == 3.0


def test_overwriting_an_unfinished_store_drops_its_parts(out: Path) -> None:
    store = ParquetStore(out, known.make_header())
    add(store, "old.wav", 3)
    store.suspend()
    with ParquetStore(out, known.make_header(hop_s=3.0), mode="overwrite") as store:
        assert not store.done()
        add(store, "new.wav", 1)
    assert names_in(out) == ["new.wav"]


def test_overwriting_goes_on_when_the_table_that_it_replaces_has_gone(out: Path) -> None:
    with ParquetStore(out, known.make_header()) as store:
        add(store, "old.wav", 2)
    store = ParquetStore(out, known.make_header(), mode="overwrite")
    add(store, "a.wav", 1)
    store.suspend()
    out.unlink()
    assert open_store(out).recordings() == ["a.wav"]
    with ParquetStore(out, known.make_header()) as store:
        add(store, "b.wav", 1)
    assert names_in(out) == ["a.wav", "b.wav"]


def test_symbolic_link_stays_a_link(tmp_path: Path) -> None:
    real, link = tmp_path / "disk" / "real.parquet", tmp_path / "out.parquet"
    real.parent.mkdir()
    link.symlink_to(real)
    with ParquetStore(link, known.make_header()) as store:
        add(store, "a.wav", 1)
    assert link.is_symlink()
    assert names_in(real) == ["a.wav"]


def test_bad_arguments(out: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no mode 'append'"):
        ParquetStore(out, known.make_header(), mode="append")  # type: ignore[arg-type]
    with pytest.raises(StoreError, match="without a header"):
        ParquetStore(out)
    with pytest.raises(StoreError, match="There is no embedding store at"):
        open_store(out)
    with pytest.raises(StoreError, match="not UTF-8"):
        ParquetStore(tmp_path / "caf\udce9.parquet", known.make_header())
    (tmp_path / "blocked.parquet.partial").write_text("")
    with pytest.raises(StoreError, match=r"cannot begin.*blocked\.parquet\.partial"):
        ParquetStore(tmp_path / "blocked.parquet", known.make_header())
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot begin"):
        ParquetStore(tmp_path / "file" / "out.parquet", known.make_header())
    with pytest.raises(StoreError, match="rows and stream_rows are at least 1"):
        SealPolicy(stream_rows=0)
    with pytest.raises(StoreError, match="must consist of JSON values"):
        known.make_header(extra={"made": object()})
    with pytest.raises(StoreError, match="at least 1 number"):
        known.make_header(embedding_dim=0)
    with pytest.raises(StoreError, match="'float64'"):
        known.make_header(dtype="float64")
    with pytest.raises(StoreError, match="cannot be called 'start_s'"):
        known.make_header(columns={"start_s": "float32"})
    with pytest.raises(StoreError, match=r"'float32\[0\]' is not a column type"):
        known.make_header(columns={"score": "float32[0]"})


def test_reader_does_not_write(out: Path) -> None:
    ParquetStore(out, known.make_header()).close()
    store = open_store(out)
    with pytest.raises(StoreError, match="open for reading only"):
        store.commit(RecordingKey("a.wav", 1, 1))
    store.close()


def test_header_survives_json_and_names_differences() -> None:
    header = known.make_header(labels=("a",), columns={"score": "float32[1]"})
    assert StoreHeader.from_dict(json.loads(json.dumps(header.as_dict()))) == header
    other = known.make_header(
        labels=("a",), columns={"score": "float32[1]"}, dtype="float16", weights_sha256=None, avex_version="0"
    )
    assert header.compatible_with(other) == ["weights_sha256", "dtype"]
    with pytest.raises(StoreError, match="another version of avex"):
        StoreHeader.from_dict({**header.as_dict(), "colour": "red"})


# Damage


def unfinished(out: Path) -> Path:
    store = ParquetStore(out, known.make_header(), seal=EACH_COMMIT)
    for name in ("a.wav", "b.wav"):
        add(store, name, 50)
    store.suspend()
    return out.parent / "out.parquet.partial"


@pytest.mark.parametrize("mode", ["resume", "read"])
def test_truncated_part_is_named(out: Path, mode: str) -> None:
    part = unfinished(out) / "part-000002.parquet"
    part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(StoreError, match=r"part-000002\.parquet.*damaged.*delete it"):
        ParquetStore(out, known.make_header(), mode=mode)
    part.unlink()
    with ParquetStore(out, known.make_header()) as store:
        assert store.recordings() == ["a.wav"]


def test_changed_byte_in_a_part_is_found_by_its_checksum(out: Path) -> None:
    part = unfinished(out) / "part-000001.parquet"
    column = pq.read_metadata(part).row_group(0).column(4)
    content = bytearray(part.read_bytes())
    content[column.data_page_offset + column.total_compressed_size // 2] ^= 0x10
    part.write_bytes(content)
    with pytest.raises(StoreError, match=r"part-000001\.parquet' is damaged"):
        open_store(out).to_numpy()
    store = ParquetStore(out, known.make_header())
    with pytest.raises(StoreError, match=r"part-000001\.parquet' is damaged"):
        store.close()
    assert not out.exists()
    assert sorted(path.name for path in part.parent.iterdir()) == [
        "header.json",
        "part-000001.parquet",
        "part-000002.parquet",
    ]


def test_damaged_session_file(out: Path) -> None:
    session = unfinished(out) / "header.json"
    content = session.read_text()
    for broken in ("{", "[]", content.replace('"base"', '"bass"')):
        session.write_text(broken)
        with pytest.raises(StoreError, match=r"header\.json' is damaged.*overwrite"):
            ParquetStore(out, known.make_header())
    session.unlink()
    with pytest.raises(StoreError, match=r"parts of a store but no 'header\.json'"):
        open_store(out)
    with ParquetStore(out, known.make_header(), mode="overwrite") as store:
        add(store, "c.wav", 1)
    assert names_in(out) == ["c.wav"]


def rewrite_footer(path: Path, pairs: dict[bytes, bytes]) -> None:
    rows = pq.read_table(path)
    pq.write_table(rows.replace_schema_metadata({**pq.read_metadata(path).metadata, **pairs}), path)


def test_newer_version_and_damaged_footer(out: Path) -> None:
    with ParquetStore(out, known.make_header()) as store:
        add(store, "a.wav", 3)
    good = pq.read_metadata(out).metadata
    rewrite_footer(out, {b"avex": good[b"avex"].replace(b'"schema_version": 1', b'"schema_version": 2')})
    with pytest.raises(StoreError, match=r"schema version 2; this avex reads versions up to 1\. Upgrade"):
        open_store(out)
    rewrite_footer(out, {b"avex": good[b"avex"], b"avex.recordings": b"?"})
    with pytest.raises(StoreError, match=r"footer of .* is damaged"):
        open_store(out)
    two = base64.b64encode(zlib.compress(b'[["a.wav",1,1,2]]'))
    rewrite_footer(out, {b"avex": good[b"avex"], b"avex.recordings": two})
    with pytest.raises(StoreError, match="its recordings have 2 rows, its table 3"):
        open_store(out)


def test_store_that_was_completed_under_a_reader(out: Path) -> None:
    unfinished(out)
    reader = open_store(out)
    ParquetStore(out, known.make_header()).close()
    with pytest.raises(StoreError, match=r"has gone while it was read.*Open it again"):
        reader.to_numpy()


# Two writers


def test_second_writer_in_the_same_process_is_refused(out: Path) -> None:
    with ParquetStore(out, known.make_header(), seal=EACH_COMMIT) as store:
        add(store, "a.wav", 1)
        with pytest.raises(StoreLockedError, match=f"process {os.getpid()} on host '{socket.gethostname()}'"):
            ParquetStore(out, known.make_header())
        with pytest.raises(StoreLockedError):
            ParquetStore(out, known.make_header(), mode="overwrite")
        assert open_store(out).recordings() == ["a.wav"]  # reading is free
    assert names_in(out) == ["a.wav"]


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is POSIX")
def test_second_writer_in_another_process_is_refused_until_the_first_dies(out: Path) -> None:
    first = subprocess.Popen(
        [sys.executable, str(WRITER), str(out), "--hold"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert first.stdout is not None
        assert first.stdout.readline() == "open\n"
        with pytest.raises(StoreLockedError, match=f"is being written by process {first.pid} on host"):
            ParquetStore(out, known.make_header())
    finally:
        first.kill()
        first.communicate()
    with ParquetStore(out, known.make_header()) as store:
        add(store, "a.wav", 1)
    assert names_in(out) == ["a.wav"]


def test_forgotten_store_releases_its_lock(out: Path) -> None:
    store = ParquetStore(out, known.make_header(), seal=EACH_COMMIT)
    add(store, "a.wav", 1)
    del store
    gc.collect()
    assert ParquetStore(out, known.make_header()).recordings() == ["a.wav"]


def test_lock_is_refused_on_a_file_that_lost_its_name(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer before us may remove the lock file after we opened it: that file guards nothing."""
    lock = out.parent / "out.parquet.partial" / "lock"
    real = lock_module._lock
    opened = []

    def lock_late(descriptor: int) -> None:
        opened.append(descriptor)
        if len(opened) == 1:
            lock.unlink()
        real(descriptor)

    monkeypatch.setattr(lock_module, "_lock", lock_late)
    with ParquetStore(out, known.make_header()) as store:
        assert len(opened) == 2
        with pytest.raises(StoreLockedError):
            ParquetStore(out, known.make_header())
        add(store, "a.wav", 1)


def test_file_system_without_locks_is_warned_about(
    out: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock_module, "_lock", refuse)
    with ParquetStore(out, known.make_header()) as store:
        add(store, "a.wav", 1)
    assert "has no locks. Make sure that no other process writes there" in caplog.text
    assert names_in(out) == ["a.wav"]


@pytest.mark.skipif(os.name == "nt", reason="forks are POSIX")
def test_writers_that_come_and_go_never_meet(tmp_path: Path) -> None:
    """Processes that open and close one store all the time: at most one is in at any moment."""
    code = (
        "import sys, time; from pathlib import Path; from avex._core.errors import StoreLockedError\n"
        "from avex.embedding.stores.lock import WriterLock\n"
        "folder, inside, end, entries = Path(sys.argv[1]), Path(sys.argv[2]), time.time() + 1.0, 0\n"
        "while time.time() < end:\n"
        "    try: lock = WriterLock(folder, folder)\n"
        "    except StoreLockedError: continue\n"
        "    inside.open('x').close(); entries += 1; inside.unlink(); lock.remove()\n"
        "sys.stdout.write(str(entries))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "out.partial"), str(tmp_path / "inside")]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    outputs = [process.communicate(timeout=30)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert sum(map(int, outputs)) > 10
    assert list(tmp_path.iterdir()) == []


# A full disk


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let the system refuse files above a size (EFBIG), which needs no other disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def refuses(store: ParquetStore, add_until: int, rows: int) -> StoreFullError:
    """Write recordings until the disk is full, and check what then holds."""

    def run() -> None:
        for i in range(add_until):
            add(store, f"{i:04d}.wav", rows)
        store.close()

    with pytest.raises(StoreFullError) as caught:
        run()
    assert isinstance(caught.value, OSError)
    assert isinstance(caught.value, AvexError)
    with pytest.raises(StoreError, match="closed"):
        store.append(known.make_batch("x.wav", 1))
    safe = open_store(store.path) if store.recordings() else MemoryStore(known.make_header())
    assert safe.recordings() == store.recordings() == [f"{i:04d}.wav" for i in range(len(store.done()))]
    assert f"{len(store.done())} recordings ({len(store)} rows) are safe" in str(caught.value)
    assert len(known.table(safe)) == rows * len(store.done())
    assert not list(store.path.parent.rglob("*.tmp"))
    return caught.value


@pytest.mark.parametrize(
    ("limit", "rows", "stream_rows", "count"),
    [
        (12_000, 100, 2048, 8),  # the first part that is sealed
        (60_000, 5000, 64, 1),  # in the middle of a long recording
        (40_000, 100, 2048, 30),  # parts fit, the merged table does not
    ],
    ids=["sealing", "streaming", "merging"],
)
def test_full_disk(out: Path, limit: int, rows: int, stream_rows: int, count: int) -> None:
    seal = SealPolicy(rows=300, seconds=1e9, stream_rows=stream_rows)
    store = ParquetStore(out, known.make_header(), seal=seal)
    with largest_file(limit):
        error = refuses(store, count, rows)
    assert error.errno == errno.EFBIG
    with ParquetStore(out, known.make_header(), seal=seal) as store:  # with room again, it goes on
        for i in range(len(store.done()), count):
            add(store, f"{i:04d}.wav", rows)
    assert open_store(out).recordings() == [f"{i:04d}.wav" for i in range(count)]
    assert len(open_store(out)) == rows * count


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a small disk can be mounted by root only")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_full_disk_for_real(tiny_disk: Path) -> None:
    out = tiny_disk / "out.parquet"
    ballast = tiny_disk / "ballast"
    ballast.write_bytes(bytes(1_400_000))
    seal = SealPolicy(rows=500, seconds=1e9)
    error = refuses(ParquetStore(out, known.make_header(), seal=seal), 100, 100)
    assert error.errno == errno.ENOSPC
    assert "are free" in str(error)
    ballast.unlink()
    with ParquetStore(out, known.make_header(), seal=seal) as store:
        assert 10 < len(store.done()) < 100
        for i in range(len(store.done()), 100):
            add(store, f"{i:04d}.wav", 100)
    memory = MemoryStore(known.make_header())
    for i in range(100):
        add(memory, f"{i:04d}.wav", 100)
    assert known.table(open_store(out)) == known.table(memory)


def test_npy_mirror_on_a_full_disk(out: Path) -> None:
    with ParquetStore(out, known.make_header()) as store:
        add(store, "a.wav", 1000)
    with largest_file(10_000), pytest.raises(StoreFullError, match=r"takes 64\.0 kB"):
        store.export_npy(out.parent / "mirror.npy")
    assert os.listdir(out.parent) == ["out.parquet"]


def test_importing_the_stores_loads_neither_torch_nor_pyarrow() -> None:
    code = "import sys, avex.embedding.stores; sys.exit({'torch', 'pyarrow'} & set(sys.modules) != set())"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    code = "import sys; from avex.embedding.stores import ParquetStore; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
