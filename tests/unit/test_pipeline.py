"""The pipeline with an engine whose answers are known: order, batching, failures."""

import errno
import threading
import time

import numpy as np
import pytest

from avex._core.errors import ConfigError, PartialFailureError
from avex.audio import Windower
from avex.embedding.engines import EngineInfo, EngineOutput
from avex.embedding.pipeline import Pipeline
from avex.embedding.problems import ProblemLog
from avex.embedding.reading import ReadPlan
from avex.embedding.sources import discover

RATE = 1000


class SumEngine:
    """Embedding of a window = its sum and its first sample; slow and out of step on purpose."""

    labels = None
    batch_size = 4

    def __init__(self, sessions=3, delay=0.0, nan_at=None):
        self.sessions = sessions
        self.delay = delay
        self.nan_at = nan_at
        self.batches = []
        self.lock = threading.Lock()
        self.info = EngineInfo("sum", RATE, 1.0, False, 2, None, "soxr_hq", "test")

    def session(self):
        return self

    def run(self, windows, valid):
        with self.lock:
            self.batches.append(len(windows))
            turn = len(self.batches)
        time.sleep(self.delay * (turn % 3))
        values = np.stack([windows.sum(1), windows[:, 0]], 1).astype(np.float32)
        if self.nan_at is not None:
            values[np.isclose(windows[:, 0], self.nan_at)] = np.nan
        return EngineOutput(values)


class ListSink:
    def __init__(self):
        self.events = []
        self.rows = {}

    def append(self, recording, rows):
        self.events.append(("append", recording.name))
        self.rows.setdefault(recording.name, []).append(rows)

    def commit(self, recording):
        self.events.append(("commit", recording.name))

    def rollback(self, recording):
        self.events.append(("rollback", recording.name))
        self.rows.pop(recording.name, None)


@pytest.fixture
def folder(wav, tmp_path):
    rng = np.random.default_rng(1)
    for i in range(12):
        wav(f"{i:02d}.wav", data=rng.uniform(-0.5, 0.5, (int(rng.integers(1, 9000)), 1)), sample_rate=RATE)
    return tmp_path


def run(folder, engine, **kwargs):
    sink = ListSink()
    problems = ProblemLog(None)
    pipeline = Pipeline(engine, ReadPlan(RATE, Windower(1.0)), sink, problems, **kwargs)
    stats = pipeline.run(discover(folder))
    return sink, stats, problems


def test_results_arrive_in_order_whatever_the_timing(folder):
    sink, stats, problems = run(folder, SumEngine(delay=0.005), readers=3)
    committed = [name for event, name in sink.events if event == "commit"]
    assert committed == sorted(committed)
    assert len(committed) == 12
    reference, _, _ = run(folder, SumEngine(sessions=1), readers=1)
    for name, rows in reference.rows.items():
        for field in ("start_s", "embedding"):
            ours = np.concatenate([getattr(r, field) for r in sink.rows[name]])
            assert np.array_equal(ours, np.concatenate([getattr(r, field) for r in rows]))
    assert stats.done == 12
    assert stats.windows == sum(len(r.start_s) for rows in sink.rows.values() for r in rows)
    assert stats.audio_s == pytest.approx(sum(rows[-1].end_s[-1] for rows in sink.rows.values()))
    assert not problems.problems


def test_batches_fill_across_recordings(folder):
    engine = SumEngine(sessions=1)
    _, stats, _ = run(folder, engine)
    full, rest = divmod(stats.windows, 4)
    assert full > 2
    assert engine.batches == [4] * full + [rest] * bool(rest)


def test_recordings_do_not_interleave(folder):
    sink, _, _ = run(folder, SumEngine(delay=0.002))
    seen = []
    for _, name in sink.events:
        if not seen or seen[-1] != name:
            seen.append(name)
    assert len(seen) == len(set(seen))


def test_bad_recordings_are_isolated(folder):
    (folder / "05.wav").write_bytes(b"not audio")
    (folder / "06.wav").unlink()
    (folder / "06.wav").mkdir()
    sink, stats, problems = run(folder, SumEngine())
    assert (stats.done, stats.failed) == (10, 2)
    assert {p.cause for p in problems.problems} == {"not_audio", "not_a_file"}
    assert [event for event, _ in sink.events].count("rollback") == 2


def test_fail_fast_keeps_what_was_done(folder):
    (folder / "05.wav").write_bytes(b"not audio")
    sink = ListSink()
    pipeline = Pipeline(SumEngine(), ReadPlan(RATE, Windower(1.0)), sink, ProblemLog(None), fail_fast=True)
    with pytest.raises(PartialFailureError, match=r"05\.wav"):
        pipeline.run(discover(folder))
    assert [name[-6:] for event, name in sink.events if event == "commit"] == [
        f"{i:02d}.wav" for i in range(5)
    ]


def test_failures_are_reported_before_more_is_collected(folder, wav):
    wav("00.wav", seconds=2.0, sample_rate=RATE)
    (folder / "01.wav").write_bytes(b"not audio")
    engine = SumEngine(sessions=1)
    with pytest.raises(PartialFailureError, match=r"01\.wav"):
        run(folder, engine, fail_fast=True)
    assert engine.batches[0] == 2


def test_recordings_do_not_wait_for_a_batch_without_end(wav, tmp_path):
    for i in range(70):
        wav(f"{i:02d}.wav", data=np.zeros((10, 1)), sample_rate=RATE)
    engine = SumEngine()
    engine.batch_size = 1000
    run(tmp_path, engine)
    assert engine.batches == [64, 6]


def test_what_cannot_be_written_costs_one_recording_unless_nothing_can(folder):
    class Refusing(ListSink):
        def commit(self, recording):
            if recording.name.endswith("03.wav"):
                raise OSError(self.code, "refused")
            super().commit(recording)

    for code in (errno.ENAMETOOLONG, errno.ENOSPC):
        sink, problems = Refusing(), ProblemLog(None)
        sink.code = code
        pipeline = Pipeline(SumEngine(), ReadPlan(RATE, Windower(1.0)), sink, problems)
        if code == errno.ENOSPC:
            with pytest.raises(OSError, match="refused"):
                pipeline.run(discover(folder))
            assert len([name for event, name in sink.events if event == "commit"]) == 3
            continue
        stats = pipeline.run(discover(folder))
        assert (stats.done, stats.failed) == (11, 1)
        assert [(p.recording[-6:], p.cause) for p in problems.problems] == [("03.wav", "not_written")]
        assert ("rollback", str(folder / "03.wav")) in sink.events


def test_non_finite_results_are_left_out(wav, tmp_path):
    data = np.full((3000, 1), 0.25)
    data[1000] = 0.5
    wav("x.wav", data=data, sample_rate=RATE)
    sink, stats, problems = run(tmp_path, SumEngine(nan_at=0.5))
    (rows,) = sink.rows.values()
    assert np.concatenate([r.start_s for r in rows]).tolist() == [0.0, 2.0]
    assert [(p.cause, p.windows_lost) for p in problems.problems] == [("non_finite_output", 1)]
    assert stats.windows == 2


def test_logits_stay_with_their_windows(wav, tmp_path):
    class WithLogits(SumEngine):
        """Logits are the first sample and its negative; NaN for one window, though its embedding is fine."""

        def run(self, windows, valid):
            first = np.where(np.isclose(windows[:, :1], 0.5), np.nan, windows[:, :1])
            return EngineOutput(super().run(windows, valid).embedding, np.hstack([first, -first]))

    firsts = [[0.1, 0.5, 0.3], [0.4, 0.2]]
    for i, values in enumerate(firsts):
        data = np.zeros((len(values) * RATE, 1))
        data[::RATE, 0] = values
        wav(f"{i}.wav", data=data, sample_rate=RATE, subtype="FLOAT")
    sink, stats, problems = run(tmp_path, WithLogits())
    got = [[row for rows in parts for row in rows.logits[:, 0]] for parts in sink.rows.values()]
    assert got == [pytest.approx([0.1, 0.3]), pytest.approx([0.4, 0.2])]
    for parts in sink.rows.values():
        for rows in parts:
            assert np.array_equal(rows.logits[:, 0], rows.embedding[:, 1])
            assert np.array_equal(rows.logits[:, 1], -rows.embedding[:, 1])
    assert [(p.cause, p.windows_lost) for p in problems.problems] == [("non_finite_output", 1)]
    assert stats.windows == 4


def test_a_fault_of_ours_costs_one_recording(folder):
    def describe(path):
        if path.endswith("03.wav"):
            raise ZeroDivisionError("nobody thought of this")

    sink, problems = ListSink(), ProblemLog(None)
    plan = ReadPlan(RATE, Windower(1.0), describe=describe)
    stats = Pipeline(SumEngine(), plan, sink, problems).run(discover(folder))
    assert (stats.done, stats.failed) == (11, 1)
    assert [(p.recording[-6:], p.cause) for p in problems.errors] == [("03.wav", "internal_error")]
    assert "nobody thought of this" in problems.errors[0].message


def test_a_setting_that_no_recording_can_have_ends_the_run(folder):
    def describe(path):
        raise ConfigError("there is no such zone")

    plan = ReadPlan(RATE, Windower(1.0), describe=describe)
    with pytest.raises(ConfigError, match="no such zone"):
        Pipeline(SumEngine(), plan, ListSink(), ProblemLog(None)).run(discover(folder))
    assert not [t for t in threading.enumerate() if t.name.startswith("avex-")]


def test_an_engine_that_fails_ends_the_run(folder):
    class Broken(SumEngine):
        def run(self, windows, valid):
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        run(folder, Broken())
    assert not [t for t in threading.enumerate() if t.name.startswith("avex-")], "no thread is left behind"


def test_warnings_are_on_the_disk_before_the_commit(wav, tmp_path):
    from avex._core.errors import StoreFullError

    class KilledAfterTheCommit(ListSink):
        def commit(self, recording):
            raise StoreFullError("no space for another word")

    wav("a.wav", data=np.full((RATE, 1), 0.5), sample_rate=RATE)
    problems = ProblemLog(tmp_path / "errors.csv")
    pipeline = Pipeline(
        SumEngine(nan_at=0.5), ReadPlan(RATE, Windower(1.0)), KilledAfterTheCommit(), problems
    )
    with pytest.raises(StoreFullError):
        pipeline.run(discover(tmp_path))
    assert "non_finite_output" in (tmp_path / "errors.csv").read_text()


def test_problem_log_survives_and_forgets(tmp_path):
    from avex.embedding.problems import Problem

    path = tmp_path / "errors.csv"
    log = ProblemLog(path)
    assert not path.exists()
    log.add(Problem("a,\n.wav", "error", "empty", "it is empty"))
    log.add(Problem("b.wav", "warning", "truncated", "cut", 3))
    again = ProblemLog(path, again=["a,\n.wav"])
    assert "b.wav" in path.read_text()
    assert "empty" not in path.read_text()
    assert again.problems == []
    ProblemLog(path, again=["b.wav"])
    assert not path.exists()


def test_problem_log_makes_its_folder_and_its_header(tmp_path):
    from avex.embedding.problems import COLUMNS, Problem

    path = tmp_path / "notes" / "errors.csv"
    log = ProblemLog(path)
    log.add(Problem("a.wav", "error", "empty", "it is empty"))
    assert path.read_text().splitlines()[0] == ",".join(COLUMNS)
    path.write_text("\ufeff" + path.read_text(), encoding="utf-8")  # saved by Excel
    ProblemLog(path, again=["a.wav"])
    assert not path.exists()
    path.touch()  # all that a full disk left
    ProblemLog(path).add(Problem("a.wav", "error", "empty", "it is empty"))
    assert path.read_text().splitlines()[0] == ",".join(COLUMNS)


def test_problem_log_takes_names_that_are_not_utf8(tmp_path):
    from avex.embedding.problems import Problem

    path, name = tmp_path / "errors.csv", "caf\udce9.wav"
    log = ProblemLog(path)
    log.add(Problem(name, "error", "empty", "it is empty"))
    log.add(Problem("b.wav", "warning", "truncated", "cut"))
    assert [problem.recording for problem in log.errors] == [name]
    assert "caf\\udce9.wav" in path.read_text(encoding="utf-8")
    ProblemLog(path, again=[name])
    assert [line.split(",")[1] for line in path.read_text(encoding="utf-8").splitlines()[1:]] == ["b.wav"]


def test_problem_log_leaves_other_files_alone(tmp_path):
    labels = tmp_path / "labels.csv"
    labels.write_text("recording,label\na.wav,wren\n")
    for path in (labels, tmp_path):
        with pytest.raises(ConfigError, match="not such a list"):
            ProblemLog(path, again=["a.wav"])
    assert labels.read_text() == "recording,label\na.wav,wren\n"
