"""Fixed sine-cosine positions of the cells of a grid."""

from __future__ import annotations

import torch
from torch import Tensor


def sincos_2d(dim: int, rows: int, columns: int) -> Tensor:
    """Sine-cosine table of a grid, row by row.

    The first half of a vector encodes the column, the second half the row. Each half holds sines and then
    cosines of the index times 10000^(-i / (dim / 4)), for i = 0, 1, ...

    Args:
        dim: Length of a vector; a multiple of 4.
        rows: Rows of the grid.
        columns: Columns of the grid.

    Returns:
        (rows * columns, dim) float32.

    Raises:
        ValueError: `dim` is not a multiple of 4.

    Source:
        He et al. (2022), https://arxiv.org/abs/2111.06377.

    Example:
        >>> sincos_2d(4, rows=1, columns=1)
        tensor([[0., 1., 0., 1.]])
    """
    if dim % 4:
        raise ValueError(f"Sine-cosine positions need a dimension that is a multiple of 4, not {dim}.")
    of_column = _sincos_1d(dim // 2, columns).float().repeat(rows, 1)
    of_row = _sincos_1d(dim // 2, rows).float().repeat_interleave(columns, dim=0)
    return torch.cat([of_column, of_row], dim=1)


def _sincos_1d(dim: int, length: int) -> Tensor:
    # Published tables were made in float32, whose powers differ between machines: their late rows are off by up
    # to 6e-5. Models therefore keep the table of their checkpoint; this exact one is for new models.
    frequencies = 10000.0 ** (-torch.arange(dim // 2, dtype=torch.float64) / (dim / 2))
    angles = torch.arange(length, dtype=torch.float64)[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)
