"""Changes of waveforms, row by row of a batch, with the numbers of each row given."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_TINY = 1e-12


def apply_gain(waves: Tensor, gain_db: Tensor) -> Tensor:
    """Scale rows (B, S) by (B,) dB.

    Example:
        >>> apply_gain(torch.ones(1, 2), torch.tensor([20.0])).tolist()
        [[10.0, 10.0]]
    """
    return waves * (10.0 ** (gain_db.to(waves) / 20.0)).unsqueeze(1)


def add_noise(waves: Tensor, noise: Tensor, snr_db: Tensor, heard: Tensor) -> Tensor:
    """Add noise so that each row has a given signal-to-noise ratio.

    Powers are means over the samples that are not padding, and padding stays silent. A silent clip or silent noise
    stays as it is.

    Args:
        waves: (B, S).
        noise: (B, S).
        snr_db: (B,) dB; infinite adds nothing.
        heard: (B, S) bool, True where there is no padding.

    Example:
        >>> x, n = torch.ones(1, 4), torch.tensor([[2.0, -2.0, 2.0, -2.0]])
        >>> add_noise(x, n, torch.tensor([0.0]), torch.ones(1, 4, dtype=torch.bool)).tolist()
        [[2.0, 0.0, 2.0, 0.0]]
    """
    noise = noise.to(waves) * heard
    count = heard.sum(1).clamp(min=1)
    signal_power = (waves * heard).square().sum(1) / count
    noise_power = noise.square().sum(1) / count
    wanted = signal_power * 10.0 ** (-snr_db.to(waves) / 10.0)
    scale = torch.where(noise_power > _TINY, (wanted / noise_power.clamp(min=_TINY)).sqrt(), 0.0)
    return waves + scale.unsqueeze(1) * noise


def shift_in_time(waves: Tensor, shifts: Tensor, heard: Tensor) -> Tensor:
    """Turn the part of each row that is not padding round by (B,) samples.

    Example:
        >>> shift_in_time(torch.tensor([[1.0, 2, 3, 0]]), torch.tensor([1]), torch.tensor([[True] * 3 + [False]]))
        tensor([[3., 1., 2., 0.]])
    """
    lengths = heard.sum(1, keepdim=True).clamp(min=1)
    places = torch.arange(waves.shape[1], device=waves.device).unsqueeze(0)
    turned = (places - shifts.to(waves.device).unsqueeze(1)) % lengths
    return waves.gather(1, torch.where(places < lengths, turned, places))


def mask_time(waves: Tensor, starts: Tensor, ends: Tensor) -> Tensor:
    """Silence the samples `starts <= i < ends` of each row, (B, M) each for M stretches."""
    places = torch.arange(waves.shape[1], device=waves.device).view(1, 1, -1)
    starts, ends = starts.to(waves.device).unsqueeze(-1), ends.to(waves.device).unsqueeze(-1)
    return waves * ~((places >= starts) & (places < ends)).any(1)


def multiply_spectrum(waves: Tensor, gains: Tensor, padded: int) -> Tensor:
    """Multiply the spectrum of each row by real factors (B, padded // 2 + 1), without a shift in phase."""
    spectrum = torch.fft.rfft(waves, n=padded)
    return torch.fft.irfft(spectrum * gains, n=padded)[:, : waves.shape[1]]


def butterworth_gains(cutoff_hz: Tensor, low_pass: Tensor, order: int, frequencies: Tensor) -> Tensor:
    """Magnitude of Butterworth filters.

    Args:
        cutoff_hz: (B,), where the gain is -3 dB.
        low_pass: (B,) bool; else high-pass.
        order: 6 dB per octave each.
        frequencies: (F,) Hz.

    Returns:
        (B, F).

    Example:
        >>> gains = butterworth_gains(torch.tensor([100.0]), torch.tensor([True]), 2, torch.tensor([0.0, 100, 1e6]))
        >>> [round(float(g), 3) for g in gains[0]]
        [1.0, 0.707, 0.0]
    """
    ratio = frequencies.unsqueeze(0) / cutoff_hz.unsqueeze(1)
    power = ratio.pow(2 * order)
    low = 1.0 / (1.0 + power)
    return torch.where(low_pass.unsqueeze(1), low, 1.0 - low).sqrt()


def band_gains(low_hz: Tensor, high_hz: Tensor, frequencies: Tensor) -> Tensor:
    """(B, F) factors that are 0 within any of the bands (B, M) and 1 elsewhere."""
    f = frequencies.view(1, 1, -1)
    inside = (f >= low_hz.unsqueeze(-1)) & (f < high_hz.unsqueeze(-1))
    return (~inside.any(1)).to(frequencies)


def reverberate(waves: Tensor, tails: Sequence[Tensor], wet: Tensor, heard: Tensor) -> Tensor:
    """Add the echo of each row off its tail; loudness stays.

    Args:
        waves: (B, S).
        tails: B impulse responses (L,) of the echo.
        wet: (B,) share of the echo's energy in that of the whole response, below 1.
        heard: (B, S) bool; padding stays silent.
    """
    longest = max(len(tail) for tail in tails)
    response = torch.zeros(len(tails), longest, device=waves.device, dtype=waves.dtype)
    for row, tail in enumerate(tails):
        response[row, : len(tail)] = tail.to(waves)
    energy = response.square().sum(1, keepdim=True).clamp(min=_TINY)
    wet = wet.to(waves).unsqueeze(1)
    response = response * (wet / (1.0 - wet) / energy).sqrt()
    size = waves.shape[1] + longest
    echo = torch.fft.irfft(torch.fft.rfft(waves, n=size) * torch.fft.rfft(response, n=size), n=size)
    changed = (waves + echo[:, : waves.shape[1]]) * heard
    before, after = (x.square().sum(1, keepdim=True) for x in (waves, changed))
    return changed * (before / after.clamp(min=_TINY)).sqrt()
