"""Mel filter banks, in the two conventions the published encoders use.

Both are evaluated in float32 on the CPU, operation for operation as the references that the encoders were
trained with: narrow filters catch a bin by a small difference of large numbers, and an exact bank (float64)
differs from those by up to 1.4e-5, or 5e-4 in a log-mel spectrogram.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from avex._core.errors import ConfigError


def kaldi_mel_banks(
    num_mel_bins: int, n_fft: int, sample_rate: float, low_freq: float = 20.0, high_freq: float = 0.0
) -> Tensor:
    """Triangles of unit height that are straight on the mel axis, as in Kaldi (without VTLN).

    The mel scale is 1127 ln(1 + f/700). The Nyquist bin belongs to no filter.

    Args:
        num_mel_bins: Filters.
        n_fft: FFT length.
        sample_rate: Rate in Hz.
        low_freq: Lower edge of the first filter, Hz.
        high_freq: Upper edge of the last filter, Hz; zero or less counts from Nyquist.

    Returns:
        (num_mel_bins, n_fft // 2 + 1), float32, shared: copy before changing it.

    Raises:
        ConfigError: The band is empty or reaches beyond Nyquist, or there are no filters.

    Example:
        >>> kaldi_mel_banks(128, 512, 16000).shape
        torch.Size([128, 257])
    """
    nyquist = 0.5 * sample_rate
    upper = high_freq + nyquist if high_freq <= 0 else high_freq
    _check_band(num_mel_bins, low_freq, upper, nyquist)
    return _kaldi(num_mel_bins, n_fft, float(sample_rate), float(low_freq), float(upper))


def htk_mel_filters(n_mels: int, n_fft: int, sample_rate: int, f_min: float, f_max: float) -> Tensor:
    """Triangles of unit height that are straight on the frequency axis, spaced on the HTK mel scale.

    The mel scale is 2595 log10(1 + f/700); no area normalisation. Equal to torchaudio's `MelScale` with its
    defaults.

    Args:
        n_mels: Filters.
        n_fft: FFT length.
        sample_rate: Rate in Hz.
        f_min: Lower edge of the first filter, Hz.
        f_max: Upper edge of the last filter, Hz.

    Returns:
        (n_mels, n_fft // 2 + 1), float32, shared: copy before changing it.

    Raises:
        ConfigError: The band is empty or reaches beyond Nyquist, or there are no filters.

    Example:
        >>> htk_mel_filters(64, 1024, 16000, 60, 7800).shape
        torch.Size([64, 513])
    """
    _check_band(n_mels, f_min, f_max, sample_rate / 2)
    return _htk(n_mels, n_fft, sample_rate, float(f_min), float(f_max))


def _check_band(count: int, low: float, high: float, nyquist: float) -> None:
    if count < 1:
        raise ConfigError(f"A mel filter bank needs at least one filter, not {count}.")
    if not 0 <= low < high <= nyquist:
        raise ConfigError(
            f"Mel filters from {low:g} Hz to {high:g} Hz do not fit a signal that reaches {nyquist:g} Hz: "
            "expected 0 <= low < high <= half the sample rate."
        )


# A cached tensor must serve training as well, even if inference asked for it first.
@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _kaldi(count: int, n_fft: int, sample_rate: float, low: float, high: float) -> Tensor:
    def to_mel(frequency: float) -> float:
        return 1127.0 * math.log(1.0 + frequency / 700.0)

    step = (to_mel(high) - to_mel(low)) / (count + 1)
    index = torch.arange(count, device="cpu", dtype=torch.int64).unsqueeze(1)
    left, centre, right = (to_mel(low) + (index.float() + shift) * step for shift in (0.0, 1.0, 2.0))
    bins = sample_rate / n_fft * torch.arange(n_fft // 2, device="cpu", dtype=torch.float32)
    mel = (1127.0 * (1.0 + bins / 700.0).log()).unsqueeze(0)
    triangles = torch.minimum((mel - left) / (centre - left), (right - mel) / (right - centre)).clamp(min=0.0)
    return torch.cat([triangles, triangles.new_zeros(count, n_fft // 2 + 1 - triangles.shape[1])], dim=1)


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _htk(count: int, n_fft: int, sample_rate: int, low: float, high: float) -> Tensor:
    def to_mel(frequency: float) -> float:
        return 2595.0 * math.log10(1.0 + frequency / 700.0)

    bins = torch.linspace(0, sample_rate // 2, n_fft // 2 + 1, dtype=torch.float32, device="cpu")
    mel = torch.linspace(to_mel(low), to_mel(high), count + 2, dtype=torch.float32, device="cpu")
    corners = 700.0 * (10.0 ** (mel / 2595.0) - 1.0)
    width = corners.diff().unsqueeze(1)
    distance = corners.unsqueeze(1) - bins
    rising, falling = -distance[:-2] / width[:-1], distance[2:] / width[1:]
    return torch.minimum(rising, falling).clamp(min=0.0)
