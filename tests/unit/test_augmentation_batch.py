"""Augmentations: known values, seeds, padding, labels."""

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from avex._core.errors import ConfigError
from avex.configs.augmentation import (
    FilterAugment,
    FrequencyMaskAugment,
    GainAugment,
    MixupAugment,
    NoiseAugment,
    ReverbAugment,
    TimeMaskAugment,
    TimeShiftAugment,
)
from avex.data.augmentation import BatchAugmenter, NoisePool
from avex.data.augmentation.noise import stack_noise
from avex.data.augmentation.waveform import add_noise

RATE = 8000
SURE = {"augmentation_prob": 1.0}
ROWS = [
    GainAugment(**SURE),
    TimeShiftAugment(**SURE),
    TimeMaskAugment(**SURE),
    FrequencyMaskAugment(**SURE),
    FilterAugment(cutoff_hz_range=(500, 3000), **SURE),
    ReverbAugment(**SURE),
]
NAMES = [config.kind for config in ROWS]


def batch(count=4, seconds=1.0, padded=0):
    generator = torch.Generator().manual_seed(1)
    waves = torch.randn(count, round(RATE * seconds), generator=generator)
    mask = torch.zeros_like(waves, dtype=torch.bool)
    if padded:
        mask[:, -padded:] = True
        waves = waves.masked_fill(mask, 0.0)
    index = list(range(10, 10 + count))
    return {
        "raw_wav": waves,
        "padding_mask": mask,
        "index": index,
        "epoch": [2] * count,
        "id": list("abcdefgh"[:count]),
    }


@pytest.mark.parametrize("config", ROWS, ids=NAMES)
def test_seeded_by_clip_not_by_batch(config):
    augment = BatchAugmenter([config], RATE, seed=5)
    whole = augment(batch())["raw_wav"]
    again = augment(batch())["raw_wav"]
    assert torch.equal(whole, again)
    part = batch()
    part = {
        **part,
        "raw_wav": part["raw_wav"][2:],
        "padding_mask": part["padding_mask"][2:],
        "index": [12, 13],
        "epoch": [2, 2],
    }
    torch.testing.assert_close(augment(part)["raw_wav"], whole[2:], rtol=1e-4, atol=1e-5)
    assert not torch.equal(whole, BatchAugmenter([config], RATE, seed=6)(batch())["raw_wav"])
    assert not torch.equal(whole, augment({**batch(), "epoch": [3] * 4})["raw_wav"])


@pytest.mark.parametrize("config", ROWS, ids=NAMES)
def test_padding_stays_silent_and_input_stays_as_it_was(config):
    given_batch = batch(padded=3000)
    before = given_batch["raw_wav"].clone()
    result = BatchAugmenter([config], RATE, seed=0)(given_batch)["raw_wav"]
    assert torch.equal(given_batch["raw_wav"], before)
    assert not torch.equal(result, before)
    assert (result[:, -3000:] == 0).all()
    assert result.isfinite().all()


@pytest.mark.parametrize("config", ROWS, ids=NAMES)
def test_probability_zero_changes_nothing_and_half_changes_some(config):
    never = config.model_copy(update={"augmentation_prob": 0.0})
    data = batch()
    assert torch.equal(BatchAugmenter([never], RATE, 0)(data)["raw_wav"], data["raw_wav"])
    half = config.model_copy(update={"augmentation_prob": 0.5})
    many = {**batch(64, 0.05), "index": list(range(64))}
    changed = (BatchAugmenter([half], RATE, 0)(many)["raw_wav"] != many["raw_wav"]).any(1)
    assert 16 < int(changed.sum()) < 48


@settings(max_examples=25, deadline=None)
@given(st.floats(-20, 30), st.integers(0, 1000))
def test_noise_has_the_ratio_that_was_asked_for(snr, padded):
    generator = torch.Generator().manual_seed(0)
    clip, noise = torch.randn(1, 4000, generator=generator), 5 * torch.randn(1, 4000, generator=generator)
    heard = torch.ones(1, 4000, dtype=torch.bool)
    heard[:, 4000 - padded :] = False
    clip = clip * heard
    added = add_noise(clip, noise, torch.tensor([snr]), heard) - clip
    ratio = 10 * torch.log10(clip.square().sum() / added.square().sum())
    assert float(ratio) == pytest.approx(snr, abs=0.05)
    assert (added[~heard] == 0).all()


def test_gain_is_in_decibels():
    data = batch()
    config = GainAugment(gain_db_range=(-6.0206, -6.0206), **SURE)
    result = BatchAugmenter([config], RATE, 0)(data)["raw_wav"]
    torch.testing.assert_close(result, data["raw_wav"] / 2, rtol=1e-4, atol=1e-6)


def test_time_shift_keeps_every_sample():
    data = batch(padded=1000)
    result = BatchAugmenter([TimeShiftAugment(**SURE)], RATE, 0)(data)["raw_wav"]
    torch.testing.assert_close(result.sort(1).values, data["raw_wav"].sort(1).values)


def test_time_mask_silences_at_most_what_it_may():
    data = batch()
    result = BatchAugmenter([TimeMaskAugment(masks=2, max_seconds=0.1, **SURE)], RATE, 0)(data)["raw_wav"]
    silent = (result == 0).sum(1)
    assert (silent > 0).any()
    assert (silent <= 2 * 0.1 * RATE).all()


def test_low_pass_leaves_low_tones_and_removes_high_ones():
    t = torch.arange(RATE) / RATE
    tones = torch.stack([torch.sin(2 * torch.pi * f * t) for f in (100.0, 1000.0, 3900.0)])
    config = FilterAugment(pass_type="lowpass", cutoff_hz_range=(1000, 1000), order=4, **SURE)
    data = {"raw_wav": tones, "index": [0, 1, 2], "epoch": [0, 0, 0]}
    result = BatchAugmenter([config], RATE, 0)(data)["raw_wav"][:, 1000:-1000]
    level = result.square().mean(1).sqrt() / tones[:, 1000:-1000].square().mean(1).sqrt()
    # Butterworth: 1 / sqrt(1 + (f / fc)^8)
    assert level.tolist() == pytest.approx([1.0, 0.7071, (1 + 3.9**8) ** -0.5], abs=0.01)


def test_frequency_mask_empties_a_band():
    data = batch(8, 2.0)
    config = FrequencyMaskAugment(masks=1, max_octaves=1.0, **SURE)
    result = BatchAugmenter([config], RATE, 0)(data)["raw_wav"]
    ratio = torch.fft.rfft(result).abs() / torch.fft.rfft(data["raw_wav"]).abs()
    assert ((ratio < 0.1).float().mean(1) > 0).any()
    assert (ratio.median(1).values - 1).abs().max() < 0.1


def test_reverb_keeps_loudness_and_adds_a_tail():
    click = torch.zeros(1, RATE)
    click[0, 100] = 1.0
    config = ReverbAugment(rt60_range=(0.5, 0.5), wet_range=(0.3, 0.3), **SURE)
    result = BatchAugmenter([config], RATE, 0)({"raw_wav": click, "index": [0], "epoch": [0]})["raw_wav"][0]
    assert float(result.square().sum()) == pytest.approx(1.0, rel=1e-3)
    assert float(result[101:].square().sum()) == pytest.approx(0.3, abs=0.01)
    early, late = result[101:1101].square().sum(), result[2101:3101].square().sum()
    # A tail that falls by 60 dB in 0.5 s falls by 30 dB in a quarter of a second.
    assert float(10 * torch.log10(early / late)) == pytest.approx(30, abs=1.5)
    assert (result[:100].abs() < 1e-6).all()


def test_mixup_labels_follow_the_clips():
    data = {**batch(4), "raw_wav": torch.eye(4), "label": torch.tensor([0, 1, 2, 3])}
    data.pop("padding_mask")
    config = MixupAugment(alpha=0.4, n_mixup=2, augmentation_prob=1)
    result = BatchAugmenter([config], RATE, 0, classes=4)(data)
    torch.testing.assert_close(result["raw_wav"], result["label"])
    assert torch.allclose(result["label"].sum(1), torch.ones(4))
    assert ((result["label"] > 0) & (result["label"] < 1)).any()


def test_mixup_of_padding_is_what_is_padding_in_both():
    data = batch(2)
    data["padding_mask"][0, 100:] = True
    result = BatchAugmenter([MixupAugment(alpha=1, augmentation_prob=1)], RATE, 0)(data)
    assert not result["padding_mask"].any()


@pytest.fixture
def noise_folder(tmp_path):
    folder = tmp_path / "noise" / "site"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    soundfile.write(folder / "rain.wav", 0.1 * rng.standard_normal(3 * 16000), 16000)
    soundfile.write(folder / "short.wav", 0.1 * rng.standard_normal(2000), 16000)
    return folder.parent


def test_noise_pool_reads_the_same_for_the_same_clip(noise_folder):
    config = NoiseAugment(noise_dirs=[str(noise_folder)], snr_db_range=(0, 10), augmentation_prob=1)
    pools = [NoisePool(config, RATE, seed=1, step=0) for _ in range(2)]
    draws = [[pool.draw(0, i, RATE) for i in range(6)] for pool in pools]
    for a, b in zip(*draws, strict=True):
        assert np.array_equal(a.samples, b.samples)
        assert a.snr_db == b.snr_db
    assert {len(draw.samples) for draw in draws[0]} == {RATE}
    assert all(draw.samples.std() > 0.01 for draw in draws[0])
    assert len({draw.snr_db for draw in draws[0]}) == 6


def test_noise_alone_takes_the_labels_away(noise_folder):
    config = NoiseAugment(
        noise_dirs=[str(noise_folder)], snr_db_range=(0, 0), augmentation_prob=1, mask_signal_prob=1
    )
    pool = NoisePool(config, RATE, seed=1, step=0)
    draws = [pool.draw(0, i, RATE) for i in range(2)]
    data = {**batch(2), "label": torch.tensor([0, 2]), "noise": [stack_noise(draws, RATE)]}
    result = BatchAugmenter([config], RATE, 1, classes=3)(data)
    assert result["label"].tolist() == [[0, 0, 0], [0, 0, 0]]
    torch.testing.assert_close(result["raw_wav"][0], torch.from_numpy(draws[0].samples))
    assert "noise" not in result


def test_missing_noise_is_never_left_out_in_silence(tmp_path):
    for folder, message in ((tmp_path / "none", "no folder of noise"), (tmp_path, "holds no recordings")):
        config = NoiseAugment(noise_dirs=[str(folder)], snr_db_range=(0, 0), augmentation_prob=1)
        with pytest.raises(ConfigError, match=message):
            NoisePool(config, RATE, 0, 0)
