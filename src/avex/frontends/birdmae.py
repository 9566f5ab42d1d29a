"""Front end of Bird-MAE."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from avex.frontends.base import FrontEnd
from avex.frontends.kaldi import KaldiFbank
from avex.frontends.masks import frame_padding_mask
from avex.frontends.normalise import standardise


class BirdMaeFrontEnd(FrontEnd):
    """Kaldi filter bank of five seconds at 32 kHz (Bird-MAE, Rauch et al. 2025).

    The clip is padded with zeros or cut, then made mean-free, padding included; frames that are missing hold the
    clip's lowest value. The training code took the lowest value of the batch; here a clip does not depend on
    its neighbours.

    Args:
        norm_mean: Subtracted from the log-mel values.
        norm_std: They are then divided by twice this.
        clip_samples: Samples that are analysed.
        target_length: Frames of the input.
        num_mel_bins: Mel filters.
        sample_rate: Rate of the audio, in Hz.

    Example:
        >>> BirdMaeFrontEnd()(torch.zeros(1, 96000))[0].shape
        torch.Size([1, 512, 128])
    """

    def __init__(
        self,
        norm_mean: float = -7.2,
        norm_std: float = 4.43,
        *,
        clip_samples: int = 160_000,
        target_length: int = 512,
        num_mel_bins: int = 128,
        sample_rate: int = 32_000,
    ) -> None:
        fbank = KaldiFbank(num_mel_bins, sample_rate, window_type="hanning", htk_compat=True)
        super().__init__(sample_rate=sample_rate, hop_length=fbank.hop_length)
        self.fbank = fbank
        self.norm_mean = norm_mean
        self.norm_std = norm_std
        self.clip_samples = clip_samples
        self.target_length = target_length

    def num_frames(self, num_samples: int) -> int:
        """Always `target_length`."""
        return self.target_length

    def compute(self, waveform: Tensor, padding_mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """(B, target_length, mel), and a mask (B, target_length) if one was given."""
        clip = _fit(waveform, self.clip_samples)
        mel = self.fbank(clip - clip.mean(-1, keepdim=True))[:, : self.target_length]
        batch, frames, bins = mel.shape
        lowest = mel.amin((1, 2), keepdim=True).expand(batch, self.target_length - frames, bins)
        mel = standardise(torch.cat([mel, lowest], dim=1), self.norm_mean, self.norm_std)
        if padding_mask is None:
            return mel, None
        samples = _fit(padding_mask, self.clip_samples, value=True)
        mask = frame_padding_mask(samples, self.fbank.frame_samples, self.hop_length)
        return mel, _fit(mask, self.target_length, value=True)


def _fit(values: Tensor, length: int, value: float = 0.0) -> Tensor:
    return F.pad(values[:, :length], (0, max(length - values.shape[1], 0)), value=value)
