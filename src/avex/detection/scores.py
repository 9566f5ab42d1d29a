"""From logits to probabilities, and from probabilities to the (window, class) pairs that count."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from avex._core.errors import ConfigError

_LOGIT_LIMIT = 15.0


def select(
    scores: npt.ArrayLike,
    *,
    min_conf: float,
    top_n: int | None = None,
    allowed: npt.NDArray[np.bool_] | None = None,
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.floating]]:
    """Pick the scores that count as detections.

    A score passes when it is at least `min_conf`, its class is allowed, and it is among the `top_n` of its
    window. NaN never passes. The order is fixed: by window, then descending score, then class.

    Args:
        scores: `(n_windows, n_classes)`, floating point.
        min_conf: Smallest score that passes, compared in the precision of `scores`.
        top_n: At most so many per window; None for all.
        allowed: `(n_classes,)` mask; None for all classes.

    Returns:
        Window index, class index and score, three arrays `(n_detections,)`.

    Raises:
        ConfigError: A shape, type or value is wrong.

    Example:
        >>> windows, classes, _ = select([[0.9, 0.1, 0.5]], min_conf=0.25)
        >>> classes.tolist()
        [0, 2]
    """
    table = np.asarray(scores)
    _check_select(table, min_conf, top_n, allowed)
    passes = table >= float(min_conf)
    if allowed is not None:
        passes &= allowed
    if top_n is not None and top_n < table.shape[1] and np.count_nonzero(passes) > table.size // 8:
        # Sorting nearly everything takes ten times as long as finding the edge of each window first. Ties at the
        # edge stay in and are cut, in order, below.
        kept = np.where(passes, table, -np.inf)
        edge = np.partition(kept, -top_n, axis=1)[:, -top_n, None]
        passes &= table >= edge
    windows, classes = np.nonzero(passes)
    values = table[windows, classes]
    order = np.lexsort((classes, -values, windows))
    windows, classes, values = windows[order], classes[order], values[order]
    if top_n is not None:
        rank = np.arange(len(windows)) - np.searchsorted(windows, windows, side="left")
        keep = rank < top_n
        windows, classes, values = windows[keep], classes[keep], values[keep]
    return windows, classes, values


def _check_select(
    table: npt.NDArray[np.generic], min_conf: float, top_n: int | None, allowed: npt.NDArray[np.bool_] | None
) -> None:
    if table.ndim != 2 or not np.issubdtype(table.dtype, np.floating):
        raise ConfigError(
            f"scores has shape {table.shape} and type {table.dtype}. "
            "Expected (n_windows, n_classes) of floats; add the missing axis or apply the sigmoid first."
        )
    if math.isnan(min_conf):
        raise ConfigError("min_conf is NaN. Expected a number, such as 0.25.")
    if top_n is not None and top_n < 1:
        raise ConfigError(f"top_n is {top_n}. Expected 1 or more, or None for all.")
    if allowed is not None and (allowed.shape != table.shape[1:] or allowed.dtype != np.bool_):
        raise ConfigError(
            f"allowed has shape {allowed.shape} and type {allowed.dtype}. "
            f"Expected a bool mask of the {table.shape[1]} classes."
        )


def sigmoid(logits: npt.ArrayLike, sensitivity: float = 1.0) -> npt.NDArray[np.floating]:
    """Turn logits into independent probabilities, by the convention of BirdNET.

    Logits are clipped to ±15 and multiplied by the slope `2 - sensitivity`. A higher sensitivity gives a flatter
    curve: weak calls (negative logits) score higher, strong ones lower. At 1.0 it is the plain sigmoid.

    Args:
        logits: Any shape; float32 stays float32.
        sensitivity: From 0.5 to 1.5.

    Raises:
        ConfigError: `sensitivity` is outside that range.

    Example:
        >>> float(sigmoid(0.0))
        0.5
    """
    if not 0.5 <= sensitivity <= 1.5:
        raise ConfigError(f"sensitivity is {sensitivity}. Expected 0.5 (strict) to 1.5 (lenient).")
    slope = 2.0 - float(sensitivity)
    clipped = np.clip(_floats(logits), -_LOGIT_LIMIT, _LOGIT_LIMIT)
    # The clip bounds the exponent to ±22.5, so that float32 neither overflows nor rounds to zero.
    return np.asarray(1.0 / (1.0 + np.exp(-slope * clipped)))


def softmax(logits: npt.ArrayLike) -> npt.NDArray[np.floating]:
    """Turn logits into probabilities that sum to one along the last axis.

    Args:
        logits: `(..., n_classes)`; float32 stays float32.

    Example:
        >>> softmax([0.0, 0.0]).tolist()
        [0.5, 0.5]
    """
    values = _floats(logits)
    powers = np.exp(values - values.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def _floats(logits: npt.ArrayLike) -> npt.NDArray[np.floating]:
    values = np.asarray(logits)
    if values.dtype in (np.float32, np.float64):
        return values
    # float16 overflows at exp(11.1); integers have no exp of their own.
    return values.astype(np.float32 if values.dtype == np.float16 else np.float64)
