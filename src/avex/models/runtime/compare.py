"""How far two results of the same network are apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

# Smaller values than this share of the root mean square have no meaningful relative error.
NEAR_ZERO = 1e-3


@dataclass(frozen=True)
class OutputError:
    """Largest differences between an output and what it should be.

    Attributes:
        absolute: max |actual - expected|.
        scaled: The same, divided by the root mean square of the expected values: the measure to judge by.
        relative: max |actual - expected| / |expected|, where |expected| > 1e-3 of the root mean square.
    """

    absolute: float
    scaled: float
    relative: float


def largest_error(expected: Any, actual: Any) -> OutputError:
    """Compare an output with what it should be, in ways that values near zero do not spoil.

    Two programs that compute the same network differ by rounding, which is about equally large for all values of
    an output. Where a value is near zero, the difference is large relative to it and still means nothing; AVES'
    authors warn of that for their ONNX files. `scaled` measures the difference against the size of the whole
    output, `relative` leaves out values near zero.

    Args:
        expected: Numpy array, torch tensor or nested list of numbers.
        actual: The same shape.

    Returns:
        Largest errors, computed in float64; `scaled` is infinite if the expected values are all zero and the
        others are not.

    Raises:
        ValueError: The shapes differ, or there are no values.

    Example:
        >>> largest_error([3.0, 4.0, 0.0], [3.0, 4.0, 1e-6]).relative
        0.0
    """
    wanted, got = _array(expected), _array(actual)
    if wanted.shape != got.shape or wanted.size == 0:
        raise ValueError(
            f"Outputs of shapes {wanted.shape} and {got.shape} cannot be compared: expected equal shapes that hold "
            "values."
        )
    # Equal values count as equal even where they are infinite; whatever else is not finite is an infinite error.
    with np.errstate(invalid="ignore"):
        difference = np.where(wanted == got, 0.0, np.nan_to_num(np.abs(wanted - got), nan=np.inf))
    finite = np.where(np.isfinite(wanted), wanted, 0.0)
    rms = float(np.sqrt(np.mean(finite**2)))
    away = np.abs(finite) > NEAR_ZERO * rms
    largest = float(difference.max())
    return OutputError(
        absolute=largest,
        scaled=largest / rms if rms > 0 else (0.0 if largest == 0 else float("inf")),
        relative=float((difference[away] / np.abs(finite[away])).max()) if away.any() else 0.0,
    )


def _array(values: Any) -> np.ndarray:
    if hasattr(values, "detach"):
        values = values.detach().cpu().double()
    return np.asarray(values, dtype=np.float64)
