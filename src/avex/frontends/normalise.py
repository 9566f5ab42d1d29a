"""Normalisations that several families share."""

from __future__ import annotations

from torch import Tensor


def standardise(values: Tensor, mean: float, std: float) -> Tensor:
    """`(values - mean) / (2 * std)`: the audio transformers scale to half a standard deviation.

    Example:
        >>> import torch
        >>> standardise(torch.tensor([3.0]), mean=1.0, std=0.5)
        tensor([2.])
    """
    return (values - mean) / (2 * std)


def log_min_max(power: Tensor) -> Tensor:
    """Natural logarithm, then each clip scaled to [0, 1] over its last two axes.

    Args:
        power: (B, F, T), not negative.

    Returns:
        (B, F, T). Silence gives zeros.
    """
    log = (power + 1e-6).log()
    low, high = log.amin((-2, -1), keepdim=True), log.amax((-2, -1), keepdim=True)
    return (log - low) / (high - low + 1e-8)
