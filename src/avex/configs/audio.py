"""How a model wants its audio."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt


class AudioConfig(BaseModel):
    """Audio settings of a model.

    Attributes:
        sample_rate: Rate at which audio must be delivered to the model, in Hz.
        n_fft: FFT length in samples.
        hop_length: Samples between frames; None means `n_fft // 4`.
        win_length: Samples of the analysis window; None means `n_fft`.
        window: Analysis window (periodic).
        n_mels: Mel bands of a `mel_spectrogram`.
        representation: What the network is fed: `raw` waveform, power `spectrogram` or `mel_spectrogram`.
        normalize: Log compression followed by scaling each clip to [0, 1].
        target_length_seconds: Length of a window in seconds; None for networks of any length.
        window_selection: Which part of a longer clip training takes.
        center: Pad so that frame `t` is centred at sample `t * hop_length`.
        extra_config: Free settings of a custom model.

    Example:
        >>> AudioConfig(sample_rate=32000, representation="raw", target_length_seconds=5).sample_rate
        32000
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    sample_rate: PositiveInt = 16000
    n_fft: PositiveInt = 2048
    hop_length: PositiveInt | None = None
    win_length: PositiveInt | None = None
    window: Literal["hann", "hamming"] = "hann"
    n_mels: PositiveInt = 128
    representation: Literal["spectrogram", "mel_spectrogram", "raw"] = "mel_spectrogram"
    normalize: bool = True
    target_length_seconds: float | None = Field(default=None, gt=0)
    window_selection: Literal["random", "center", "start"] = "random"
    center: bool = True
    extra_config: dict[str, Any] | None = None
