"""Sizes of the BirdNET v2.4 network."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SpectrogramConfig:
    """One of the two spectrograms that BirdNET looks at.

    Attributes:
        n_fft: Length of the Fourier transform and of its window, in samples.
        hop_length: Samples between frames.
        f_min: Lowest frequency of the mel filters, in Hz.
        f_max: Their highest frequency.
    """

    n_fft: int
    hop_length: int
    f_min: float
    f_max: float


@dataclass(frozen=True)
class StageConfig:
    """A run of blocks at one resolution; the first of them halves both axes.

    Attributes:
        hidden: Channels inside a block.
        channels: Channels between blocks.
        blocks: Number of blocks.
        squeeze: Channels of the squeeze-and-excitation bottleneck, or None for blocks without one.
    """

    hidden: int
    channels: int
    blocks: int
    squeeze: int | None


@dataclass(frozen=True)
class BirdNetConfig:
    """The whole network; the defaults are BirdNET v2.4 as published.

    Attributes:
        sample_rate: Rate of the waveform, in Hz.
        window_samples: Length of the window that the network hears at once.
        num_mels: Rows of each spectrogram.
        spectrograms: The low and the high one; they must have the same number of frames.
        stem_channels: Channels after the first convolution.
        stages: The stages.
        embedding_dim: Length of the embedding.
        num_classes: Species that the published classifier tells apart.

    Example:
        >>> BirdNetConfig().num_frames
        511
    """

    sample_rate: int = 48_000
    window_samples: int = 144_000
    num_mels: int = 96
    spectrograms: tuple[SpectrogramConfig, ...] = (
        SpectrogramConfig(n_fft=2048, hop_length=278, f_min=0, f_max=3_000),
        SpectrogramConfig(n_fft=1024, hop_length=280, f_min=500, f_max=15_000),
    )
    stem_channels: int = 24
    stages: tuple[StageConfig, ...] = (
        StageConfig(hidden=72, channels=36, blocks=3, squeeze=None),
        StageConfig(hidden=288, channels=72, blocks=4, squeeze=18),
        StageConfig(hidden=864, channels=108, blocks=5, squeeze=27),
        StageConfig(hidden=1536, channels=192, blocks=4, squeeze=48),
    )
    embedding_dim: int = 1024
    num_classes: int = 6522

    def __post_init__(self) -> None:
        counts = {self._frames(spectrogram) for spectrogram in self.spectrograms}
        if len(counts) != 1 or min(counts) < 1:
            raise ValueError(
                f"The spectrograms of a window of {self.window_samples} samples have {sorted(counts)} frames; "
                "they need one common number, at least 1. Change n_fft or hop_length."
            )

    @property
    def num_frames(self) -> int:
        """Frames of each spectrogram."""
        return self._frames(self.spectrograms[0])

    def _frames(self, spectrogram: SpectrogramConfig) -> int:
        return (self.window_samples - spectrogram.n_fft) // spectrogram.hop_length + 1
