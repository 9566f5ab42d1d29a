"""Metrics of a ranking: area under the ROC curve and average precision, for many weightings at once.

Ties are handled as in the definitions by thresholds: examples of equal score pass a threshold together.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from avex._core.errors import ConfigError

Floats = npt.NDArray[np.floating]


def roc_auc(positive: npt.ArrayLike, scores: npt.ArrayLike, weights: npt.ArrayLike | None = None) -> Floats:
    """Area under the ROC curve: the chance that a positive scores above a negative, ties counted half.

    Args:
        positive: (N,) bool, which examples are positive.
        scores: (N,) higher means more likely positive.
        weights: (B, N) weight of each example, one row per resample; None is one row of ones.

    Returns:
        (B,) values; NaN where there is no positive or no negative.

    Example:
        >>> roc_auc([0, 1, 1], [0.1, 0.9, 0.1]).tolist()
        [0.75]
    """
    ranked = _rank(positive, scores, weights)
    above = np.cumsum(ranked.positive, axis=1) - ranked.positive
    wins = (ranked.negative * (above + ranked.positive / 2)).sum(axis=1)
    pairs = ranked.positive.sum(axis=1) * ranked.negative.sum(axis=1)
    return np.divide(wins, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)


def average_precision(
    positive: npt.ArrayLike, scores: npt.ArrayLike, weights: npt.ArrayLike | None = None
) -> Floats:
    """Average precision: the sum over thresholds of precision times gain in recall, without interpolation.

    Args:
        positive: (N,) bool, which examples are positive.
        scores: (N,) higher means more likely positive.
        weights: (B, N) weight of each example, one row per resample; None is one row of ones.

    Returns:
        (B,) values; NaN where there is no positive.

    Example:
        >>> average_precision([1, 0, 1], [0.9, 0.8, 0.7]).round(4).tolist()
        [0.8333]
    """
    ranked = _rank(positive, scores, weights)
    hits = np.cumsum(ranked.positive, axis=1)
    shown = hits + np.cumsum(ranked.negative, axis=1)
    precision = np.divide(hits, shown, out=np.zeros_like(hits), where=shown > 0)
    total = hits[:, -1]
    gained = (ranked.positive * precision).sum(axis=1)
    return np.divide(gained, total, out=np.full(len(total), np.nan), where=total > 0)


class _Ranked(NamedTuple):
    """Weight of positives and negatives per distinct score, best score first; (B, distinct) each."""

    positive: Floats
    negative: Floats


def _rank(positive: npt.ArrayLike, scores: npt.ArrayLike, weights: npt.ArrayLike | None) -> _Ranked:
    is_positive = np.asarray(positive, dtype=bool)
    values = np.asarray(scores, dtype=np.float64)
    table = np.ones((1, len(values))) if weights is None else np.atleast_2d(np.asarray(weights, np.float64))
    if (
        is_positive.shape != values.shape
        or values.ndim != 1
        or table.shape[1:] != values.shape
        or not len(values)
    ):
        raise ConfigError(
            f"positive {is_positive.shape}, scores {values.shape} and weights {table.shape} do not fit. "
            "Expected (N,), (N,) and (B, N) with N of at least 1."
        )
    if np.isnan(values).any():
        raise ConfigError("Scores hold NaN, so they have no order. Check the model and its input.")
    order = np.argsort(-values, kind="stable")
    ordered, table = values[order], table[:, order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    hits = is_positive[order]
    return _Ranked(
        np.add.reduceat(table * hits, starts, axis=1), np.add.reduceat(table * ~hits, starts, axis=1)
    )
