"""Front end of ResNet: EfficientNet's picture, scaled by its brightest point."""

from __future__ import annotations

from torch import Tensor

from avex.configs.audio import AudioConfig
from avex.frontends.base import FrontEnd
from avex.frontends.effnet import as_rgb, picture


class ResNetFrontEnd(FrontEnd):
    """A spectrogram, divided by its largest value in each clip, as three equal colour channels.

    Args:
        audio_config: Settings of the spectrogram (`SpectrogramFrontEnd`).

    Raises:
        ConfigError: `representation` is `raw`.

    Example:
        >>> import torch
        >>> from avex.configs import AudioConfig
        >>> ResNetFrontEnd(AudioConfig(n_fft=800, hop_length=160))(torch.zeros(1, 48000))[0].shape
        torch.Size([1, 3, 128, 301])
    """

    def __init__(self, audio_config: AudioConfig) -> None:
        spectrogram = picture(audio_config)
        super().__init__(
            sample_rate=spectrogram.sample_rate,
            hop_length=spectrogram.hop_length,
            min_samples=spectrogram.min_samples,
        )
        self.spectrogram = spectrogram

    def num_frames(self, num_samples: int) -> int:
        """Frames of a clip of `num_samples`."""
        return self.spectrogram.num_frames(num_samples)

    def compute(self, waveform: Tensor, padding_mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """(B, 3, F, T) and a mask (B, T)."""
        image, mask = self.spectrogram.compute(waveform, padding_mask)
        return as_rgb(image / (image.amax((-2, -1), keepdim=True) + 1e-6)), mask
