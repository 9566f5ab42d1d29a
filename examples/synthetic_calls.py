"""Invented calls for the examples that train something: clips of three kinds of whistle in noise."""

from __future__ import annotations

import numpy as np

CLASSES = ("rising", "falling", "trill")


def make_calls(
    count: int, seconds: float, sample_rate: int, seed: int, noise: float = 0.02
) -> tuple[np.ndarray, np.ndarray]:
    """Clips with one call each, which begins anywhere in the clip and is sometimes loud, sometimes faint.

    Args:
        count: Number of clips.
        seconds: Length of a clip; a call takes 0.4 s of it.
        sample_rate: In Hz.
        seed: The same seed gives the same clips.
        noise: Standard deviation of the background.

    Returns:
        Clips (count, samples) float32, and their classes (count,) as indices into `CLASSES`.
    """
    rng = np.random.default_rng(seed)
    kinds = rng.permutation(np.arange(count) % len(CLASSES))
    clips = noise * rng.standard_normal((count, round(seconds * sample_rate)))
    for clip, kind in zip(clips, kinds, strict=True):
        call = _call(CLASSES[kind], sample_rate, rng)
        begin = rng.integers(len(clip) - len(call))
        clip[begin : begin + len(call)] += call
    return clips.astype(np.float32), kinds


def _call(kind: str, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    time = np.arange(round(0.4 * sample_rate)) / sample_rate
    low, high = rng.uniform(2000, 2500), rng.uniform(4500, 5000)
    progress = time / time[-1]
    hertz = {
        "rising": low + (high - low) * progress,
        "falling": high - (high - low) * progress,
        "trill": np.where(np.sin(2 * np.pi * 20 * time) > 0, low, high),
    }[kind]
    fade = np.sin(np.pi * progress)
    return rng.uniform(0.05, 0.3) * fade * np.sin(2 * np.pi * np.cumsum(hertz) / sample_rate)
