"""Front end of BEATs."""

from __future__ import annotations

from torch import Tensor

from avex.frontends.base import FrontEnd
from avex.frontends.kaldi import KaldiFbank
from avex.frontends.masks import group_padding_mask
from avex.frontends.normalise import standardise

INT16_SCALE = 2**15  # BEATs was trained on sample values of 16-bit files


class BeatsFrontEnd(FrontEnd):
    """Kaldi filter bank of 16-bit sample values, scaled by the statistics of AudioSet (BEATs, Chen et al. 2023).

    Args:
        sample_rate: Rate at which audio must be delivered, in Hz. One published encoder is fed 32 kHz audio while
            its filter bank stays set for 16 kHz: its frames come twice as fast.
        sample_frequency: Rate that the filter bank assumes, in Hz.
        num_mel_bins: Mel filters.
        frame_length: Milliseconds of a frame, at `sample_frequency`.
        frame_shift: Milliseconds between frames, at `sample_frequency`.
        fbank_mean: Subtracted from the log-mel values.
        fbank_std: They are then divided by twice this.
        clamp: First limit the waveform to [-1, 1], as NatureLM-audio does.

    Example:
        >>> import torch
        >>> BeatsFrontEnd()(torch.zeros(1, 160000))[0].shape
        torch.Size([1, 998, 128])
    """

    def __init__(
        self,
        sample_rate: int = 16000,
        sample_frequency: float = 16000.0,
        *,
        num_mel_bins: int = 128,
        frame_length: float = 25.0,
        frame_shift: float = 10.0,
        fbank_mean: float = 15.41663,
        fbank_std: float = 6.55582,
        clamp: bool = False,
    ) -> None:
        fbank = KaldiFbank(num_mel_bins, sample_frequency, frame_length, frame_shift, window_type="povey")
        super().__init__(sample_rate=sample_rate, hop_length=fbank.hop_length, min_samples=fbank.min_samples)
        self.fbank = fbank
        self.fbank_mean = fbank_mean
        self.fbank_std = fbank_std
        self.clamp = clamp

    def num_frames(self, num_samples: int) -> int:
        """Frames that lie within a clip of `num_samples`."""
        return self.fbank.num_frames(num_samples)

    def compute(self, waveform: Tensor, padding_mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """(B, frames, mel) and a mask (B, frames) in equal groups of samples, as BEATs does it."""
        if self.clamp:
            waveform = waveform.clamp(-1.0, 1.0)
        fbank = standardise(self.fbank(waveform * INT16_SCALE), self.fbank_mean, self.fbank_std)
        if padding_mask is None:
            return fbank, None
        return fbank, group_padding_mask(padding_mask, fbank.shape[1])
