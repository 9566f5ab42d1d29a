"""Resampling in blocks is resampling at once, and lengths are exact."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avex.audio import make_resampler, output_length, resample

PAIRS = st.sampled_from(
    [(48000, 16000), (44100, 16000), (16000, 48000), (22050, 32000), (44100, 48000), (44100, 22051), (7, 5)]
)
METHODS = pytest.mark.parametrize("method", ["kaiser_best", "soxr_hq"])


@METHODS
@settings(max_examples=40, deadline=None)
@given(
    pair=PAIRS,
    cuts=st.lists(st.integers(0, 30000), max_size=6),
    n=st.integers(0, 30000),
    channels=st.integers(1, 2),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_blocks_give_the_same_samples(
    method: str, pair: tuple[int, int], cuts: list[int], n: int, channels: int, seed: int
) -> None:
    x = np.random.default_rng(seed).standard_normal((n, channels)).astype(np.float32)
    stream = make_resampler(*pair, channels, method)
    edges = [0, *sorted(min(cut, n) for cut in cuts), n]
    parts = [stream.push(x[a:b]) for a, b in pairwise(edges)] + [stream.flush()]
    assert all(part.dtype == np.float32 and part.shape[1] == channels for part in parts)
    streamed, at_once = np.concatenate(parts), resample(x, *pair, method)
    assert len(streamed) == math.ceil(n * pair[1] / pair[0])
    if method == "kaiser_best":
        assert np.array_equal(streamed, at_once)
    else:
        np.testing.assert_allclose(streamed, at_once, rtol=0, atol=1e-6)


@METHODS
def test_single_samples(method: str) -> None:
    x = np.random.default_rng(0).standard_normal((3000, 1)).astype(np.float32)
    stream = make_resampler(44100, 16000, 1, method)
    parts = [stream.push(x[i : i + 1]) for i in range(len(x))] + [stream.flush()]
    np.testing.assert_allclose(np.concatenate(parts), resample(x, 44100, 16000, method), rtol=0, atol=1e-6)


@settings(deadline=None)
@given(st.integers(0, 10**12), st.integers(1, 10**6), st.integers(1, 10**6))
def test_output_length_is_the_exact_ceiling(n: int, orig: int, target: int) -> None:
    length = output_length(n, orig, target)
    assert (length - 1) * orig < n * target <= length * orig or n == length == 0


@settings(max_examples=25, deadline=None)
@given(pair=PAIRS, gain=st.floats(-4, 4), seed=st.integers(0, 2**32 - 1))
def test_kaiser_best_is_linear(pair: tuple[int, int], gain: float, seed: int) -> None:
    a, b = np.random.default_rng(seed).standard_normal((2, 2000)).astype(np.float32)
    mixed = resample(a + np.float32(gain) * b, *pair, "kaiser_best")
    separate = resample(a, *pair, "kaiser_best") + gain * resample(b, *pair, "kaiser_best")
    np.testing.assert_allclose(mixed, separate, rtol=0, atol=2e-5)


@settings(max_examples=25, deadline=None)
@given(pair=PAIRS.filter(lambda pair: pair[0] > 1000), level=st.floats(-1, 1))
def test_kaiser_best_keeps_constants_up_to_its_gain(pair: tuple[int, int], level: float) -> None:
    found = resample(np.full(8000, level, np.float32), *pair, "kaiser_best")
    inner = found[len(found) // 4 : -len(found) // 4]
    np.testing.assert_allclose(inner, level * math.sqrt(pair[0] / pair[1]), rtol=0, atol=1e-3)
