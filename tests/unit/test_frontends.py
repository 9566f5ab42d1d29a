"""Front ends: lengths, masks, precision, gradients, errors."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from avex._core.errors import ConfigError
from avex.configs import AudioConfig
from avex.frontends import (
    AtstFrontEnd,
    BeatsFrontEnd,
    BirdMaeFrontEnd,
    EatFrontEnd,
    EfficientNetFrontEnd,
    FrontEnd,
    KaldiFbank,
    ResNetFrontEnd,
    SpectrogramFrontEnd,
)
from avex.frontends.base import Constant
from avex.frontends.masks import (
    frame_mask_to_patch_mask,
    frame_padding_mask,
    group_padding_mask,
    pad_or_window,
    sync_crop_or_pad_time,
    waveform_to_frame_mask,
)
from avex.frontends.mel import htk_mel_filters, kaldi_mel_banks
from avex.frontends.normalise import log_min_max
from avex.frontends.stft import PowerSpectrogram

MEL = AudioConfig(n_fft=800, hop_length=160, win_length=800)
# name: (front end, shape of the input for one second)
FAMILIES = {
    "beats": (BeatsFrontEnd, (2, 98, 128)),
    "eat": (EatFrontEnd, (2, 1024, 128)),
    "eat_masked": (lambda: EatFrontEnd(mask_padding=True), (2, 1024, 128)),
    "birdmae": (BirdMaeFrontEnd, (2, 512, 128)),
    "atst": (AtstFrontEnd, (2, 64, 101)),
    "efficientnet": (lambda: EfficientNetFrontEnd(MEL), (2, 3, 128, 101)),
    "resnet": (lambda: ResNetFrontEnd(MEL), (2, 3, 128, 101)),
    "mel": (lambda: SpectrogramFrontEnd(MEL), (2, 128, 101)),
}


def noise(batch=2, samples=16000, seed=0):
    return 0.1 * torch.randn(batch, samples, generator=torch.Generator().manual_seed(seed))


def tail_mask(waveform, valid):
    return (torch.arange(waveform.shape[1]) >= valid).expand(waveform.shape).clone()


@pytest.fixture(params=FAMILIES)
def front_end(request):
    return FAMILIES[request.param][0]()


@pytest.mark.parametrize("name", FAMILIES)
def test_shape_type_and_frame_count(name):
    make, shape = FAMILIES[name]
    front_end = make()
    waveform = noise()
    values, mask = front_end(waveform, tail_mask(waveform, 9000))
    assert values.shape == shape
    assert values.dtype == torch.float32
    frames = shape[1] if len(shape) == 3 and name not in ("mel", "atst") else shape[-1]
    assert front_end.num_frames(16000) == frames
    if name == "eat":  # the published front end knows no masks
        assert mask is None
    else:
        assert mask.shape == (2, frames)
        assert mask.dtype == torch.bool
        assert not mask[:, 0].any()
        assert mask[:, -1].all()


def test_rates():
    assert BeatsFrontEnd().frame_rate == 100
    assert BirdMaeFrontEnd().frame_rate == 100
    assert AtstFrontEnd().frame_rate == 100
    assert SpectrogramFrontEnd(AudioConfig()).frame_rate == 31.25
    # 32 kHz audio through a filter bank set for 16 kHz: the same numbers, twice as often.
    fast = BeatsFrontEnd(sample_rate=32000)
    assert fast.frame_rate == 200
    assert torch.equal(fast(noise())[0], BeatsFrontEnd()(noise())[0])


def test_nothing_is_saved_in_a_state_dict(front_end):
    assert front_end.state_dict() == {}
    assert list(front_end.parameters()) == []


def test_gradients_reach_the_waveform(front_end):
    waveform = noise().requires_grad_()
    front_end(waveform)[0].square().mean().backward()
    assert waveform.grad.isfinite().all()
    assert waveform.grad.abs().sum() > 0


def test_gradients_of_silence_are_finite():
    for use_power in (True, False):
        waveform = torch.zeros(1, 1600, requires_grad=True)
        KaldiFbank(use_power=use_power)(waveform).sum().backward()
        assert waveform.grad.isfinite().all()


def test_gradient_is_the_slope():
    fbank = KaldiFbank(num_mel_bins=23)
    waveform = noise(1, 800).requires_grad_()
    direction = noise(1, 800, seed=1)
    fbank(waveform).sum().backward()
    step = 1e-3
    with torch.no_grad():
        ahead, behind = (fbank(waveform + sign * step * direction).double().sum() for sign in (1, -1))
    slope = ((ahead - behind) / (2 * step)).item()
    assert (waveform.grad * direction).sum().item() == pytest.approx(slope, rel=2e-2)


def test_half_precision_changes_nothing_but_the_waveform(front_end):
    waveform = noise()
    want = front_end(waveform)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(front_end(waveform)[0], want)
    assert torch.equal(front_end.to(torch.bfloat16)(waveform)[0], want)
    assert torch.equal(front_end.double()(waveform.double())[0], want)


def test_a_front_end_first_used_in_inference_mode_can_still_be_trained():
    with torch.inference_mode():
        kaldi_mel_banks(37, 512, 16000)
        htk_mel_filters(37, 512, 16000, 0, 8000)
    assert not kaldi_mel_banks(37, 512, 16000).is_inference()
    assert not htk_mel_filters(37, 512, 16000, 0, 8000).is_inference()


def test_constants_are_private_copies():
    bank = kaldi_mel_banks(23, 512, 16000)
    before = bank.clone()
    KaldiFbank().mel.value.zero_()
    Constant(bank).value.zero_()
    assert torch.equal(kaldi_mel_banks(23, 512, 16000), before)


def test_a_clip_does_not_depend_on_its_batch(front_end):
    waveform = noise(4)
    alone = torch.cat([front_end(one.unsqueeze(0))[0] for one in waveform])
    torch.testing.assert_close(front_end(waveform)[0], alone, rtol=0, atol=2e-4)


@pytest.mark.parametrize("name", ["beats", "eat_masked", "mel"])
def test_compiles_to_one_graph(name):
    front_end = FAMILIES[name][0]()
    waveform = noise()
    mask = tail_mask(waveform, 9000)
    compiled = torch.compile(front_end, fullgraph=True, backend="eager")
    for got, want in zip(compiled(waveform, mask), front_end(waveform, mask), strict=True):
        torch.testing.assert_close(got, want)


# -- filter banks ------------------------------------------------------------------------------------------


def test_kaldi_against_its_definition_in_float64():
    """One frame, written out: mean, pre-emphasis, window, spectrum, triangles, logarithm."""
    frame = noise(1, 400)[0].double()
    centred = frame - frame.mean()
    previous = torch.cat([centred[:1], centred[:-1]])
    angle = 2 * torch.pi * torch.arange(400, dtype=torch.float64) / 399
    window = (0.5 - 0.5 * angle.cos()) ** 0.85
    power = torch.fft.rfft((centred - 0.97 * previous) * window, n=512).abs() ** 2
    want = (kaldi_mel_banks(40, 512, 16000).double() @ power).clamp(min=2.0**-23).log()
    got = KaldiFbank(num_mel_bins=40)(frame.float().unsqueeze(0))[0, 0]
    torch.testing.assert_close(got.double(), want, rtol=0, atol=1e-4)


@given(
    samples=st.integers(400, 3000),
    shift=st.sampled_from([2.5, 10, 13.3, 25, 40]),
    snip_edges=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_frames_counted_are_frames_made(samples, shift, snip_edges):
    fbank = KaldiFbank(8, frame_shift=shift, snip_edges=snip_edges)
    got = fbank(noise(1, samples))
    assert got.shape == (1, fbank.num_frames(samples), 8)
    assert fbank.num_frames(fbank.min_samples - 1) == 0


def test_frames_beyond_the_edges_are_mirrored():
    """With a shift of 160 and frames of 400 the first starts 120 samples before the clip."""
    waveform = noise(1, 1600)
    mirrored = torch.cat([waveform[:, :120].flip(-1), waveform, waveform[:, -200:].flip(-1)], dim=-1)
    got = KaldiFbank(snip_edges=False)(waveform)
    torch.testing.assert_close(got, KaldiFbank()(mirrored)[:, : got.shape[1]])


def test_frames_further_apart_than_they_are_long_start_within_the_clip():
    """With a shift of 640 and frames of 400 the first starts 120 samples into the clip."""
    waveform = noise(2, 3200)
    got = KaldiFbank(frame_shift=40, snip_edges=False)(waveform)
    torch.testing.assert_close(got, KaldiFbank(frame_shift=40)(waveform[:, 120:]))
    sparse = KaldiFbank(frame_shift=60, snip_edges=False)
    assert (sparse.min_samples, sparse.num_frames(480), sparse.num_frames(479)) == (480, 1, 0)


def test_energy_column_and_mean():
    waveform = 1000 * noise(2, 1600)
    first = KaldiFbank(use_energy=True)(waveform)
    last = KaldiFbank(use_energy=True, htk_compat=True)(waveform)
    assert torch.equal(first[..., 0], last[..., -1])
    frame = waveform[0, :400] - waveform[0, :400].mean()
    assert first[0, 0, 0].item() == pytest.approx(frame.square().sum().log().item(), abs=1e-5)
    centred = KaldiFbank(subtract_mean=True)(waveform)
    plain = KaldiFbank()(waveform)
    torch.testing.assert_close(centred, plain - plain.mean(1, keepdim=True))


def test_kaldi_filters_overlap_to_one():
    """Neighbouring triangles add up to 1 between the first and the last centre."""
    total = kaldi_mel_banks(23, 512, 16000).sum(0)
    inside = total[5:-30]
    torch.testing.assert_close(inside, torch.ones_like(inside), rtol=0, atol=1e-4)


def test_lengths_in_samples_are_truncated():
    fbank = KaldiFbank(sample_frequency=22050)
    assert (fbank.frame_samples, fbank.hop_length, fbank.n_fft) == (551, 220, 1024)


@pytest.mark.parametrize(
    "settings_",
    [
        {"num_mel_bins": 0},
        {"window_type": "kaiser"},
        {"low_freq": 9000.0},
        {"high_freq": 9000.0},
        {"frame_length": 0.01},
        {"frame_shift": 0.0},
        {"preemphasis": 1.5},
        {"sample_frequency": 16040.0, "round_to_power_of_two": False},
    ],
)
def test_settings_that_cannot_be_are_refused(settings_):
    with pytest.raises(ConfigError):
        KaldiFbank(**settings_)


# -- spectrograms ------------------------------------------------------------------------------------------


def test_a_tone_lands_in_its_bin():
    time = torch.arange(16000) / 16000
    tone = torch.sin(2 * torch.pi * 1000 * time).unsqueeze(0)
    power = PowerSpectrogram(512, 160, 512)(tone)
    assert (power.argmax(1)[:, 4:-4] == 32).all()


def test_raw_is_the_waveform():
    waveform = noise()
    front_end = SpectrogramFrontEnd(AudioConfig(sample_rate=32000, representation="raw"))
    mask = tail_mask(waveform, 9000)
    values, out = front_end(waveform, mask)
    assert torch.equal(values, waveform)
    assert torch.equal(out, mask)
    assert front_end.frame_rate == 32000
    assert front_end.num_frames(123) == 123


@given(st.integers(1025, 6000), st.booleans(), st.sampled_from([160, 333]), st.sampled_from([400, 1024]))
@settings(max_examples=30, deadline=None)
def test_spectrogram_frames_and_masks_fit(samples, center, hop, win):
    power = PowerSpectrogram(1024, hop, win, center=center)
    waveform = noise(1, samples)
    values = power(waveform)
    assert values.shape[-1] == power.num_frames(samples)
    assert power.num_frames(power.min_samples - 1) == 0
    assert power.frame_mask(tail_mask(waveform, samples // 2)).shape == (1, values.shape[-1])


@given(st.integers(1, 3500), st.booleans(), st.sampled_from([301, 400, 512]))
@settings(max_examples=40, deadline=None)
def test_a_frame_is_padding_if_its_window_sees_none_of_the_clip(valid, center, win):
    # No value of this window is zero, so any sample under it shows.
    power = PowerSpectrogram(512, 160, win, window="hamming", center=center)
    clip = (torch.arange(4000) < valid).float().unsqueeze(0)
    assert torch.equal(power.frame_mask(tail_mask(clip, valid)), power(clip)[:, 0] == 0)


def test_normalised_clips_fill_zero_to_one():
    power = torch.rand(3, 8, 20) * torch.tensor([1.0, 1e-3, 1e3])[:, None, None]
    scaled = log_min_max(power)
    assert scaled.amin((1, 2)).tolist() == [0, 0, 0]
    torch.testing.assert_close(scaled.amax((1, 2)), torch.ones(3))
    assert not log_min_max(torch.zeros(1, 8, 20)).any()


def test_atst_is_eighty_decibels_deep():
    waveform = noise()
    waveform[:, 8000:] = 0
    values, _ = AtstFrontEnd()(waveform)
    depth = (values.amax((1, 2)) - values.amin((1, 2))) / 2 * (50.6842 + 79.6482)
    torch.testing.assert_close(depth, torch.full((2,), 80.0), rtol=0, atol=1e-3)


@pytest.mark.parametrize("make", [EfficientNetFrontEnd, ResNetFrontEnd])
def test_images_need_a_picture(make):
    with pytest.raises(ConfigError, match="representation='raw'"):
        make(AudioConfig(representation="raw"))


def test_a_window_longer_than_its_fft_is_refused():
    with pytest.raises(ConfigError, match="win_length 1024 is longer than n_fft 512"):
        SpectrogramFrontEnd(AudioConfig(n_fft=512, win_length=1024))


# -- families ----------------------------------------------------------------------------------------------


def test_beats_mask_follows_equal_groups():
    waveform = noise(2, 160_000)
    _, mask = BeatsFrontEnd()(waveform, tail_mask(waveform, 80_000))
    assert mask.shape == (2, 998)
    # 160000 // 998 = 160 samples a group: the first whole group of padding is 500.
    assert mask[0].nonzero().flatten().tolist() == list(range(500, 998))


def test_naturelm_clamps_first():
    loud = 20 * noise()
    assert torch.equal(BeatsFrontEnd(clamp=True)(loud)[0], BeatsFrontEnd()(loud.clamp(-1, 1))[0])
    assert not torch.equal(BeatsFrontEnd(clamp=True)(loud)[0], BeatsFrontEnd()(loud)[0])


def test_eat_pads_before_and_cuts_after():
    front_end = EatFrontEnd(-5.553, 4.606)
    padded, _ = front_end(noise())
    added = padded[:, 98:]
    torch.testing.assert_close(added, torch.full_like(added, 5.553 / (2 * 4.606)))
    # A clip that is too long is still made mean-free as a whole.
    long = noise(1, 200_000)
    long[:, 170_000:] += 1
    got, _ = front_end(long)
    want = (front_end.fbank(long - long.mean())[:, :1024] + 5.553) / (2 * 4.606)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-4)


@given(st.integers(400, 15999))
@settings(max_examples=15, deadline=None)
def test_eat_with_masked_padding_gives_what_the_clip_gives_alone(valid):
    front_end = EatFrontEnd(mask_padding=True)
    waveform = noise(1) + 0.05
    alone, alone_mask = front_end(waveform[:, :valid])
    waveform[:, valid:] = 0
    padded, mask = front_end(waveform, tail_mask(waveform, valid))
    assert torch.equal(mask, alone_mask)
    assert (~mask).sum() == 1 + (valid - 400) // 160
    torch.testing.assert_close(padded, alone, rtol=0, atol=2e-4)


def test_bird_mae_fills_with_the_lowest_value_of_the_clip():
    values, mask = BirdMaeFrontEnd()(noise(3, 100_000) * torch.tensor([[1.0], [0.1], [0.01]]))
    assert mask is None
    assert torch.equal(values[:, 498:], values.amin((1, 2), keepdim=True).expand(3, 14, 128))


def test_bird_mae_masks_what_it_adds():
    waveform = noise(1, 100_000)
    _, mask = BirdMaeFrontEnd()(waveform, torch.zeros_like(waveform, dtype=torch.bool))
    assert mask[0].nonzero()[0].item() == 313  # the first frame from sample 100160 on


# -- what is refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "minimum"),
    [
        (BeatsFrontEnd, 400),
        (EatFrontEnd, 400),
        (AtstFrontEnd, 513),
        (lambda: SpectrogramFrontEnd(MEL), 401),
        (lambda: SpectrogramFrontEnd(AudioConfig(center=False)), 2048),
    ],
)
def test_clips_that_are_too_short_name_the_minimum(make, minimum):
    front_end = make()
    front_end(noise(1, minimum))
    with pytest.raises(ConfigError, match=f"clip of {minimum - 1} samples is too short.*at least {minimum}"):
        front_end(noise(1, minimum - 1))


def test_the_filter_bank_alone_names_the_minimum_too():
    with pytest.raises(ValueError, match=r"clip of 300 samples is too short.*at least 400"):
        KaldiFbank()(torch.zeros(1, 300))


def test_wrong_inputs_are_refused(front_end):
    with pytest.raises(ValueError, match=r"\(batch, samples\)"):
        front_end(torch.zeros(16000))
    with pytest.raises(TypeError, match="int16"):
        front_end(torch.zeros(1, 16000, dtype=torch.int16))
    with pytest.raises(TypeError, match="mask is bool"):
        front_end(noise(), torch.zeros(2, 16000))
    with pytest.raises(ValueError, match="does not fit"):
        front_end(noise(), torch.zeros(2, 100, dtype=torch.bool))


def test_a_subclass_must_say_what_it_does():
    bare = FrontEnd(sample_rate=16000, hop_length=160)
    with pytest.raises(NotImplementedError):
        bare(noise())
    with pytest.raises(NotImplementedError):
        bare.num_frames(1)
    assert repr(bare) == "FrontEnd(sample_rate=16000, hop_length=160)"


# -- masks -------------------------------------------------------------------------------------------------


@given(st.integers(1, 60), st.integers(1, 8))
def test_frame_masks_by_brute_force(valid, hop):
    mask = torch.arange(60).unsqueeze(0) >= valid
    want = [all(mask[0, i * hop : (i + 1) * hop]) for i in range(60 // hop)]
    assert waveform_to_frame_mask(mask, hop_length=hop)[0].tolist() == want
    assert torch.equal(frame_padding_mask(mask, hop, hop), waveform_to_frame_mask(mask, hop_length=hop))
    some = [any(mask[0, i * hop : (i + 1) * hop]) for i in range(60 // hop)]
    assert frame_padding_mask(mask, hop, hop, rule="any")[0].tolist() == some


def test_masks_refuse_what_does_not_divide():
    mask = torch.zeros(1, 10, dtype=torch.bool)
    with pytest.raises(ValueError, match="10 frames do not divide into patches of 16"):
        frame_mask_to_patch_mask(mask, patch_size_time=16, n_freq_bins=128)
    with pytest.raises(ValueError, match="hop_length"):
        waveform_to_frame_mask(mask, hop_length=0)
    with pytest.raises(ValueError, match="must have shape"):
        waveform_to_frame_mask(mask[0], hop_length=2)
    with pytest.raises(ValueError, match="10 values cannot be cut into 11"):
        group_padding_mask(mask, 11)


def test_crop_or_pad_keeps_mask_and_spectrogram_in_step():
    spec = torch.arange(10.0).reshape(1, 10, 1)
    mask = spec[..., 0] >= 7
    cropped, cropped_mask = sync_crop_or_pad_time(spec, mask, 5)
    assert cropped[0, :, 0].tolist() == [2, 3, 4, 5, 6]
    assert not cropped_mask.any()
    padded, padded_mask = sync_crop_or_pad_time(spec, mask, 12)
    assert padded[0, 9:, 0].tolist() == [9, 0, 0]
    assert padded_mask[0].nonzero().flatten().tolist() == [7, 8, 9, 10, 11]
    assert sync_crop_or_pad_time(spec, None, 12)[1] is None


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from(["random", "center", "start"]))
def test_pad_or_window(samples, target, selection):
    waveform = torch.arange(1.0, samples + 1)
    got, mask = pad_or_window(waveform, target, selection)
    assert got.shape == mask.shape == (target,)
    assert mask.sum() == max(target - samples, 0)
    kept = got[~mask]
    assert torch.equal(kept, torch.arange(kept[0].item(), kept[0].item() + len(kept)))
    surplus = max(samples - target, 0)
    start = {"start": 0, "center": surplus // 2}.get(selection, int(kept[0]) - 1)
    assert kept[0] == 1 + start
    assert start <= surplus
    assert not got[mask].any()
    assert torch.equal(pad_or_window(waveform, target, selection, invert=False)[1], ~mask)


def test_random_windows_follow_their_generator_and_reach_both_ends():
    waveform = torch.arange(3.0)
    starts = [
        [
            pad_or_window(waveform, 2, generator=torch.Generator().manual_seed(seed))[0][0].item()
            for seed in range(20)
        ]
        for _ in range(2)
    ]
    assert starts[0] == starts[1]
    assert set(starts[0]) == {0.0, 1.0}
    with pytest.raises(ValueError, match="Unknown window_selection 'middle'"):
        pad_or_window(waveform, 2, "middle")


def test_the_package_imports_without_torch():
    code = "import sys, avex.frontends; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    import avex.frontends as package

    assert set(package._LAZY) == set(package.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        package.Nothing  # noqa: B018
