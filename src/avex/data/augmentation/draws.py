"""Randomness of augmentations: it follows from the seed, the epoch and the clip, whoever computes it."""

from __future__ import annotations

import numpy as np

_BASE = 7919


def clip_generator(seed: int, epoch: int, index: int, step: int) -> np.random.Generator:
    """The generator of one augmentation of one clip in one epoch.

    A clip is changed in the same way whichever process, worker or batch it comes in, and after a restart.

    Args:
        seed: Of the run.
        epoch: From 0.
        index: Number of the clip in its dataset.
        step: Place of the augmentation in its list.

    Example:
        >>> clip_generator(0, 1, 5, 0).random() == clip_generator(0, 1, 5, 0).random()
        True
    """
    return np.random.default_rng((_BASE, seed, epoch, index, step))


def uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """A number between two others; either if they are equal."""
    return float(low + (high - low) * rng.random())


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """A number between two others above 0, each octave as likely as any other."""
    return float(low * (high / low) ** rng.random())
