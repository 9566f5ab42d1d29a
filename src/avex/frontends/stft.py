"""Power spectrograms by the short-time Fourier transform, with or without mel filters."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from avex._core.errors import ConfigError
from avex.frontends.base import Constant
from avex.frontends.masks import frame_padding_mask


class PowerSpectrogram(nn.Module):
    """|STFT|^2 with a periodic window, optionally summed by a filter bank.

    Args:
        n_fft: FFT length.
        hop_length: Samples from one frame to the next.
        win_length: Samples of the window, at most `n_fft`; a shorter one sits in the middle of a frame.
        window: `hann` or `hamming`.
        center: Mirror the edges so that frame `t` is centred at sample `t * hop_length`.
        filters: (bands, n_fft // 2 + 1) filter bank, or None for all bins.

    Raises:
        ConfigError: A window longer than the FFT, or an unknown one.

    Example:
        >>> PowerSpectrogram(512, 160, 400)(torch.zeros(2, 16000)).shape
        torch.Size([2, 257, 101])
    """

    def __init__(
        self,
        n_fft: int,
        hop_length: int,
        win_length: int,
        *,
        window: Literal["hann", "hamming"] = "hann",
        center: bool = True,
        filters: Tensor | None = None,
    ) -> None:
        super().__init__()
        windows = {"hann": torch.hann_window, "hamming": torch.hamming_window}
        if window not in windows:
            raise ConfigError(f"Unknown window '{window}'. Choose hann or hamming.")
        if win_length > n_fft:
            raise ConfigError(
                f"win_length {win_length} is longer than n_fft {n_fft}: a window must fit its FFT."
            )
        self.n_fft = n_fft
        self.hop_length = hop_length
        self.win_length = win_length
        self.center = center
        self.window = Constant(windows[window](win_length, periodic=True, dtype=torch.float32, device="cpu"))
        self.filters = None if filters is None else Constant(filters)

    @property
    def min_samples(self) -> int:
        """Fewest samples a clip may have: mirroring needs more than half a frame."""
        return self.n_fft // 2 + 1 if self.center else self.n_fft

    def num_frames(self, num_samples: int) -> int:
        """Frames of a clip; 0 if it is too short."""
        if num_samples < self.min_samples:
            return 0
        padded = num_samples + 2 * (self.n_fft // 2) if self.center else num_samples
        return 1 + (padded - self.n_fft) // self.hop_length

    def frame_mask(self, padding_mask: Tensor | None) -> Tensor | None:
        """Mask (B, T) of the frames whose whole window lies in padding, from one of samples (B, S)."""
        if padding_mask is None:
            return None
        before = (self.n_fft - self.win_length) // 2
        if self.center:
            # Beyond the clip there is nothing: neither side may keep a frame of padding alive.
            edge = self.n_fft // 2
            padding_mask = nn.functional.pad(padding_mask, (edge, edge), value=True)
        after = self.n_fft - self.win_length - before
        within = padding_mask[:, before : padding_mask.shape[1] - after]
        return frame_padding_mask(within, self.win_length, self.hop_length)

    def forward(self, waveform: Tensor) -> Tensor:
        """Power (B, n_fft // 2 + 1 | bands, T) of waveforms (B, S), both float32."""
        spectrum = torch.stft(
            waveform,
            self.n_fft,
            self.hop_length,
            self.win_length,
            window=self.window.value,
            center=self.center,
            pad_mode="reflect",
            return_complex=True,
        )
        power = spectrum.real.square() + spectrum.imag.square()
        return power if self.filters is None else torch.matmul(self.filters.value, power)
