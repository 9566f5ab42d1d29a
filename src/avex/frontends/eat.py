"""Front end of EAT."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from avex.frontends.base import FrontEnd
from avex.frontends.kaldi import KaldiFbank
from avex.frontends.masks import frame_padding_mask
from avex.frontends.normalise import standardise


class EatFrontEnd(FrontEnd):
    """Kaldi filter bank of the mean-free clip, in a fixed number of frames (EAT, Chen et al. 2024).

    Frames are added as zeros before normalisation, so that they hold `-norm_mean / (2 * norm_std)`: the published
    networks were trained with it.

    Args:
        norm_mean: Subtracted from the log-mel values: -4.268 for AudioSet, -5.553 for the ESP encoders.
        norm_std: They are then divided by twice this: 4.569 or 4.606.
        target_length: Frames of the input; longer clips are cut.
        num_mel_bins: Mel filters.
        sample_rate: Rate of the audio, in Hz.
        mask_padding: Treat padding as if it were not there, and return a mask. A padded clip then gives what
            it gives alone. Off, as in the published front end, masks are not used and none is returned.

    Example:
        >>> import torch
        >>> EatFrontEnd(-5.553, 4.606)(torch.zeros(1, 80000))[0].shape
        torch.Size([1, 1024, 128])
    """

    def __init__(
        self,
        norm_mean: float = -4.268,
        norm_std: float = 4.569,
        *,
        target_length: int = 1024,
        num_mel_bins: int = 128,
        sample_rate: int = 16000,
        mask_padding: bool = False,
    ) -> None:
        fbank = KaldiFbank(num_mel_bins, sample_rate, window_type="hanning", htk_compat=True)
        super().__init__(sample_rate=sample_rate, hop_length=fbank.hop_length, min_samples=fbank.min_samples)
        self.fbank = fbank
        self.norm_mean = norm_mean
        self.norm_std = norm_std
        self.target_length = target_length
        self.mask_padding = mask_padding

    def num_frames(self, num_samples: int) -> int:
        """Always `target_length`."""
        return self.target_length

    def compute(self, waveform: Tensor, padding_mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """(B, target_length, mel), and with `mask_padding` a mask (B, target_length)."""
        if not self.mask_padding:
            padding_mask = None
        # Samples behind the last frame matter to the mean of the clip, not to the filter bank.
        used = self.fbank.frame_samples + (self.target_length - 1) * self.hop_length
        mel = self.fbank(_mean_free(waveform, padding_mask)[:, :used])
        missing = self.target_length - mel.shape[1]
        mask = None
        if padding_mask is not None:
            mask = frame_padding_mask(
                padding_mask[:, :used], self.fbank.frame_samples, self.hop_length, rule="any"
            )
            mel = mel.masked_fill(mask.unsqueeze(-1), 0.0)
        elif self.mask_padding:
            mask = mel.new_zeros(mel.shape[:2]).bool()
        mel = standardise(F.pad(mel, (0, 0, 0, missing)), self.norm_mean, self.norm_std)
        return mel, None if mask is None else F.pad(mask, (0, missing), value=True)


def _mean_free(waveform: Tensor, padding_mask: Tensor | None) -> Tensor:
    if padding_mask is None:
        return waveform - waveform.mean(-1, keepdim=True)
    samples = (~padding_mask).sum(-1, keepdim=True).clamp(min=1)
    return waveform - waveform.masked_fill(padding_mask, 0.0).sum(-1, keepdim=True) / samples
