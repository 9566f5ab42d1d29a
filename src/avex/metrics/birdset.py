"""The metrics of the BirdSet benchmark (Rauch et al., 2024): cmAP, AUROC and T1-Acc.

cmAP and AUROC are means over classes, so that a rare species counts as much as a common one; classes that a test
part cannot judge (no positives; for AUROC also no negatives) are left out. T1-Acc asks whether the highest score
belongs to one of the species that are present; segments without any are left out.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from avex._core.errors import ConfigError
from avex.metrics.beans import class_average_precision, mean_of_known
from avex.metrics.ranking import roc_auc


def cmap(
    targets: npt.ArrayLike,
    scores: npt.ArrayLike,
    weights: npt.ArrayLike | None = None,
    *,
    min_positives: int = 1,
) -> npt.NDArray[np.float64]:
    """Class-wise mean average precision.

    Args:
        targets: (N, C) 0/1.
        scores: (N, C), higher means more likely.
        weights: (B, N) weight of each example; None is one row of ones.
        min_positives: Classes with fewer positives are left out (5 for the variant called cmAP5).

    Returns:
        (B,) values.

    Raises:
        ConfigError: Shapes do not fit.

    Example:
        >>> float(cmap([[1, 0], [0, 1]], [[0.9, 0.1], [0.2, 0.8]])[0])
        1.0
    """
    values = class_average_precision(targets, scores, weights)
    rare = np.asarray(targets).astype(bool).sum(0) < min_positives
    return mean_of_known(np.where(rare, np.nan, values))


def auroc(
    targets: npt.ArrayLike, scores: npt.ArrayLike, weights: npt.ArrayLike | None = None
) -> npt.NDArray[np.float64]:
    """Mean over classes of the area under the ROC curve.

    Args:
        targets: (N, C) 0/1.
        scores: (N, C), higher means more likely.
        weights: (B, N) weight of each example; None is one row of ones.

    Returns:
        (B,) values.

    Example:
        >>> float(auroc([[1], [0], [1]], [[0.9], [0.9], [0.95]])[0])
        0.75
    """
    truth, table = _tables(targets, scores)
    columns = [roc_auc(y, s, weights) for y, s in zip(truth.T, table.T, strict=True)]
    return mean_of_known(np.stack(columns, 1))


def top1_accuracy(
    targets: npt.ArrayLike, scores: npt.ArrayLike, weights: npt.ArrayLike | None = None
) -> npt.NDArray[np.float64]:
    """Share of segments whose highest score belongs to a class that is present.

    Of equal scores the first class counts. Segments without any class are left out.

    Args:
        targets: (N, C) 0/1.
        scores: (N, C).
        weights: (B, N) weight of each segment; None is one row of ones.

    Returns:
        (B,) values; NaN if no segment has a class.

    Example:
        >>> float(top1_accuracy([[1, 1], [0, 1], [0, 0]], [[0.2, 0.9], [0.7, 0.1], [0.5, 0.5]])[0])
        0.5
    """
    truth, table = _tables(targets, scores)
    table_of_weights = np.ones((1, len(truth))) if weights is None else np.atleast_2d(weights)
    counted = table_of_weights * truth.any(1)
    right = truth[np.arange(len(truth)), table.argmax(1)].astype(np.float64)
    total = counted.sum(1)
    return np.divide(counted @ right, total, out=np.full(len(total), np.nan), where=total > 0)


def _tables(
    targets: npt.ArrayLike, scores: npt.ArrayLike
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
    truth, table = np.asarray(targets, bool), np.asarray(scores, np.float64)
    if truth.ndim != 2 or truth.shape != table.shape or not truth.size:
        raise ConfigError(
            f"targets {truth.shape} and scores {table.shape} do not fit. Expected (N, C) for both, N at least 1."
        )
    return truth, table
