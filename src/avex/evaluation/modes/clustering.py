"""Clustering: do the groups that k-means finds agree with the classes?"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from avex._core.optional import require
from avex.evaluation.modes.base import Context, Outcome
from avex.evaluation.projection import scatter
from avex.metrics import Score, clustering_scores

MAIN = "clustering_ari"
_MOST_PARTS = 100
_NORMAL = 1.959964


def run(context: Context) -> Outcome:
    """Cluster the clips that are tested by the last layer chosen.

    The intervals of ARI and NMI are from a jackknife over parts of the clips (Tukey, 1958), with the clusters
    that were found; clips of one recording or group are left out together. A bootstrap would not do: clips that
    are drawn twice agree with themselves, which lifts both measures.
    """
    task = context.task
    tested = task.tested()
    vectors = context.stored().vectors(context.layers[-1])
    x, y = vectors[tested], task.targets().values[tested]
    scaling = context.config.clustering_scaling
    found = clustering_scores(x, y, seed=context.seed, scaling=scaling)
    scores = {name: Score(value, value, value) for name, value in found.values.items()}
    metrics = require("sklearn.metrics", "eval", "Clustering")
    measures = {MAIN: "adjusted_rand_score", "clustering_nmi": "normalized_mutual_info_score"}
    groups = np.unique(context.tested_groups(tested), return_inverse=True)[1].reshape(-1)
    for name, function in measures.items() if context.config.bootstrap_samples else ():
        half = _NORMAL * jackknife(getattr(metrics, function), y, found.assigned, groups, context.seed)
        value = found.values[name]
        scores[name] = Score(value, value - half, float(np.minimum(1.0, value + half)))
    details: dict[str, Any] = {
        "layer": context.layers[-1],
        "scaling": scaling,
        "clips": len(tested),
        "scatter": scatter(task, vectors, context.seed),
    }
    return Outcome(scores, MAIN, details)


def jackknife(
    measure: Callable[[Any, Any], float],
    truth: npt.NDArray[Any],
    found: npt.NDArray[Any],
    groups: npt.NDArray[np.integer[Any]],
    seed: int,
) -> float:
    """Standard error of a measure, from leaving out one part of the examples at a time.

    Args:
        measure: Of truth and what was found.
        truth: (N,).
        found: (N,).
        groups: (N,) numbers from 0 of what is left out together.
        seed: Of the parts.

    Returns:
        The standard error; NaN where everything is one group.

    Example:
        >>> accuracy = lambda truth, found: (truth == found).mean()
        >>> error = jackknife(accuracy, np.zeros(4), np.array([0, 0, 1, 1]), np.arange(4), seed=0)
        >>> round(error, 4)  # 0.5 / sqrt(3)
        0.2887
    """
    count = int(groups.max()) + 1
    if count < 2:
        return math.nan
    parts = min(count, _MOST_PARTS)
    part_of = (np.random.default_rng(seed).permutation(count) % parts)[groups]
    values = np.array([measure(truth[part_of != p], found[part_of != p]) for p in range(parts)])
    return float(np.sqrt((parts - 1) / parts * np.square(values - values.mean()).sum()))
