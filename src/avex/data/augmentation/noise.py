"""Noise recordings to mix into clips, read by the workers that read the clips."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from avex._core.errors import ConfigError
from avex.audio import info, read
from avex.audio.suffixes import AUDIO_SUFFIXES
from avex.configs.augmentation import NoiseAugment
from avex.data.augmentation.draws import clip_generator, uniform


@dataclass(frozen=True, eq=False)
class NoiseDraw:
    """Noise for one clip.

    Attributes:
        samples: (S,) float32, as long as the clip.
        snr_db: Signal-to-noise ratio to reach, dB; infinite for no noise.
        alone: Whether the clip becomes noise alone.
    """

    samples: npt.NDArray[np.float32]
    snr_db: float
    alone: bool


class NoiseBatch(TypedDict):
    """Noise for the clips of a batch: as `NoiseDraw`, with rows.

    `samples` (B, S) float32, `snr_db` (B,) float32, `alone` (B,) bool.
    """

    samples: Tensor
    snr_db: Tensor
    alone: Tensor


def stack_noise(draws: Sequence[NoiseDraw], length: int) -> NoiseBatch:
    """Put noise for single clips into a batch; what is shorter than `length` samples ends in silence.

    Example:
        >>> draw = NoiseDraw(np.ones(2, np.float32), 10.0, alone=False)
        >>> stack_noise([draw], 3)["samples"].tolist()
        [[1.0, 1.0, 0.0]]
    """
    samples = torch.zeros(len(draws), length)
    for row, draw in enumerate(draws):
        samples[row, : len(draw.samples)] = torch.from_numpy(draw.samples)
    return NoiseBatch(
        samples=samples,
        snr_db=torch.tensor([draw.snr_db for draw in draws]),
        alone=torch.tensor([draw.alone for draw in draws]),
    )


class NoisePool:
    """Recordings of noise, of which random stretches are read.

    Args:
        config: Folders and probabilities.
        sample_rate: Rate of the clips, Hz.
        seed: Of the run.
        step: Place of the augmentation in its list.

    Raises:
        ConfigError: A folder is missing, or there are no recordings.

    Example:
        >>> config = NoiseAugment(noise_dirs=["noise"], snr_db_range=(-5, 20), augmentation_prob=0.5)
        >>> NoisePool(config, 16000, seed=0, step=0).draw(epoch=0, index=3, length=16000)   # doctest: +SKIP
    """

    def __init__(self, config: NoiseAugment, sample_rate: int, seed: int, step: int) -> None:
        self.config = config
        self.sample_rate = sample_rate
        self.seed = seed
        self.step = step
        self.files = find_noise(config.noise_dirs)

    def draw(self, epoch: int, index: int, length: int) -> NoiseDraw:
        """Noise for a clip of `length` samples, or silence where chance decides against it.

        Raises:
            AudioError: The recording cannot be read.
        """
        rng = clip_generator(self.seed, epoch, index, self.step)
        if rng.random() >= self.config.augmentation_prob:
            return NoiseDraw(np.zeros(length, np.float32), float("inf"), alone=False)
        alone = bool(rng.random() < self.config.mask_signal_prob)
        snr = uniform(rng, *self.config.snr_db_range)
        path = self.files[int(rng.integers(len(self.files)))]
        return NoiseDraw(self._stretch(path, length, rng), snr, alone)

    def _stretch(self, path: Path, length: int, rng: np.random.Generator) -> npt.NDArray[np.float32]:
        seconds = length / self.sample_rate
        spare = max(0.0, info(path).duration_s - seconds)
        start = uniform(rng, 0.0, spare)
        samples, _ = read(
            path, start_s=start, end_s=start + seconds, channel="mean", sample_rate=self.sample_rate
        )
        if len(samples) == 0:
            raise ConfigError(f"Noise recording '{path}' holds no samples. Remove it from noise_dirs.")
        # Short noise is repeated: a fade to silence would be heard as an event.
        return np.resize(samples.astype(np.float32), length)


def find_noise(folders: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """Recordings in folders and below them, sorted.

    Raises:
        ConfigError: A folder is missing or holds no recordings.
    """
    files: list[Path] = []
    for name in folders:
        folder = Path(name).expanduser()
        if not folder.is_dir():
            raise ConfigError(f"There is no folder of noise at '{folder}'. Correct noise_dirs.")
        found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES)
        if not found:
            raise ConfigError(f"Folder '{folder}' of noise_dirs holds no recordings.")
        files += found
    return files
