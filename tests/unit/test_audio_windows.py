"""Windows by hand-worked examples; the properties are in tests/property/test_windows.py."""

from __future__ import annotations

import numpy as np
import pytest

from avex._core.errors import ConfigError
from avex.audio import Windower


def spans(
    n: int, window: float, hop: float | None = None, tail: str = "pad", least: float = 0.0
) -> list[tuple]:
    plan = Windower(window, hop, tail, least).plan(n, sample_rate=1)  # type: ignore[arg-type]
    return [(w.start, w.stop) for w in plan]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        # no overlap
        ((9, 3), [(0, 3), (3, 6), (6, 9)]),
        ((10, 3), [(0, 3), (3, 6), (6, 9), (9, 10)]),
        ((10, 3, None, "drop"), [(0, 3), (3, 6), (6, 9)]),
        ((10, 3, None, "shift"), [(0, 3), (3, 6), (6, 9), (7, 10)]),
        # overlap: 4-wide every 2; a tail window only for samples that no full window covers
        ((8, 4, 2), [(0, 4), (2, 6), (4, 8)]),
        ((9, 4, 2), [(0, 4), (2, 6), (4, 8), (6, 9)]),
        ((9, 4, 2, "shift"), [(0, 4), (2, 6), (4, 8), (5, 9)]),
        ((9, 4, 1), [(0, 4), (1, 5), (2, 6), (3, 7), (4, 8), (5, 9)]),
        # gaps: 2-wide every 5
        ((12, 2, 5), [(0, 2), (5, 7), (10, 12)]),
        ((11, 2, 5), [(0, 2), (5, 7), (10, 11)]),
        ((11, 2, 5, "shift"), [(0, 2), (5, 7), (9, 11)]),
        ((10, 2, 5), [(0, 2), (5, 7)]),
        ((9, 2, 5, "shift"), [(0, 2), (5, 7)]),
        # shorter than a window
        ((2, 3), [(0, 2)]),
        ((2, 3, 1), [(0, 2)]),
        ((2, 3, None, "shift"), [(0, 2)]),
        ((2, 3, None, "drop"), []),
        ((2, 3, None, "pad", 3), [(0, 2)]),
        ((0, 3), []),
        # shortest tail
        ((10, 3, None, "pad", 1), [(0, 3), (3, 6), (6, 9), (9, 10)]),
        ((10, 3, None, "pad", 2), [(0, 3), (3, 6), (6, 9)]),
        ((11, 3, None, "shift", 2), [(0, 3), (3, 6), (6, 9), (8, 11)]),
        ((10, 3, None, "shift", 2), [(0, 3), (3, 6), (6, 9)]),
        ((9, 4, 2, "pad", 2), [(0, 4), (2, 6), (4, 8)]),
    ],
)
def test_plan(arguments: tuple, expected: list[tuple[int, int]]) -> None:
    assert spans(*arguments) == expected


def test_seconds_fall_on_the_sample_grid() -> None:
    windower = Windower(0.96, 0.48)
    assert (windower.window_samples(16000), windower.hop_samples(16000)) == (15360, 7680)
    assert Windower(5.0).hop_samples(22050) == 110250
    assert Windower(1 / 3).window_samples(48000) == 16000


def test_no_drift_over_a_day() -> None:
    plan = Windower(3.0).plan(24 * 3600 * 48000, 48000)
    assert len(plan) == 28800
    assert plan[-1].start / 48000 == 86397.0


def test_stream_pads_the_tail_with_zeros() -> None:
    stream = Windower(4.0).stream(sample_rate=1, channels=2)
    block = np.arange(12, dtype=np.float32).reshape(6, 2)
    full = stream.push(block)
    assert full.samples.tolist() == [[[0, 2, 4, 6], [1, 3, 5, 7]]]
    assert (full.start.tolist(), full.valid.tolist()) == ([0], [4])
    tail = stream.finish()
    assert tail.samples.tolist() == [[[8, 10, 0, 0], [9, 11, 0, 0]]]
    assert (tail.start.tolist(), tail.valid.tolist()) == ([4], [2])
    assert (tail.samples.dtype, tail.start.dtype, tail.valid.dtype) == (np.float32, np.int64, np.int64)


@pytest.mark.parametrize("hop", [1.0, 10.0, 25.0])
def test_stream_holds_a_window_and_a_block_at_most(hop: float) -> None:
    stream = Windower(10.0, hop, "shift").stream(sample_rate=100)
    for _ in range(200):
        stream.push(np.zeros((700, 1), np.float32))
    assert stream._buffer.nbytes <= 4 * (2 * 1000 + 700)


@pytest.mark.parametrize(
    "arguments",
    [
        (0.0,),
        (-1.0,),
        (float("nan"),),
        (float("inf"),),
        (3.0, 0.0),
        (3.0, -1.0),
        (3.0, 1.0, "cut"),
        (3.0, 1.0, "pad", -1.0),
    ],
)
def test_impossible_settings(arguments: tuple) -> None:
    with pytest.raises(ConfigError, match="expected"):
        Windower(*arguments)


def test_less_than_a_sample() -> None:
    with pytest.raises(ConfigError, match="less than one sample at 16000 Hz"):
        Windower(1e-6).window_samples(16000)
    with pytest.raises(ConfigError, match="hop_seconds"):
        Windower(1.0, 1e-6).plan(100, 16000)


def test_misuse_of_a_stream() -> None:
    stream = Windower(1.0).stream(10)
    with pytest.raises(ConfigError, match=r"expected \(frames, 1\)"):
        stream.push(np.zeros(10, np.float32))
    stream.finish()
    with pytest.raises(ConfigError, match="finished already"):
        stream.push(np.zeros((10, 1), np.float32))
