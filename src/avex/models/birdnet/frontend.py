"""The two spectrograms that BirdNET v2.4 looks at."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from avex._core.errors import ConfigError
from avex.frontends.base import FrontEnd
from avex.models.birdnet.config import BirdNetConfig, SpectrogramConfig

# Added to the range of a window before dividing by it.
RANGE_EPSILON = 1e-6
# Exponents of the compression before training; the published file has its own.
_INITIAL_EXPONENT = 0.2
# Powers of smaller values are taken as if they were this: |x|**p has no slope at 0.
_SMALLEST = 1e-20
# Frames transformed at once on a CPU: few enough to stay in its cache and in memory that is used again.
_CPU_FRAMES = 128


class BirdNetFrontEnd(FrontEnd):
    """A window of 3 s, scaled to -1 … 1 by its own extremes, as two mel spectrograms (Kahl et al. 2021).

    The powers of small values make much of little: where a band is empty (recordings resampled from a lower rate,
    MP3, padding), BirdNET sees the rounding of its own windowed samples. To see the same, samples and their
    products with the window are rounded to float32 as in the published graph, and the Fourier transform is
    computed in float64. In float32 throughout, logits of such recordings are off by up to 0.3.

    Args:
        config: Sizes.

    Example:
        >>> BirdNetFrontEnd(BirdNetConfig())(torch.zeros(1, 144000))[0].shape
        torch.Size([1, 2, 96, 511])
    """

    def __init__(self, config: BirdNetConfig) -> None:
        super().__init__(
            sample_rate=config.sample_rate,
            hop_length=config.spectrograms[0].hop_length,
            min_samples=config.window_samples,
        )
        self.window_samples = config.window_samples
        self.frames = config.num_frames
        self.spectrograms = nn.ModuleList(MelSpectrogram(part, config) for part in config.spectrograms)

    def num_frames(self, num_samples: int) -> int:
        """Frames of a window."""
        return self.frames

    def compute(self, waveform: Tensor, padding_mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """(B, 2, mels, frames), highest frequency first; padding is heard as silence.

        Raises:
            ConfigError: Another length than one window, or a device without float64.
        """
        if waveform.shape[1] != self.window_samples:
            raise ConfigError(
                f"BirdNET hears {self.window_samples} samples at once, not {waveform.shape[1]}. "
                "Cut the waveform into windows."
            )
        if waveform.device.type == "mps":
            raise ConfigError(
                "BirdNET's spectrograms need float64, which 'mps' does not have. Use device='cpu'."
            )
        if waveform.device.type != "cpu" or torch.compiler.is_compiling() or len(waveform) < 2:
            return self._spectrograms(waveform), None
        # One after the other, windows stay in a CPU's cache.
        return torch.cat([self._spectrograms(window) for window in waveform.split(1)]), None

    def _spectrograms(self, waveform: Tensor) -> Tensor:
        # The order of operations is the graph's: with another, samples would differ in their last bit.
        lifted = waveform - waveform.amin(1, keepdim=True)
        scaled = (lifted / (lifted.amax(1, keepdim=True) + RANGE_EPSILON) - 0.5) * 2
        return torch.stack([spectrogram(scaled) for spectrogram in self.spectrograms], dim=1)


class MelSpectrogram(nn.Module):
    """Real part of the Fourier transform of windowed frames, through mel filters, as `|x|**(2 p) * a + b`.

    That it is the real part and not the magnitude is a peculiarity of BirdNET, whose graph casts complex numbers
    to real ones.

    Attributes:
        window: (n_fft,) Hann window.
        mel: (mels, n_fft / 2 + 1) mel filters.
        exponent: p, learned.
        scale: a.
        offset: b.
    """

    window: Tensor
    mel: Tensor

    def __init__(self, part: SpectrogramConfig, config: BirdNetConfig) -> None:
        super().__init__()
        self.n_fft, self.hop_length = part.n_fft, part.hop_length
        self.bins = used_bins(part, config.sample_rate)
        self.register_buffer("window", torch.hann_window(part.n_fft))
        self.register_buffer("mel", mel_filters(part, config.num_mels, config.sample_rate))
        self.exponent = nn.Parameter(torch.tensor(_INITIAL_EXPONENT))
        self.scale = nn.Parameter(torch.ones(()))
        self.offset = nn.Parameter(torch.zeros(()))

    def forward(self, waveform: Tensor) -> Tensor:
        """(B, S) to (B, mels, frames)."""
        values = self._mel(waveform.unfold(1, self.n_fft, self.hop_length))
        # Twice the exponent, because the graph squares first.
        powers = (values.abs().clamp_min(_SMALLEST).log() * (2 * self.exponent)).exp()
        return torch.addcmul(self.offset, powers, self.scale).transpose(1, 2)

    def _mel(self, frames: Tensor) -> Tensor:
        """(B, frames, n_fft) to (B, frames, mels), highest frequency first."""
        filters = self.mel[:, self.bins].flip(0).T
        if frames.device.type != "cpu" or torch.compiler.is_compiling():
            return self._real_part(frames) @ filters
        parts = [self._real_part(part) @ filters for clip in frames for part in clip.split(_CPU_FRAMES)]
        return torch.cat(parts).unflatten(0, frames.shape[:2])

    def _real_part(self, frames: Tensor) -> Tensor:
        """(..., n_fft) to (..., bins); products rounded to float32, their transform exact (see the front end)."""
        return torch.fft.rfft((frames * self.window).double()).real[..., self.bins].float()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> MelSpectrogram:
        # Devices change, precision does not: `model.half()` is meant for the network behind.
        def keep_precision(tensor: Tensor) -> Tensor:
            result = fn(tensor)
            return result if result.dtype == tensor.dtype else tensor.to(result.device)

        super()._apply(keep_precision, recurse)
        return self


def used_bins(part: SpectrogramConfig, sample_rate: int) -> slice:
    """Bins of the Fourier transform that mel filters between the two frequencies can use."""
    bins_per_hz = part.n_fft / sample_rate
    return slice(math.floor(part.f_min * bins_per_hz), math.ceil(part.f_max * bins_per_hz) + 1)


def mel_filters(part: SpectrogramConfig, num_mels: int, sample_rate: int) -> Tensor:
    """Triangular mel filters of height 1 as TensorFlow makes them, (mels, n_fft / 2 + 1) float32.

    The zero-frequency bin is left out. BirdNET's file holds its own copy, equal to this within float32.
    """

    def to_mel(hz: Tensor) -> Tensor:
        return 1127.0 * torch.log1p(hz / 700.0)

    frequencies = torch.linspace(0, sample_rate / 2, part.n_fft // 2 + 1, dtype=torch.float64)
    low, high = to_mel(torch.tensor([part.f_min, part.f_max], dtype=torch.float64))
    edges = torch.linspace(float(low), float(high), num_mels + 2, dtype=torch.float64)[:, None]
    lower, centre, upper = edges[:-2], edges[1:-1], edges[2:]
    mels = to_mel(frequencies)
    filters = torch.minimum((mels - lower) / (centre - lower), (upper - mels) / (upper - centre)).clamp_min(0)
    filters[:, 0] = 0
    return filters.float()
