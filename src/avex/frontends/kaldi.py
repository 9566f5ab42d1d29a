"""Kaldi's log-mel filter bank, batched and differentiable."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from avex._core.errors import ConfigError
from avex.frontends.base import Constant, check_waveform
from avex.frontends.mel import kaldi_mel_banks
from avex.nn.autocast import autocast_disabled

WindowType = Literal["povey", "hanning", "hamming", "blackman", "rectangular"]

EPSILON = torch.finfo(torch.float32).eps  # floor of energies before the logarithm, as in Kaldi


class KaldiFbank(nn.Module):
    """Log-mel filter bank features as Kaldi computes them (`compute-fbank-feats`, without dither and VTLN).

    Equal, rounding included, to `torchaudio.compliance.kaldi.fbank(dither=0)`, for a whole batch at once. The order
    of the operations is part of that. DC removal, pre-emphasis and window are linear and could be folded into
    one matrix with the Fourier transform; it was measured to take twice as long on a CPU, to move log-mel values of
    near-silent bins by up to 4e-3, and on a GPU it would be open to TF32.

    Args:
        num_mel_bins: Mel filters.
        sample_frequency: Rate that the analysis assumes, in Hz.
        frame_length: Milliseconds of a frame.
        frame_shift: Milliseconds from one frame to the next.
        window_type: `povey` is `hanning` to the power of 0.85; all are symmetric.
        preemphasis: Coefficient of the first-difference filter, applied within each frame; 0 for none.
        remove_dc_offset: Subtract each frame's mean.
        use_power: Power spectrum; False for magnitudes.
        use_energy: Add a column with the log energy of each frame before pre-emphasis (at least 0, Kaldi's floor).
        htk_compat: That column comes last instead of first.
        snip_edges: Only frames that lie within the clip; False: frames centred on multiples of the shift,
            the edges mirrored.
        round_to_power_of_two: FFT length is the next power of two; False: the frame length.
        low_freq: Lower edge of the first filter, Hz.
        high_freq: Upper edge of the last filter, Hz; zero or less counts from Nyquist.
        subtract_mean: Subtract each column's mean over the clip.

    Attributes:
        frame_samples: Samples of a frame.
        hop_length: Samples from one frame to the next.
        n_fft: FFT length.

    Raises:
        ConfigError: Settings that contradict each other.

    Example:
        >>> KaldiFbank(num_mel_bins=128, window_type="hanning")(torch.zeros(2, 16000)).shape
        torch.Size([2, 98, 128])
    """

    def __init__(
        self,
        num_mel_bins: int = 23,
        sample_frequency: float = 16000.0,
        frame_length: float = 25.0,
        frame_shift: float = 10.0,
        *,
        window_type: WindowType = "povey",
        preemphasis: float = 0.97,
        remove_dc_offset: bool = True,
        use_power: bool = True,
        use_energy: bool = False,
        htk_compat: bool = False,
        snip_edges: bool = True,
        round_to_power_of_two: bool = True,
        low_freq: float = 20.0,
        high_freq: float = 0.0,
        subtract_mean: bool = False,
    ) -> None:
        super().__init__()
        self.num_mel_bins = num_mel_bins
        self.sample_frequency = sample_frequency
        # Truncated, not rounded: at 22050 Hz a shift of 10 ms is 220 samples.
        self.frame_samples = int(sample_frequency * frame_length * 0.001)
        self.hop_length = int(sample_frequency * frame_shift * 0.001)
        self.window_type = window_type
        self.preemphasis = preemphasis
        self.remove_dc_offset = remove_dc_offset
        self.use_power = use_power
        self.use_energy = use_energy
        self.htk_compat = htk_compat
        self.snip_edges = snip_edges
        self.subtract_mean = subtract_mean
        self._check_frames(preemphasis)
        rounded = 1 << (self.frame_samples - 1).bit_length()
        self.n_fft = rounded if round_to_power_of_two else self.frame_samples
        if self.n_fft % 2:
            raise ConfigError(
                f"The FFT length must be even, not {self.n_fft}: set round_to_power_of_two=True."
            )
        banks = kaldi_mel_banks(num_mel_bins, self.n_fft, sample_frequency, low_freq, high_freq)
        self.window = Constant(kaldi_window(window_type, self.frame_samples))
        self.mel = Constant(banks.T.contiguous())

    def _check_frames(self, preemphasis: float) -> None:
        if self.frame_samples < 2 or self.hop_length < 1:
            raise ConfigError(
                f"Frames of {self.frame_samples} samples every {self.hop_length} samples cannot be analysed: "
                "lengths are in milliseconds, at least 2 samples and 1 sample are needed."
            )
        if not 0 <= preemphasis <= 1:
            raise ConfigError(f"preemphasis must lie in [0, 1], not {preemphasis}.")

    @property
    def min_samples(self) -> int:
        """Fewest samples a clip may have."""
        if self.snip_edges:
            return self.frame_samples
        return max(self.frame_samples, self.hop_length - self.hop_length // 2)

    def num_frames(self, num_samples: int) -> int:
        """Frames of a clip; 0 if it is too short."""
        if num_samples < self.min_samples:
            return 0
        if self.snip_edges:
            return 1 + (num_samples - self.frame_samples) // self.hop_length
        return (num_samples + self.hop_length // 2) // self.hop_length

    def forward(self, waveform: Tensor) -> Tensor:
        """Compute the features.

        Args:
            waveform: (B, S) floating point; computed in float32, whatever autocast says.

        Returns:
            (B, frames, num_mel_bins), one column more with `use_energy`, float32, natural logarithm.

        Raises:
            ValueError: Not (B, S), or shorter than one frame.
            TypeError: Not floating point.
        """
        check_waveform(waveform, self.min_samples)
        with autocast_disabled(waveform.device):
            frames = self._frames(waveform.float())
            if self.remove_dc_offset:
                frames = frames - frames.mean(-1, keepdim=True)
            mel = torch.matmul(self._spectrum(self._emphasised(frames)), self.mel.value)
            features = mel.clamp(min=EPSILON).log()
            if self.use_energy:
                columns = [_log_energy(frames), features]
                features = torch.cat(columns[::-1] if self.htk_compat else columns, dim=-1)
            return features - features.mean(-2, keepdim=True) if self.subtract_mean else features

    def _frames(self, waveform: Tensor) -> Tensor:
        if not self.snip_edges:
            waveform = self._mirrored(waveform)
        return waveform.unfold(-1, self.frame_samples, self.hop_length)

    def _mirrored(self, waveform: Tensor) -> Tensor:
        samples = waveform.shape[-1]
        before = self.frame_samples // 2 - self.hop_length // 2
        end = (self.num_frames(samples) - 1) * self.hop_length + self.frame_samples - before
        after = waveform[:, samples - max(end - samples, 0) :].flip(-1)
        if before < 0:  # the shift is longer than a frame: the first frame starts inside the clip
            return torch.cat([waveform[:, -before:], after], dim=-1)
        return torch.cat([waveform[:, :before].flip(-1), waveform, after], dim=-1)

    def _emphasised(self, frames: Tensor) -> Tensor:
        if self.preemphasis:
            # The sample before a frame's first is taken to equal it.
            previous = torch.cat([frames[..., :1], frames[..., :-1]], dim=-1)
            frames = frames - self.preemphasis * previous
        return frames * self.window.value

    def _spectrum(self, frames: Tensor) -> Tensor:
        spectrum = torch.fft.rfft(frames, n=self.n_fft)
        if self.use_power:
            return spectrum.real.square() + spectrum.imag.square()
        return spectrum.abs()

    def extra_repr(self) -> str:
        """Show the main settings in `repr`."""
        return (
            f"num_mel_bins={self.num_mel_bins}, sample_frequency={self.sample_frequency:g}, "
            f"frame_samples={self.frame_samples}, hop_length={self.hop_length}, window_type='{self.window_type}'"
        )


def kaldi_window(window_type: WindowType, length: int) -> Tensor:
    """Symmetric analysis window of `length` samples, float32.

    Raises:
        ConfigError: Unknown window.

    Example:
        >>> kaldi_window("hanning", 3)
        tensor([0., 1., 0.])
    """
    if window_type not in get_args(WindowType):
        raise ConfigError(
            f"Unknown window '{window_type}'. Choose one of: {', '.join(get_args(WindowType))}."
        )
    if window_type == "rectangular":
        return torch.ones(length, dtype=torch.float32, device="cpu")
    if window_type == "blackman":
        angle = 2 * math.pi / (length - 1) * torch.arange(length, dtype=torch.float32, device="cpu")
        return 0.42 - 0.5 * angle.cos() + 0.08 * (2 * angle).cos()
    make = torch.hamming_window if window_type == "hamming" else torch.hann_window
    window = make(length, periodic=False, dtype=torch.float32, device="cpu")
    return window.pow(0.85) if window_type == "povey" else window


def _log_energy(frames: Tensor) -> Tensor:
    # Kaldi's energy floor of 1.0: the logarithm is never negative.
    return frames.square().sum(-1, keepdim=True).clamp(min=1.0).log()
