"""Checked input of retrieval: vectors of unit length, and labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from avex._core.errors import ConfigError

# Rows that are divided at once: a division in double precision takes memory.
_PIECE = 4096


def unit_vectors(values: Any, name: str) -> npt.NDArray[np.float32]:
    """Vectors (N, D) brought to length 1; zeros stay zeros.

    Raises:
        ConfigError: Another shape, or values that are not finite.
    """
    array = np.asarray(values, np.float32)
    if array.ndim != 2 or not array.size:
        raise ConfigError(f"{name} has shape {array.shape}. Expected (N, D) with at least one row.")
    if not np.isfinite(array).all():
        raise ConfigError(f"{name} holds NaN or infinite values. Check the model and its input.")
    lengths = np.sqrt(np.einsum("ij,ij->i", array, array, dtype=np.float64))
    unit = np.empty_like(array)
    for start in range(0, len(array), _PIECE):
        piece = slice(start, start + _PIECE)
        unit[piece] = array[piece] / np.maximum(lengths[piece], 1e-12)[:, None]
    return unit


def label_array(values: Any, name: str) -> npt.NDArray[Any]:
    """Labels (N,), or (N, C) as bool.

    Raises:
        ConfigError: Another shape, or a table of something else than 0 and 1.
    """
    array = np.asarray(values)
    if array.ndim == 2:
        if not np.isin(array, (0, 1)).all():
            raise ConfigError(f"{name} of shape {array.shape} must be 0 or 1. Expected a column per class.")
        return array.astype(bool)
    if array.ndim != 1:
        raise ConfigError(f"{name} has shape {array.shape}. Expected (N,) classes or (N, C) of 0 and 1.")
    return array


def check_pair(x: npt.NDArray[Any], y: npt.NDArray[Any], name: str) -> None:
    """Check that there is a label for each vector."""
    if len(x) != len(y):
        raise ConfigError(f"There are {len(y)} labels for {len(x)} {name}. Expected one for each.")
