"""`avex.predict` with an engine whose answers are known: what is reported, and what a second run does."""

from __future__ import annotations

import csv
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import avex
from avex._core.errors import ConfigError, StoreError, StoreExistsError, StoreLockedError
from avex.detection import read_raven, read_table
from avex.detection.journal import PredictionJournal
from avex.embedding.embed import WindowOptions
from avex.embedding.engines import EngineInfo, EngineOutput
from avex.weights.labels import LabelMap

RATE = 1000
BLACKBIRD, RAIN = "Turdus merula_Eurasian Blackbird", "rain"


class LevelEngine:
    """The logit of the blackbird is ten times the level of the audio, that of rain its opposite."""

    sessions, batch_size = 1, 4
    labels = LabelMap([BLACKBIRD, RAIN])
    info = EngineInfo("level", RATE, 1.0, False, 1, None, "soxr_hq", "test")

    def __init__(self, labels=labels, **info):
        self.labels = labels
        self.info = replace(self.info, **info)
        self.windows = 0

    def session(self):
        return self

    def run(self, windows, valid):
        self.windows += len(windows)
        logit = 10 * windows.sum(1, keepdims=True) / valid[:, None]
        return EngineOutput(logit.astype(np.float32), np.hstack([logit, -logit]).astype(np.float32))


@pytest.fixture
def levels(wav):
    """Write a recording with one level per second: `levels("a.wav", 0.1, 0.2)`; several channels as tuples."""

    def write(name, *values):
        data = np.repeat(np.array(values, np.float32).reshape(len(values), -1), RATE, axis=0)
        return wav(name, data=data, sample_rate=RATE, subtype="FLOAT")

    return write


def told(found):
    return [(d.start_s, d.end_s, d.label, round(d.confidence, 4)) for d in found.detections()]


# 1 / (1 + exp(-x)) at 1, 2 and 3
ONE, TWO, THREE = 0.7311, 0.8808, 0.9526


def test_what_is_reported(levels):
    path = levels("a.wav", 0.1, -0.2, 0.3)
    assert told(avex.predict(path, LevelEngine())) == [
        (0, 1, BLACKBIRD, ONE), (0, 1, RAIN, 0.2689), (1, 2, RAIN, TWO), (2, 3, BLACKBIRD, THREE)
    ]  # fmt: skip
    assert told(avex.predict(path, LevelEngine(), min_conf=0.75, top_n=1)) == [
        (1, 2, RAIN, TWO), (2, 3, BLACKBIRD, THREE)
    ]  # fmt: skip
    # Exclusive classes: exp(x) / (exp(x) + exp(-x)) is the logistic function of 2x.
    exclusive = avex.predict(path, LevelEngine(activation="softmax"), top_n=1)
    assert [round(d.confidence, 4) for d in exclusive.detections()] == [TWO, 0.9820, 0.9975]
    first = avex.predict(path, LevelEngine()).detections()[0]
    assert (first.scientific_name, first.common_name) == ("Turdus merula", "Eurasian Blackbird")


def test_bands_and_channels(levels):
    path = levels("a.wav", (0.1, -0.3), (0.2, -0.3))
    bands = {None: (0, 500), (100.0, 300.0): (100, 300), (100.0, 15e3): (100, 500), (1e3, 15e3): (500, 500)}
    for band, expected in bands.items():
        found = avex.predict(path, LevelEngine(band_hz=band), windows=WindowOptions(channel=1), top_n=1)
        assert {(d.low_hz, d.high_hz) for d in found.detections()} == {expected}
        assert [d.channel for d in found.detections()] == [1, 1]
    each = avex.predict(path, LevelEngine(), windows=WindowOptions(channel="each"), top_n=1)
    assert [(d.start_s, d.channel, d.label) for d in each.detections()] == [
        (0, 1, BLACKBIRD), (0, 2, RAIN), (1, 1, BLACKBIRD), (1, 2, RAIN)
    ]  # fmt: skip
    mixed = avex.predict(path, LevelEngine(), top_n=1)
    assert [(d.channel, d.label, round(d.confidence, 4)) for d in mixed.detections()] == [
        (0, RAIN, ONE), (0, RAIN, 0.6225)
    ]  # fmt: skip


def test_models_that_cannot_predict(levels):
    path = levels("a.wav", 0.1)
    with pytest.raises(ConfigError, match="'level' has no classifier with labels"):
        avex.predict(path, LevelEngine(labels=None))
    with pytest.raises(ConfigError, match="classes exclude each other"):
        avex.predict(path, LevelEngine(activation="softmax"), sensitivity=1.2)
    with pytest.raises(TypeError, match="no argument 'min_confidence'"):
        avex.predict(path, LevelEngine(), min_confidence=0.2)
    with pytest.raises(ConfigError, match="not both"):
        avex.predict(path, LevelEngine(), options=avex.detection.options.DetectionOptions(), min_conf=0.2)


def test_a_second_run_does_what_is_new_or_changed_and_keeps_what_is_gone(levels, tmp_path):
    paths = [
        levels(f"in/{name}.wav", level) for name, level in (("a", 0.1), ("b", 0.2), ("c", 0.3), ("d", 0.1))
    ]
    out = tmp_path / "out"
    avex.predict(paths[:3], LevelEngine(), out, formats=["raven", "csv"], combined=True)
    paths[0].unlink()
    state = os.stat(paths[1])
    levels("in/b.wav", -0.2)  # as long as before: only its time of change tells
    os.utime(paths[1], ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    (out / "a.level.selection.table.txt").unlink()
    engine = LevelEngine()
    again = avex.predict(paths, engine, out, formats=["raven"], combined=True)
    assert engine.windows == 2
    assert (again.stats.recordings, again.stats.skipped, again.stats.done) == (4, 2, 2)
    assert again.problems == []
    best = {Path(d.recording).stem: (d.label, round(d.confidence, 4)) for d in reversed(again.detections())}
    assert best == {"a": (BLACKBIRD, ONE), "b": (RAIN, TWO), "c": (BLACKBIRD, THREE), "d": (BLACKBIRD, ONE)}
    third = avex.predict(paths, LevelEngine(), out, formats=["raven"])
    assert third.stats.skipped == 4
    assert told(third) == told(again)
    # The table that went missing is back, the changed recording's is new, all are in the combined one.
    tables = [out / f"{name}.level.selection.table.txt" for name in ("a", "b", "c", "d", "combined")]
    assert sorted(again.files) == sorted(tables)
    assert [read_raven(table)[0].label for table in tables] == [
        BLACKBIRD,
        RAIN,
        BLACKBIRD,
        BLACKBIRD,
        BLACKBIRD,
    ]
    combined = read_table(tables[-1])
    assert [(Path(d.recording).stem, d.start_s) for d in combined if d.confidence > 0.5] == [
        ("a", 0), ("b", 0), ("c", 0), ("d", 0)
    ]  # fmt: skip
    with (out / "combined.level.selection.table.txt").open(newline="") as file:
        starts = {row["Begin File"]: row["Begin Time (s)"] for row in csv.DictReader(file, delimiter="\t")}
    assert starts == {"a.wav": "0.0", "b.wav": "1.0", "c.wav": "2.0", "d.wav": "3.0"}


def test_the_length_of_a_recording_is_what_decodes_and_a_part_has_that_of_its_file(levels, wav, tmp_path):
    part = levels("part.wav", *[0.1] * 8)
    (tmp_path / "manifest.csv").write_text(f"path,start_s,end_s\n{part},5,\n{part},2,3\n")
    (whole,) = avex.predict(levels("whole.wav", 0.1, 0.2), LevelEngine()).recordings
    assert whole.duration_s == 2.0
    parts = avex.predict(tmp_path / "manifest.csv", LevelEngine(), min_conf=0.5)
    assert [(p.duration_s, [d.start_s for d in p.detections]) for p in parts] == [(8, [5, 6, 7]), (8, [2])]
    out = tmp_path / "out"
    avex.predict(tmp_path / "manifest.csv", LevelEngine(), out, min_conf=0.5, combined=True)
    combined = read_raven(out / "combined.level.selection.table.txt")
    assert [d.start_s for d in combined] == [2, 5, 6, 7], "in the order of time, as parts of one file"
    noise = np.random.default_rng(0).uniform(0.1, 0.5, (60 * RATE, 1))
    flac = wav("cut.flac", data=noise, sample_rate=RATE)
    flac.write_bytes(flac.read_bytes()[: flac.stat().st_size // 2])
    (cut,) = avex.predict(flac, LevelEngine(), min_conf=0.5).recordings
    assert cut.detections[-1].end_s == cut.duration_s < 40


def test_a_new_format_needs_no_model(levels, tmp_path):
    path, out = levels("a.wav", 0.1, 0.3), tmp_path / "out"
    first = avex.predict(path, LevelEngine(), out)
    engine = LevelEngine()
    second = avex.predict(path, engine, out, formats=["csv", "raven"])
    assert engine.windows == 0
    assert {file.name for file in second.files} == {"a.level.results.csv", "a.level.selection.table.txt"}
    assert [d.confidence for d in read_table(out / "a.level.results.csv")] == [
        d.confidence for d in read_table(first.files[0])
    ]


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("window_s", {"windows": WindowOptions(window=0.5, hop=1.0)}),
        ("hop_s", {"windows": WindowOptions(overlap=0.5)}),
        ("tail", {"windows": WindowOptions(tail="drop")}),
        ("min_tail_s", {"windows": WindowOptions(min_tail=0.5)}),
        ("channel", {"windows": WindowOptions(channel="each")}),
        ("resampler", {"windows": WindowOptions(resampler="kaiser_best")}),
        ("min_conf", {"min_conf": 0.3}),
        ("top_n", {"top_n": 1}),
        ("sensitivity", {"sensitivity": 1.1}),
        ("merge_consecutive", {"merge_consecutive": True}),
        ("classes", {"species_list": "species.txt"}),
        ("timezone", {"timezone": "UTC"}),
        ("card", {"model": LevelEngine(card="other")}),
        ("weights_sha256", {"model": LevelEngine(weights_sha256="0" * 64)}),
        ("precision", {"model": LevelEngine(precision="bfloat16")}),
    ],
)
def test_whatever_changes_the_detections_does_not_go_into_the_same_folder(
    levels, tmp_path, monkeypatch, name, changed
):
    monkeypatch.chdir(tmp_path)
    Path("species.txt").write_text("Eurasian Blackbird\n")
    path = levels("a.wav", 0.1, 0.3)
    avex.predict(path, LevelEngine(), "out")
    with pytest.raises(StoreExistsError, match=rf"\({name}: was "):
        avex.predict(path, **{"model": LevelEngine(), **changed}, output="out")
    assert (
        avex.predict(path, **{"model": LevelEngine(), **changed}, output="out", overwrite=True).stats.done
        == 1
    )


def test_merged_events_and_species_lists(levels, tmp_path):
    path = levels("a.wav", 0.1, 0.3, -0.2, 0.2)
    found = avex.predict(path, LevelEngine(), min_conf=0.5, merge_consecutive=True)
    assert told(found) == [(0, 2, BLACKBIRD, THREE), (2, 3, RAIN, TWO), (3, 4, BLACKBIRD, TWO)]
    longest = avex.predict(path, LevelEngine(), min_conf=0.5, merge_consecutive=1)
    assert [d.end_s - d.start_s for d in longest.detections()] == [1, 1, 1, 1]
    (tmp_path / "species.txt").write_text("rain\n")
    only = avex.predict(path, LevelEngine(), min_conf=0.5, species_list=tmp_path / "species.txt")
    assert told(only) == [(2, 3, RAIN, TWO)]


def test_two_processes_do_not_write_into_one_folder(levels, tmp_path):
    settings = {"card": "level"}
    with (
        PredictionJournal(tmp_path / "out", settings),
        pytest.raises(StoreLockedError, match="Another process"),
    ):
        avex.predict(levels("a.wav", 0.1), LevelEngine(), tmp_path / "out")
    avex.predict(levels("a.wav", 0.1), LevelEngine(), tmp_path / "out")


def test_a_line_damaged_in_the_middle_is_named(levels, tmp_path):
    paths = [levels(f"{name}.wav", 0.1) for name in "abc"]
    avex.predict(paths, LevelEngine(), tmp_path / "out")
    journal = tmp_path / "out" / PredictionJournal.NAME
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines[:2], b"x" + lines[2], lines[3]]))
    with pytest.raises(StoreError, match="Line 3 of"):
        avex.predict(paths, LevelEngine(), tmp_path / "out")
    journal.write_bytes(b"".join([*lines[:2], lines[3]]))
    again = avex.predict(paths, LevelEngine(), tmp_path / "out")
    assert (again.stats.skipped, again.stats.done) == (2, 1)
