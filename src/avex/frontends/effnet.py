"""Front end of networks that see a spectrogram as a picture: EfficientNet's."""

from __future__ import annotations

from torch import Tensor

from avex._core.errors import ConfigError
from avex.configs.audio import AudioConfig
from avex.frontends.base import FrontEnd
from avex.frontends.spectrogram import SpectrogramFrontEnd


class EfficientNetFrontEnd(FrontEnd):
    """A spectrogram as three equal colour channels; no ImageNet statistics.

    Args:
        audio_config: Settings of the spectrogram (`SpectrogramFrontEnd`).

    Raises:
        ConfigError: `representation` is `raw`.

    Example:
        >>> import torch
        >>> from avex.configs import AudioConfig
        >>> front_end = EfficientNetFrontEnd(AudioConfig(n_fft=800, hop_length=160))
        >>> front_end(torch.zeros(1, 80000))[0].shape
        torch.Size([1, 3, 128, 501])
    """

    def __init__(self, audio_config: AudioConfig) -> None:
        if audio_config.representation == "raw":
            raise ConfigError(
                "An image network needs a picture, but the audio config says representation='raw'. "
                "Set it to 'mel_spectrogram' or 'spectrogram'."
            )
        spectrogram = SpectrogramFrontEnd(audio_config)
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
        """(B, 3, F, T), whose channels share memory (copy before writing into them), and a mask (B, T)."""
        image, mask = self.spectrogram.compute(waveform, padding_mask)
        return self.scale(image).unsqueeze(1).expand(-1, 3, -1, -1), mask

    def scale(self, image: Tensor) -> Tensor:
        """The picture (B, F, T) as the network was trained on it: as it is."""
        return image
