import math

import hypothesis.strategies as st
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings

from avex.audio import Windower, resample
from avex.embedding.reading import NonFiniteRuns, ReadPlan, Recording, read_windows
from avex.embedding.sources import Source

RATE = 8000


def plan(seconds=1.0, hop=None, tail="pad", channel="mean", sample_rate=RATE, **kwargs):
    return ReadPlan(sample_rate, Windower(seconds, hop, tail), channel, **kwargs)


def collect(path, read_plan, **source):
    recording = Recording(Source(str(path), **source))
    chunks = list(read_windows(recording, read_plan))
    joined = {
        field: np.concatenate([getattr(chunk, field) for chunk in chunks]) if chunks else np.empty(0)
        for field in ("windows", "start_s", "end_s", "channel", "valid")
    }
    return recording, joined


def test_windows_of_a_recording(wav):
    path = wav(seconds=2.5, sample_rate=RATE)
    recording, got = collect(path, plan())
    signal = soundfile.read(path, dtype="float32")[0]
    assert got["start_s"].tolist() == [0.0, 1.0, 2.0]
    assert got["end_s"].tolist() == [1.0, 2.0, 2.5]
    assert got["valid"].tolist() == [RATE, RATE, RATE // 2]
    assert np.array_equal(got["windows"].ravel()[: len(signal)], signal)
    assert not got["windows"].ravel()[len(signal) :].any()
    assert recording.seconds_read == 2.5
    assert not recording.problems


def test_every_channel(wav):
    path = wav(seconds=2.0, sample_rate=RATE, channels=3)
    _, got = collect(path, plan(channel="each"))
    signal = soundfile.read(path, dtype="float32")[0]
    assert got["channel"].tolist() == [1, 2, 3, 1, 2, 3]
    assert np.array_equal(got["windows"][4], signal[RATE:, 1])
    _, second = collect(path, plan(channel=2))
    assert second["channel"].tolist() == [2, 2]
    recording, _ = collect(path, plan(channel=4))
    assert recording.failed


def test_a_part_of_a_recording(wav):
    path = wav(seconds=6.0, sample_rate=RATE)
    signal = soundfile.read(path, dtype="float32")[0]
    recording, got = collect(path, plan(), start_s=1.5, end_s=4.0)
    assert got["start_s"].tolist() == [1.5, 2.5, 3.5]
    assert got["end_s"].tolist() == [2.5, 3.5, 4.0]
    assert np.array_equal(got["windows"][0], signal[12000:20000])
    assert recording.name.endswith("#t=1.5,4")


def test_end_never_exceeds_the_file(wav):
    path = wav(data=np.zeros((44101, 1)), sample_rate=44100)
    _, got = collect(path, plan(sample_rate=48000))
    assert got["end_s"].max() <= 44101 / 44100


def test_nan_touches_only_its_windows(wav):
    data = np.zeros((RATE * 5, 1))
    data[int(RATE * 2.5)] = np.nan
    data[RATE * 4] = np.inf
    path = wav(data=data, sample_rate=RATE, subtype="FLOAT")
    recording, got = collect(path, plan())
    assert got["start_s"].tolist() == [0.0, 1.0, 3.0]
    assert [(p.cause, p.windows_lost) for p in recording.problems] == [("non_finite_audio", 2)]
    assert not recording.failed
    for method in ("soxr_hq", "kaiser_best"):
        _, resampled = collect(path, plan(sample_rate=16000, resampler=method))
        assert resampled["start_s"].tolist() == [0.0, 1.0, 3.0]
        assert np.isfinite(resampled["windows"]).all()


def test_nan_in_one_channel_spares_the_others(wav):
    data = np.zeros((RATE * 2, 2))
    data[10, 1] = np.nan
    path = wav(data=data, sample_rate=RATE, subtype="FLOAT")
    _, got = collect(path, plan(channel="each"))
    assert list(zip(got["start_s"], got["channel"], strict=True)) == [(0.0, 1), (1.0, 1), (1.0, 2)]


@settings(max_examples=60, deadline=None)
@given(
    bad=st.lists(st.integers(0, 199), max_size=30),
    blocks=st.lists(st.integers(1, 60), min_size=1, max_size=12),
    ranges=st.lists(st.tuples(st.integers(0, 199), st.integers(1, 50)), min_size=1, max_size=20),
)
def test_touched_windows_are_those_with_bad_samples(bad, blocks, ranges):
    signal = np.zeros((200, 1), np.float32)
    signal[bad] = np.nan
    runs, position = NonFiniteRuns(1), 0
    for size in [*blocks, 200]:
        block = runs.clean(signal[position : position + size])
        assert np.isfinite(block).all()
        position += size
        if position >= 200:
            break
    start = np.array([a for a, _ in ranges])
    stop = start + np.array([n for _, n in ranges])
    expected = [not np.isfinite(signal[a:b]).all() for a, b in zip(start, stop, strict=True)]
    assert runs.touched(0, start, stop).tolist() == expected


@pytest.mark.parametrize("rate", [1000, 1600, 441])
@pytest.mark.parametrize("tail", ["pad", "shift", "drop"])
def test_windows_of_many_blocks_are_those_of_the_whole(wav, rate, tail):
    """What is read, resampled and cut in blocks, NaN included, against the same done at once."""
    orig, seconds, hop = 1000, 1.0, 0.25
    rng = np.random.default_rng(rate)
    data = rng.uniform(-0.5, 0.5, (30_030, 2)).astype(np.float32)
    # Near the edges of blocks of 8 s, where a window begins in one and ends in the next.
    for start, stop in ((7_990, 8_010), (16_000, 16_001), (23_999, 24_000), (29_300, 29_301)):
        data[start:stop, 1] = np.nan
    path = wav(data=data, sample_rate=orig, subtype="FLOAT")
    read_plan = plan(seconds, hop, tail, "each", rate, resampler="kaiser_best")
    assert read_plan.block_seconds == 8.0
    recording, got = collect(path, read_plan)

    whole = resample(np.nan_to_num(data, nan=0.0), orig, rate, "kaiser_best")
    expected = []
    for window in Windower(seconds, hop, tail).plan(len(whole), rate):
        first, last = math.floor(window.start * orig / rate), math.ceil(window.stop * orig / rate)
        heard = [channel for channel in (0, 1) if np.isfinite(data[first:last, channel]).all()]
        expected += [(window.start, window.stop, channel) for channel in heard]
    assert got["channel"].tolist() == [channel + 1 for _, _, channel in expected]
    assert got["start_s"] == pytest.approx([start / rate for start, _, _ in expected], abs=1e-12)
    assert got["end_s"] == pytest.approx(
        [min(stop / rate, len(data) / orig) for _, stop, _ in expected], abs=1e-12
    )
    for row, (start, stop, channel) in zip(got["windows"], expected, strict=True):
        assert np.array_equal(row[: stop - start], whole[start:stop, channel])
        assert not row[stop - start :].any()
    lost = 2 * len(Windower(seconds, hop, tail).plan(len(whole), rate)) - len(expected)
    assert [problem.windows_lost for problem in recording.problems] == [lost]


def test_truncated_recordings_give_what_decodes(wav, tmp_path):
    path = wav(seconds=10.0, sample_rate=RATE)
    data = path.read_bytes()
    cut = tmp_path / "cut.wav"
    cut.write_bytes(data[: len(data) * 45 // 100])
    recording, got = collect(cut, plan())
    assert got["start_s"].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert [p.cause for p in recording.problems] == ["truncated"]
    assert not recording.failed


@pytest.mark.parametrize(
    ("content", "cause"), [(None, "missing"), (b"", "empty"), (b"hello, I am a text file" * 9, "not_audio")]
)
def test_recordings_that_cannot_be_read(tmp_path, content, cause):
    path = tmp_path / "x.wav"
    if content is not None:
        path.write_bytes(content)
    recording, got = collect(path, plan())
    assert recording.failed
    assert [p.cause for p in recording.problems] == [cause]
    assert len(got["start_s"]) == 0


def test_blocks_stay_small_where_windows_overlap_much():
    assert plan(3.0, 0.1).block_seconds < 4
    assert plan(3.0, 3.0).block_seconds == 15.0
