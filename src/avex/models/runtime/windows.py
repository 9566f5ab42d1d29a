"""Longer audio through networks that hear a fixed window, and features that come with their logits."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from avex._core.errors import ConfigError
from avex.frontends.base import check_tensor, check_waveform
from avex.models.features import Aggregation, Features, TokenLayout


@dataclass(frozen=True)
class ScoredFeatures(Features):
    """Features from a graph that computed the logits of its own classifier in the same pass.

    Attributes:
        logits: (B, classes), the mean over windows.
    """

    logits: Tensor | None = None


def cut_windows(x: Tensor, size: int, model: str) -> Tensor:
    """Cut (B, S) into consecutive windows (B, windows, size), the last one zero-padded.

    Raises:
        ConfigError: (a `ValueError`) Another shape, or no samples.
        TypeError: No tensor, or not floating point.

    Example:
        >>> cut_windows(torch.ones(2, 5), 4, "Perch").shape
        torch.Size([2, 2, 4])
    """
    check_tensor(x)
    if x.ndim != 2 or x.numel() == 0:
        raise ConfigError(
            f"{model} takes waveforms (batch, samples) that hold samples, not {tuple(x.shape)}."
        )
    check_waveform(x)
    return nn.functional.pad(x, (0, -x.shape[1] % size)).unflatten(1, (-1, size))


def window_features(embedding: Tensor, seconds: float, logits: Tensor | None = None) -> Features:
    """Features of embeddings (B, windows, C): (B, C) if there is one window, else one token per window.

    Args:
        embedding: The embeddings.
        seconds: Length of a window.
        logits: (B, windows, classes) of a graph's own classifier.
    """
    single = embedding.shape[1] == 1
    layout = TokenLayout("vector" if single else "tokens", frame_rate=1 / seconds)
    values = embedding[:, 0] if single else embedding
    return (
        Features(values, layout) if logits is None else ScoredFeatures(values, layout, logits=logits.mean(1))
    )


def join_windows(values: Tensor, batch: int, aggregation: Aggregation) -> Tensor:
    """Put the results of windows (B * windows, ...) together clip by clip, as `aggregation` says.

    Unpooled vectors become (B, windows, C), unpooled maps (B, C, F, T) continue along time.

    Example:
        >>> join_windows(torch.ones(6, 8), 2, "mean").shape
        torch.Size([2, 8])
    """
    values = values.unflatten(0, (batch, -1))
    if aggregation == "mean":
        return values.mean(1)
    if aggregation == "max":
        return values.amax(1)
    return values if values.ndim == 3 else values.movedim(1, -2).flatten(-2)


def join_features(features: Features, batch: int, seconds: float) -> Features:
    """Put the features of windows (B * windows, ...) together clip by clip, one after the other in time.

    Args:
        features: Vectors or maps of the windows.
        batch: Clips.
        seconds: Length of a window.

    Returns:
        Vectors as tokens (B, windows, C), one per window; maps (B, C, F, T) continue along time.
    """
    values = features.values.unflatten(0, (batch, -1))
    if values.ndim == 3:
        return Features(values, TokenLayout("tokens", frame_rate=1 / seconds))
    return replace(features, values=values.movedim(1, -2).flatten(-2))


def run_on_cpu(x: Tensor) -> torch.Tensor:
    """A waveform as contiguous float32 in main memory, for runtimes outside torch."""
    return x.detach().to("cpu", torch.float32).contiguous()
