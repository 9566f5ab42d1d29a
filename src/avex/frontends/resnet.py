"""Front end of ResNet: EfficientNet's picture, scaled by its brightest point."""

from __future__ import annotations

from torch import Tensor

from avex.frontends.effnet import EfficientNetFrontEnd


class ResNetFrontEnd(EfficientNetFrontEnd):
    """A spectrogram, divided by its largest value in each clip, as three equal colour channels.

    Example:
        >>> import torch
        >>> from avex.configs import AudioConfig
        >>> ResNetFrontEnd(AudioConfig(n_fft=800, hop_length=160))(torch.zeros(1, 48000))[0].shape
        torch.Size([1, 3, 128, 301])
    """

    def scale(self, image: Tensor) -> Tensor:
        """The picture (B, F, T), divided by its largest value."""
        return image / (image.amax((-2, -1), keepdim=True) + 1e-6)
