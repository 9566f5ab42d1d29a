"""However and whenever the writing of a store ends, going on from there gives the table of an undisturbed run."""

from __future__ import annotations

import importlib.util
import itertools
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avex._core.errors import StoreError
from avex.embedding.stores import MemoryStore, ParquetStore, RecordingKey, SealPolicy, open_store

WRITER = Path(__file__).parents[1] / "e2e" / "store_writer.py"
_spec = importlib.util.spec_from_file_location("store_writer", WRITER)
assert _spec is not None
assert _spec.loader is not None
known = importlib.util.module_from_spec(_spec)
sys.modules["store_writer"] = known
_spec.loader.exec_module(known)


class Killed(BaseException):
    """The process is dead: nothing that it does has an effect any more."""


@contextmanager
def death_after(steps: int) -> Iterator[list[str]]:
    """Let `steps` changes of the file system happen; every later one raises `Killed` instead.

    Unlike a real kill this stops at exactly the same places each time.
    """
    done: list[str] = []

    def mortal(name: str, original: object) -> object:
        def call(*args: object, **options: object) -> object:
            if len(done) >= steps:
                raise Killed
            done.append(name)
            return original(*args, **options)  # type: ignore[operator]

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in ("replace", "unlink", "rmdir", "mkdir"):
            patch.setattr(Path, name, mortal(name, getattr(Path, name)))
        patch.setattr(os, "fsync", mortal("fsync", os.fsync))
        yield done


def bury(store: ParquetStore | None) -> None:
    """Do for a store of a dead process what the system does: release its lock. Nothing else is tidied."""
    if store is not None and store._lock is not None:
        store._lock._release()


def undisturbed(wanted: list[object]) -> list[object]:
    store = MemoryStore(known.make_header())
    known.write(store, wanted)
    return known.table(store)


def write_until_death(
    path: Path, wanted: list[object], seal: SealPolicy, steps: int, mode: str = "resume"
) -> bool:
    """Run the writer with a limit on file-system changes; return whether it survived."""
    store = None
    with death_after(steps) as done:
        try:
            store = ParquetStore(path, known.make_header(), mode=mode, seal=seal)
            known.write(store, wanted)
            store.close()
        except Killed:
            bury(store)
            return False
    return len(done) < steps


def committed(path: Path) -> list[object]:
    """Return the rows that a reader sees, none when there is no store yet."""
    try:
        return known.table(open_store(path))
    except StoreError as error:
        if "There is no embedding store" in str(error):
            return []
        raise


EACH_COMMIT = SealPolicy(rows=1, seconds=1e9, stream_rows=8)


def test_death_at_every_step(tmp_path: Path) -> None:
    wanted = known.takes(7)
    expected = undisturbed(wanted)
    assert len(expected) > 50
    for steps in range(10_000):
        path = tmp_path / str(steps) / "out.parquet"
        survived = write_until_death(path, wanted, EACH_COMMIT, steps)
        seen = committed(path)
        assert seen == expected[: len(seen)], f"after {steps} steps a reader sees rows that are not committed"
        with ParquetStore(path, known.make_header(), seal=EACH_COMMIT) as store:
            known.write(store, wanted)
        assert known.table(open_store(path)) == expected, f"killed after {steps} steps"
        assert sorted(os.listdir(path.parent)) == ["out.parquet"]
        shutil.rmtree(path.parent)
        if survived:
            break
    assert steps > 40


def test_death_at_every_step_while_a_finished_table_grows(tmp_path: Path) -> None:
    wanted = known.takes(8)
    expected = undisturbed(wanted)
    finished = tmp_path / "finished.parquet"
    with ParquetStore(finished, known.make_header()) as store:
        known.write(store, wanted[:4])
    for steps in range(10_000):
        path = tmp_path / str(steps) / "out.parquet"
        path.parent.mkdir()
        shutil.copy(finished, path)
        survived = write_until_death(path, wanted, EACH_COMMIT, steps)
        seen = committed(path)
        assert seen == expected[: len(seen)]
        assert len(seen) >= len(undisturbed(wanted[:4])), f"after {steps} steps finished rows are missing"
        with ParquetStore(path, known.make_header(), seal=EACH_COMMIT) as store:
            known.write(store, wanted)
        assert known.table(open_store(path)) == expected, f"killed after {steps} steps"
        shutil.rmtree(path.parent)
        if survived:
            break
    assert steps > 25


def test_death_at_every_step_while_overwriting(tmp_path: Path) -> None:
    wanted = known.takes(8)
    old, new = undisturbed(wanted[:4]), undisturbed(wanted[4:])
    finished = tmp_path / "finished.parquet"
    with ParquetStore(finished, known.make_header()) as store:
        known.write(store, wanted[:4])
    for steps in range(10_000):
        path = tmp_path / str(steps) / "out.parquet"
        path.parent.mkdir()
        shutil.copy(finished, path)
        survived = write_until_death(path, wanted[4:], EACH_COMMIT, steps, mode="overwrite")
        assert committed(path) in (old, new)
        with ParquetStore(path, known.make_header(), mode="overwrite") as store:
            known.write(store, wanted[4:])
        assert known.table(open_store(path)) == new, f"killed after {steps} steps"
        assert sorted(os.listdir(path.parent)) == ["out.parquet"]
        shutil.rmtree(path.parent)
        if survived:
            break
    assert steps > 20


@st.composite
def recordings(draw: st.DrawFn) -> list[object]:
    """Some recordings; a name may come twice, as when a file changes between two runs."""
    found = []
    for i in range(draw(st.integers(1, 10))):
        name = draw(st.sampled_from(["a.wav", "b\n.wav", "caf\udce9.wav", "d.wav", f"{i}.wav"]))
        key = RecordingKey(name, draw(st.integers(0, 3)), i)
        rows = draw(st.integers(0, 25))
        found.append(known.Take(key, rows, draw(st.integers(1, 9)), fails=draw(st.booleans()) and i % 3 == 0))
    return found


policies = st.builds(
    SealPolicy,
    rows=st.sampled_from([1, 7, 30, 8192]),
    seconds=st.sampled_from([0.0, 1e9]),
    stream_rows=st.sampled_from([1, 4, 2048]),
)


@settings(max_examples=40, deadline=None)
@given(
    wanted=recordings(), deaths=st.lists(st.tuples(policies, st.integers(0, 60)), max_size=3), last=policies
)
def test_any_deaths_then_resume(
    wanted: list[object], deaths: list[tuple[SealPolicy, int]], last: SealPolicy
) -> None:
    # A recording that comes twice is known by its last key to the resumed run, as it is to a real one.
    newest = {take.key.recording: take for take in wanted}
    wanted = list(newest.values())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "out.parquet"
        for policy, steps in deaths:
            write_until_death(path, wanted, policy, steps)
        with ParquetStore(path, known.make_header(), seal=last) as store:
            known.write(store, wanted)
        assert known.table(open_store(path)) == undisturbed(wanted)


@settings(max_examples=30, deadline=None)
@given(wanted=recordings(), splits=st.lists(st.integers(0, 10), max_size=4), policy=policies)
def test_changed_recordings_over_several_runs(
    wanted: list[object], splits: list[int], policy: SealPolicy
) -> None:
    """Cutting one stream of commits into runs changes nothing, also when later commits replace earlier ones."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "out.parquet"
        memory = MemoryStore(known.make_header())
        bounds = [0, *sorted(splits), len(wanted)]
        for begin, end in itertools.pairwise(bounds):
            with ParquetStore(path, known.make_header(), seal=policy) as store:
                known.write(store, wanted[begin:end])
                assert len(store) == len(known.table(store))
        known.write(memory, wanted)
        final = open_store(path)
        assert known.table(final) == known.table(memory)
        assert final.recordings() == memory.recordings()
        assert dict(final.done()) == dict(memory.done())


def spawn(path: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(WRITER), str(path), *options], stdout=subprocess.PIPE, text=True
    )


def kill_at(process: subprocess.Popen[str], word: str, delay_s: float) -> None:
    """Send SIGKILL some time after the process said `word` (or let it end)."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == word:
            break
    time.sleep(delay_s)
    process.kill()
    process.communicate()


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is POSIX")
@pytest.mark.parametrize(
    ("word", "kills", "longest_s", "options"),
    [
        ("open", 6, 0.25, ["--recordings", "60", "--pause", "0.002"]),
        ("closing", 5, 0.1, ["--recordings", "250", "--dim", "256"]),
    ],
    ids=["while-writing", "while-merging"],
)
def test_sigkill_then_resume(
    tmp_path: Path, word: str, kills: int, longest_s: float, options: list[str]
) -> None:
    path = tmp_path / "out.parquet"
    wanted = known.takes(int(options[1]))
    memory = MemoryStore(known.make_header(embedding_dim=256 if "--dim" in options else known.DIM))
    known.write(memory, wanted)
    expected = known.table(memory)
    draw = random.Random()
    for _ in range(kills):
        kill_at(spawn(path, *options), word, draw.random() * longest_s)
        seen = committed(path)
        assert seen == expected[: len(seen)]
    last = spawn(path, *options)
    output, _ = last.communicate(timeout=60)
    assert last.returncode == 0
    assert output.split() == ["open", "closing", "closed"]
    assert known.table(open_store(path)) == expected
    assert open_store(path).recordings() == memory.recordings()
    assert os.listdir(tmp_path) == ["out.parquet"]
