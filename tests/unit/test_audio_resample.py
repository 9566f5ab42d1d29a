"""Resampling against values of librosa, resampy and libsoxr (tests/golden/audio)."""

from __future__ import annotations

import importlib.util
import tracemalloc
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soxr

from avex._core.errors import ConfigError, UnknownNameError
from avex.audio import make_resampler, output_length, resample
from avex.audio.kaiser import KaiserFilter, half_window
from avex.audio.polyphase import GatherKernel, MatrixKernel, _matrix_kernel, kernel_for

GOLDEN = Path(__file__).parents[1] / "golden"
FIXTURES = np.load(GOLDEN / "audio" / "resample.npz")
PAIRS = [tuple(map(int, k.split(".")[1].split("_"))) for k in FIXTURES.files if k.startswith("soxr_hq.")]


def _load_recipe() -> ModuleType:
    spec = importlib.util.spec_from_file_location("golden_recipe", GOLDEN / "synthetic_weights.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


waveform = _load_recipe().waveform


def test_table_is_resampys() -> None:
    stored = FIXTURES["kaiser_best.half_window_every_512"]
    np.testing.assert_allclose(half_window()[::512], stored, rtol=0, atol=1e-15)
    assert half_window().shape == (409601,)


@pytest.mark.parametrize(("orig", "target"), PAIRS)
def test_kaiser_best_is_librosas(orig: int, target: int) -> None:
    expected = FIXTURES[f"kaiser_best_scale.{orig}_{target}"]
    found = resample(waveform("golden_rs", 0.1, orig), orig, target, "kaiser_best")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("orig", "target"), PAIRS)
def test_soxr_hq_is_libsoxrs(orig: int, target: int) -> None:
    found = resample(waveform("golden_rs", 0.1, orig), orig, target, "soxr_hq")
    np.testing.assert_allclose(found, FIXTURES[f"soxr_hq.{orig}_{target}"], rtol=0, atol=1e-6)


@pytest.mark.parametrize(("orig", "target"), [(44100, 16000), (16000, 48000)])
def test_impulse_response(orig: int, target: int) -> None:
    impulse = np.zeros(441, np.float32)
    impulse[200] = 1
    expected = FIXTURES[f"impulse.{orig}_{target}"]
    np.testing.assert_allclose(resample(impulse, orig, target, "kaiser_best"), expected, rtol=0, atol=1e-7)


def test_last_partial_sample_is_zero_as_in_librosa() -> None:
    found = resample(waveform("golden_rs", 0.05, 44100)[:2203], 44100, 16000, "kaiser_best")
    assert len(found) == 800
    assert found[-1] == 0
    np.testing.assert_allclose(found, FIXTURES["odd_length.44100_16000"], rtol=0, atol=1e-6)


def test_outputs_an_ulp_before_a_sample() -> None:
    stored = np.load(GOLDEN / "audio" / "kaiser_rounding.npz")["output"]
    found = resample(waveform("golden_rounding", 0.07, 250000), 250000, 48000, "kaiser_best")
    np.testing.assert_allclose(found, stored, rtol=0, atol=5e-7)
    below = KaiserFilter.for_rates(250000, 48000).rounds_below(np.arange(0, 3360, 24))
    assert np.flatnonzero(below)[:2].tolist() == [65, 129]  # outputs 1560 and 3096


def test_gather_and_matrix_kernels_agree() -> None:
    filt = KaiserFilter.for_rates(44100, 16000)
    matrix = _matrix_kernel(filt, 1, 5)
    gather = GatherKernel(filt, matrix.chunk_in, matrix.chunk_out)
    signal = np.random.default_rng(0).standard_normal(matrix.chunk_in + 2 * filt.reach).astype(np.float32)
    np.testing.assert_allclose(matrix.run(signal, 0), gather.run(signal, 0), rtol=0, atol=3e-6)


def test_kernel_is_chosen_by_the_number_of_phases() -> None:
    assert isinstance(kernel_for(44100, 48000), MatrixKernel)
    assert isinstance(kernel_for(44100, 22051), GatherKernel)
    assert kernel_for(44100, 22051) is kernel_for(44100, 22051)


def test_rates_without_a_common_divisor_match_the_sine_they_sample() -> None:
    # 22051 phases; kaiser_best keeps energy, hence the factor.
    time = np.arange(44100) / 44100
    found = resample(np.sin(2 * np.pi * 1000 * time).astype(np.float32), 44100, 22051, "kaiser_best")
    expected = np.sin(2 * np.pi * 1000 * np.arange(22051) / 22051) * np.sqrt(44100 / 22051)
    np.testing.assert_allclose(found[500:-500], expected[500:-500], rtol=0, atol=2e-4)


@pytest.mark.parametrize("method", ["kaiser_best", "soxr_hq"])
def test_channels_are_independent(method: str) -> None:
    stereo = np.random.default_rng(1).standard_normal((30000, 2)).astype(np.float32)
    both = resample(stereo, 44100, 16000, method)
    assert both.shape == (output_length(30000, 44100, 16000), 2)
    for channel in range(2):
        np.testing.assert_allclose(
            both[:, channel], resample(stereo[:, channel], 44100, 16000, method), atol=1e-6
        )


def test_mono_and_each_channel_are_bit_equal_for_kaiser_best() -> None:
    stereo = np.random.default_rng(1).standard_normal((50000, 3)).astype(np.float32)
    both = resample(stereo, 48000, 16000, "kaiser_best")
    assert np.array_equal(both[:, 2], resample(stereo[:, 2], 48000, 16000, "kaiser_best"))


@pytest.mark.parametrize(("orig", "target"), [(384000, 48000), (32000, 48000), (48000, 44100)])
def test_soxr_stream_is_the_one_shot(orig: int, target: int) -> None:
    x = np.random.default_rng(2).standard_normal(orig // 2).astype(np.float32)
    expected = soxr.resample(x, orig, target, quality="HQ")
    np.testing.assert_allclose(resample(x, orig, target), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("method", ["kaiser_best", "soxr_hq"])
@pytest.mark.parametrize("n", [0, 1, 2, 5])
def test_very_short_signals(method: str, n: int) -> None:
    assert len(resample(np.ones(n, np.float32), 48000, 16000, method)) == output_length(n, 48000, 16000)


@pytest.mark.parametrize("method", ["kaiser_best", "soxr_hq"])
def test_equal_rates_change_nothing(method: str) -> None:
    x = np.random.default_rng(2).standard_normal(1000).astype(np.float32)
    assert np.array_equal(resample(x, 16000, 16000, method), x)
    assert make_resampler(16000, 16000, 1, method).method == method


@pytest.mark.parametrize(("orig", "target"), [(384000, 48000), (44100, 22051), (8000, 48000)])
def test_memory_is_bounded(orig: int, target: int) -> None:
    block = np.zeros((orig, 1), np.float32)
    stream = make_resampler(orig, target, 1, "kaiser_best")
    stream.push(block)
    tracemalloc.start()
    for _ in range(4):
        stream.push(block)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8_000_000


def test_what_cannot_be_resampled() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'kaiser_best'"):
        make_resampler(48000, 16000, 1, "kaiser_bset")
    for rates in [(0, 16000), (48000, -1), (48000, 22050.5)]:
        with pytest.raises(ConfigError, match="positive integer"):
            make_resampler(*rates, 1)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="at least 1/8192"):
        make_resampler(384000, 40, 1, "kaiser_best")
    with pytest.raises(ConfigError, match="int16"):
        resample(np.zeros(10, np.int16), 48000, 16000)
    with pytest.raises(ConfigError, match="shape"):
        resample(np.zeros((1, 10, 1), np.float32), 48000, 16000)


@pytest.mark.parametrize("method", ["kaiser_best", "soxr_hq"])
def test_misuse_of_a_stream(method: str) -> None:
    stream = make_resampler(48000, 16000, 2, method)
    with pytest.raises(ConfigError, match=r"expected \(frames, 2\)"):
        stream.push(np.zeros((10, 1), np.float32))
    stream.flush()
    with pytest.raises(ConfigError, match="flushed already"):
        stream.push(np.zeros((10, 2), np.float32))
