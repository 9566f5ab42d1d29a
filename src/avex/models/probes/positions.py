"""Positions that probes add to a sequence."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

DEFAULT_STEPS = 1000


def learned_positions(dim: int, max_steps: int | None = None) -> nn.Parameter:
    """A table of positions to be trained, (1, `max_steps` or 1000, dim), at random."""
    return nn.Parameter(torch.randn(1, max_steps or DEFAULT_STEPS, dim))


def add_learned(x: Tensor, table: Tensor) -> Tensor:
    """Add learned positions (1, steps, D) to (B, N, D).

    Raises:
        ValueError: The sequence is longer than the table: there is nothing to say where its end is.
    """
    if x.shape[1] > table.shape[1]:
        raise ValueError(
            f"A sequence of {x.shape[1]} steps is longer than the probe's learned positions "
            f"({table.shape[1]}). Build it with max_sequence_length={x.shape[1]} or more, or with "
            "use_positional_encoding=False."
        )
    return x + table[:, : x.shape[1]]


def sinusoids(steps: int, dim: int) -> Tensor:
    """The sine and cosine table (1, steps, dim) of Vaswani et al. (2017), https://arxiv.org/abs/1706.03762.

    Example:
        >>> sinusoids(1, 4)
        tensor([[[0., 1., 0., 1.]]])
    """
    angles = torch.arange(steps, dtype=torch.float32).unsqueeze(1) * torch.exp(
        torch.arange(0, dim, 2, dtype=torch.float32) * (-math.log(10000.0) / dim)
    )
    table = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)
    return table[:, :dim].unsqueeze(0).contiguous()
