"""Mean average precision as the BEANS benchmark defines it, and without its quirk.

BEANS (Hagiwara et al., 2023) averages over all classes of a task, and a class without positives in the test part
counts as zero, which lowers the value of every model by the same share. Both definitions are here; published tables
use `zero`.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from avex._core.errors import ConfigError
from avex.metrics.ranking import average_precision

EmptyClasses = Literal["zero", "skip"]


def class_average_precision(
    targets: npt.ArrayLike, scores: npt.ArrayLike, weights: npt.ArrayLike | None = None
) -> npt.NDArray[np.float64]:
    """Average precision of each class.

    Args:
        targets: (N, C) 0/1.
        scores: (N, C), higher means more likely.
        weights: (B, N) weight of each example, one row per resample; None is one row of ones.

    Returns:
        (B, C); NaN for classes without positives.

    Raises:
        ConfigError: Shapes do not fit.

    Example:
        >>> class_average_precision([[1, 0], [0, 0]], [[0.9, 0.1], [0.2, 0.3]]).tolist()
        [[1.0, nan]]
    """
    truth, table = np.asarray(targets), np.asarray(scores, np.float64)
    if truth.ndim != 2 or truth.shape != table.shape or not truth.size:
        raise ConfigError(
            f"targets {truth.shape} and scores {table.shape} do not fit. Expected (N, C) for both, N at least 1."
        )
    columns = [average_precision(y, s, weights) for y, s in zip(truth.T, table.T, strict=True)]
    return np.stack(columns, 1).astype(np.float64)


def beans_map(
    targets: npt.ArrayLike,
    scores: npt.ArrayLike,
    weights: npt.ArrayLike | None = None,
    *,
    empty_classes: EmptyClasses = "zero",
) -> npt.NDArray[np.float64]:
    """Mean average precision over the classes of a task.

    Args:
        targets: (N, C) 0/1.
        scores: (N, C), higher means more likely.
        weights: (B, N) weight of each example; None is one row of ones.
        empty_classes: `zero` counts classes without positives as zero, as BEANS does; `skip` leaves them out.

    Returns:
        (B,) values; NaN if no class has positives and they are left out.

    Raises:
        ConfigError: Shapes do not fit, or another word.

    Example:
        >>> truth, scores = [[1, 0], [0, 0]], [[0.9, 0.1], [0.2, 0.3]]
        >>> float(beans_map(truth, scores)[0]), float(beans_map(truth, scores, empty_classes="skip")[0])
        (0.5, 1.0)
    """
    if empty_classes not in ("zero", "skip"):
        raise ConfigError(f"empty_classes is '{empty_classes}'. Choose 'zero' (as BEANS) or 'skip'.")
    values = class_average_precision(targets, scores, weights)
    if empty_classes == "zero":
        return np.nan_to_num(values, nan=0.0).mean(1)
    return mean_of_known(values)


def mean_of_known(values: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Mean of each row without NaN; NaN where there is nothing else."""
    known = np.isfinite(values)
    count = known.sum(1)
    total = np.where(known, values, 0).sum(1)
    return np.divide(total, count, out=np.full(len(values), np.nan), where=count > 0)
