"""`avex.embed` with an engine whose answers are known: what a second run does, and what the options mean."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest

import avex
from avex._core.errors import ConfigError, StoreExistsError, UnknownNameError
from avex.embedding.embed import RunReport, WindowOptions
from avex.embedding.engines import EngineInfo, EngineOutput
from avex.embedding.stores import ParquetStore

RATE = 1000


class MeanEngine:
    """Embedding of a window = the mean of its audio and how many samples that is."""

    labels = None
    sessions, batch_size = 1, 4
    info = EngineInfo("mean", RATE, 1.0, False, 2, None, "soxr_hq", "test")

    def __init__(self, **info):
        self.info = replace(self.info, **info)
        self.windows = 0

    def session(self):
        return self

    def run(self, windows, valid):
        self.windows += len(windows)
        return EngineOutput(np.stack([windows.sum(1) / valid, valid], 1).astype(np.float32))


@pytest.fixture
def level(wav):
    """Write a recording of one level, so that its embeddings are known: `level("a.wav", 0.25, seconds=2)`."""

    def write(name, value, seconds=2.0):
        return wav(name, data=np.full((round(seconds * RATE), 1), value), sample_rate=RATE, subtype="FLOAT")

    return write


def column(store, name):
    return [value for batch in store.scan([name]) for value in batch.column(0).to_pylist()]


def test_a_second_run_does_what_is_new_or_changed_and_keeps_what_is_gone(level, tmp_path):
    paths = [
        str(level(f"{name}.wav", value)) for name, value in zip("abcd", (0.1, 0.2, 0.3, 0.4), strict=True)
    ]
    out = tmp_path / "out.parquet"
    avex.embed(paths[:3], MeanEngine(), out)
    os.unlink(paths[0])
    state = os.stat(paths[1])
    level("b.wav", 0.25)  # as long as before: only its time of change tells
    os.utime(paths[1], ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    report, engine = RunReport(), MeanEngine()
    store = avex.embed(paths, engine, out, report=report)
    assert engine.windows == 4
    assert (report.stats.recordings, report.stats.skipped, report.stats.done) == (4, 2, 2)
    assert report.problems == []
    levels: dict[str, list[float]] = {}
    for name, (level_heard, _) in zip(column(store, "recording"), store.to_numpy().tolist(), strict=True):
        levels.setdefault(name, []).append(level_heard)
    expected = dict(zip(paths, (0.1, 0.25, 0.3, 0.4), strict=True))
    assert levels == {name: pytest.approx([value, value]) for name, value in expected.items()}


def test_a_recording_without_windows_is_done_as_well(level, tmp_path):
    path, out = level("short.wav", 0.1, seconds=0.5), tmp_path / "out.parquet"
    avex.embed(path, MeanEngine(), out, windows=WindowOptions(tail="drop"))
    report = RunReport()
    avex.embed(path, MeanEngine(), out, windows=WindowOptions(tail="drop"), report=report)
    assert report.stats.skipped == 1


def test_options_reach_the_windows_and_the_header(level, tmp_path):
    path = level("a.wav", 0.5, seconds=2.75)
    options = WindowOptions(window=1.0, hop=0.5, tail="shift", min_tail=0.25, resampler="kaiser_best")
    store = avex.embed(path, MeanEngine(), windows=options)
    assert column(store, "start_s") == [0.0, 0.5, 1.0, 1.5, 1.75]
    header = store.header
    assert (header.window_s, header.hop_s, header.tail, header.min_tail_s) == (1.0, 0.5, "shift", 0.25)
    assert (header.resampler, header.channel) == ("kaiser_best", "mean")
    shorter = avex.embed(path, MeanEngine(), windows=replace(options, min_tail=0.26))
    assert len(shorter) == 4
    # An overlap that floating point cannot write as the same hop is the same setting.
    hops = [
        avex.embed(path, MeanEngine(), windows=WindowOptions(window=3.0, **given)).header.hop_s
        for given in ({"overlap": 2.9}, {"hop": 0.1})
    ]
    assert hops[0] == hops[1]
    assert column(avex.embed(path, MeanEngine(), overlap=0.75), "start_s")[:3] == [0, 0.25, 0.5]


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("window_s", {"windows": WindowOptions(window=0.5, hop=1.0)}),
        ("hop_s", {"overlap": 0.5}),
        ("tail", {"windows": WindowOptions(tail="drop")}),
        ("min_tail_s", {"windows": WindowOptions(min_tail=0.5)}),
        ("channel", {"windows": WindowOptions(channel="each")}),
        ("resampler", {"windows": WindowOptions(resampler="kaiser_best")}),
        ("dtype", {"dtype": "float16"}),
        ("card", {"model": MeanEngine(card="other")}),
        ("weights_sha256", {"model": MeanEngine(weights_sha256="0" * 64)}),
        ("sample_rate", {"model": MeanEngine(sample_rate=2 * RATE)}),
        ("precision", {"model": MeanEngine(precision="bfloat16")}),
        ("layers", {"model": MeanEngine(layers=("layer_3",))}),
        ("pooling", {"model": MeanEngine(aggregation="max")}),
    ],
)
def test_whatever_changes_the_numbers_does_not_go_into_the_same_table(level, tmp_path, name, changed):
    path, out = level("a.wav", 0.5), tmp_path / "out.parquet"
    avex.embed(path, MeanEngine(), out)
    before = out.read_bytes()
    with pytest.raises(StoreExistsError, match=rf"\({name}: "):
        avex.embed(path, **{"model": MeanEngine(), **changed}, output=out)
    assert out.read_bytes() == before
    avex.embed(path, **{"model": MeanEngine(), **changed}, output=out, overwrite=True)
    assert getattr(ParquetStore(out, mode="read").header, name) != getattr(
        avex.embed(path, MeanEngine()).header, name
    )


@pytest.mark.parametrize(
    ("info", "options", "words"),
    [
        ({"window_seconds": None}, {}, "State the length of a window"),
        ({"fixed_window": True}, {"windows": WindowOptions(window=2.0)}, "windows of 1 s only, not 2 s"),
        ({}, {"windows": WindowOptions(hop=0.5, overlap=0.5)}, "either an overlap or a hop"),
        ({}, {"windows": WindowOptions(), "overlap": 0.5}, "in `windows`, not beside it"),
        ({}, {"overlap": 1.0}, "less than the window of 1 s, not 1"),
        ({}, {"overlap": -0.1}, "at least 0"),
        ({}, {"windows": WindowOptions(channel="0")}, "counted from 1"),
        (
            {},
            {"windows": WindowOptions(resampler="kaiser")},
            "Unknown resampler 'kaiser'. Did you mean 'kaiser_best'",
        ),
    ],
)
def test_impossible_windows(level, info, options, words):
    with pytest.raises((ConfigError, UnknownNameError), match=words):
        avex.embed(level("a.wav", 0.5), MeanEngine(**info), **options)


def test_a_fixed_window_may_be_named(level):
    store = avex.embed(
        level("a.wav", 0.5), MeanEngine(fixed_window=True), windows=WindowOptions(window=1.0, overlap=0.5)
    )
    assert column(store, "start_s") == [0.0, 0.5, 1.0]
