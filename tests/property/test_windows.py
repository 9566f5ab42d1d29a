"""Windows for any length, hop, tail rule and blocking."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avex.audio import Windower

TAILS = st.sampled_from(["pad", "drop", "shift"])


@st.composite
def windowers(draw: st.DrawFn) -> Windower:
    # Lengths are whole samples at 1 Hz, so that rounding plays no part.
    return Windower(
        draw(st.integers(1, 12)),
        draw(st.none() | st.integers(1, 20)),
        draw(TAILS),
        draw(st.integers(0, 8)),
    )


@settings(deadline=None)
@given(windowers(), st.integers(0, 80))
def test_plan_follows_the_rules(windower: Windower, n: int) -> None:
    window, hop = windower.window_samples(1), windower.hop_samples(1)
    plan = windower.plan(n, 1)
    full = [w for w in plan if w.start % hop == 0 and w.stop - w.start == window]
    assert [w.start for w in full] == list(range(0, n - window + 1, hop))[: len(full)]
    assert len([s for s in range(0, n, hop) if s + window <= n]) <= len(plan) <= len(full) + 1
    assert all(0 <= w.start < w.stop <= n and w.stop - w.start <= window for w in plan)
    assert [w.start for w in plan] == sorted({w.start for w in plan})


@settings(deadline=None)
@given(windowers(), st.integers(1, 80))
def test_every_sample_is_covered_unless_told_otherwise(windower: Windower, n: int) -> None:
    window, hop = windower.window_samples(1), windower.hop_samples(1)
    covered = np.zeros(n, bool)
    for w in windower.plan(n, 1):
        covered[w.start : w.stop] = True
    if windower.tail == "drop":
        assert covered.any() == (n >= window)
    elif hop <= window:
        missing = n - int(covered.sum())
        assert missing == 0 or (n > window and missing < windower.min_tail_seconds)


@settings(deadline=None)
@given(windowers(), st.integers(0, 80))
def test_tail_windows(windower: Windower, n: int) -> None:
    window, hop = windower.window_samples(1), windower.hop_samples(1)
    for w in windower.plan(n, 1):
        if w.stop - w.start < window:  # only the last, and only where padding is allowed
            assert w.stop == n
            assert windower.tail == "pad" or (windower.tail == "shift" and n < window)
        if w.start % hop:
            assert windower.tail == "shift"
            assert w.stop == n


@settings(deadline=None)
@given(windowers(), st.lists(st.integers(0, 40), max_size=12), st.integers(1, 3), st.integers(1, 4))
@pytest.mark.parametrize("single", [False, True])
def test_streaming_gives_the_plan(
    single: bool, windower: Windower, lengths: list[int], channels: int, rate: int
) -> None:
    n = sum(lengths)
    signal = np.arange(1, n * channels + 1, dtype=np.float32).reshape(n, channels)
    stream = windower.stream(rate, channels)
    batches = []
    start = 0
    for length in [1] * n if single else lengths:
        batches.append(stream.push(signal[start : start + length]))
        start += length
    batches.append(stream.finish())

    plan = windower.plan(n, rate)
    window = windower.window_samples(rate)
    assert np.concatenate([b.start for b in batches]).tolist() == [w.start for w in plan]
    assert np.concatenate([b.valid for b in batches]).tolist() == [w.stop - w.start for w in plan]
    samples = np.concatenate([b.samples for b in batches])
    assert samples.shape == (len(plan), channels, window)
    assert all(b.samples.flags.c_contiguous and len(b) == len(b.samples) for b in batches)
    for found, w in zip(samples, plan, strict=True):
        expected = np.zeros((channels, window), np.float32)
        expected[:, : w.stop - w.start] = signal[w.start : w.stop].T
        assert np.array_equal(found, expected)
