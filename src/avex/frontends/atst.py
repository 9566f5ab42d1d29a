"""Front end of ATST-Frame."""

from __future__ import annotations

from torch import Tensor

from avex.frontends.base import FrontEnd
from avex.frontends.mel import htk_mel_filters
from avex.frontends.stft import PowerSpectrogram

TOP_DB = 80.0


class AtstFrontEnd(FrontEnd):
    """Mel spectrogram in decibels, 80 dB deep in each clip, on a fixed scale (ATST-Frame, Li et al. 2024).

    Args:
        db_min: Decibels that map to -1.
        db_max: Decibels that map to 1.
        n_mels: Mel filters.
        f_min: Lower edge of the first filter, Hz.
        f_max: Upper edge of the last filter, Hz.
        n_fft: Samples of FFT and window.
        hop_length: Samples from one frame to the next.
        sample_rate: Rate of the audio, in Hz.

    Example:
        >>> import torch
        >>> AtstFrontEnd()(torch.zeros(1, 80000))[0].shape
        torch.Size([1, 64, 501])
    """

    def __init__(
        self,
        db_min: float = -79.6482,
        db_max: float = 50.6842,
        *,
        n_mels: int = 64,
        f_min: float = 60.0,
        f_max: float = 7800.0,
        n_fft: int = 1024,
        hop_length: int = 160,
        sample_rate: int = 16000,
    ) -> None:
        filters = htk_mel_filters(n_mels, n_fft, sample_rate, f_min, f_max)
        power = PowerSpectrogram(n_fft, hop_length, n_fft, filters=filters)
        super().__init__(sample_rate=sample_rate, hop_length=hop_length, min_samples=power.min_samples)
        self.power = power
        self.db_min = db_min
        self.db_max = db_max

    def num_frames(self, num_samples: int) -> int:
        """Frames of a clip of `num_samples`."""
        return self.power.num_frames(num_samples)

    def compute(self, waveform: Tensor, padding_mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """(B, mel, T) and a mask (B, T)."""
        decibels = 10.0 * self.power(waveform).clamp(min=1e-10).log10()
        floor = decibels.amax((1, 2), keepdim=True) - TOP_DB
        scaled = (decibels.maximum(floor) - self.db_min) / (self.db_max - self.db_min) * 2.0 - 1.0
        return scaled, self.power.frame_mask(padding_mask)
