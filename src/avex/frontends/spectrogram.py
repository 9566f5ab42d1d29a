"""The front end that an `AudioConfig` describes."""

from __future__ import annotations

from torch import Tensor

from avex.configs.audio import AudioConfig
from avex.frontends.base import FrontEnd
from avex.frontends.mel import htk_mel_filters
from avex.frontends.normalise import log_min_max
from avex.frontends.stft import PowerSpectrogram


class SpectrogramFrontEnd(FrontEnd):
    """Waveform, power spectrogram or mel spectrogram, as an `AudioConfig` says.

    - `raw`: the waveform itself; `normalize` has no effect.
    - `spectrogram`: |STFT|^2.
    - `mel_spectrogram`: the same, summed by HTK mel filters from 0 Hz to Nyquist.

    `normalize` takes the logarithm of the last two and scales each clip to [0, 1]. The scale is that of the whole
    clip, padding included: the published networks were trained that way.

    Args:
        audio_config: The settings.

    Example:
        >>> import torch
        >>> from avex.configs import AudioConfig
        >>> front_end = SpectrogramFrontEnd(AudioConfig(n_fft=800, hop_length=160))
        >>> front_end(torch.zeros(1, 16000))[0].shape
        torch.Size([1, 128, 101])
    """

    def __init__(self, audio_config: AudioConfig) -> None:
        power = _power_spectrogram(audio_config)
        super().__init__(
            sample_rate=audio_config.sample_rate,
            hop_length=1 if power is None else power.hop_length,
            min_samples=1 if power is None else power.min_samples,
        )
        self.normalize = audio_config.normalize
        self.power = power

    def num_frames(self, num_samples: int) -> int:
        """Frames of a clip; for `raw`, samples."""
        return num_samples if self.power is None else self.power.num_frames(num_samples)

    def compute(self, waveform: Tensor, padding_mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """(B, F, T) and a mask (B, T); for `raw` the waveform (B, S) and its own mask."""
        if self.power is None:
            return waveform, padding_mask
        values = self.power(waveform)
        return log_min_max(values) if self.normalize else values, self.power.frame_mask(padding_mask)


def _power_spectrogram(config: AudioConfig) -> PowerSpectrogram | None:
    if config.representation == "raw":
        return None
    filters = None
    if config.representation == "mel_spectrogram":
        filters = htk_mel_filters(
            config.n_mels, config.n_fft, config.sample_rate, 0.0, config.sample_rate / 2
        )
    return PowerSpectrogram(
        config.n_fft,
        # At least one sample, so that an FFT of fewer than four moves on.
        config.hop_length or max(config.n_fft // 4, 1),
        config.win_length or config.n_fft,
        window=config.window,
        center=config.center,
        filters=filters,
    )
