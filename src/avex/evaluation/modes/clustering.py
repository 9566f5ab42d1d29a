"""Clustering: do the groups that k-means finds agree with the classes?"""

from __future__ import annotations

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
    that were found. A bootstrap would not do: clips that are drawn twice agree with themselves, which lifts
    both measures.
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
    for name, function in measures.items() if context.config.bootstrap_samples else ():
        half = _NORMAL * _jackknife(getattr(metrics, function), y, found.assigned, context.seed)
        value = found.values[name]
        scores[name] = Score(value, value - half, min(1.0, value + half))
    details: dict[str, Any] = {
        "layer": context.layers[-1],
        "scaling": scaling,
        "clips": len(tested),
        "scatter": scatter(task, vectors, context.seed),
    }
    return Outcome(scores, MAIN, details)


def _jackknife(
    measure: Callable[[Any, Any], float], truth: npt.NDArray[Any], found: npt.NDArray[Any], seed: int
) -> float:
    """Standard error of a measure, from leaving out one part of the examples at a time."""
    parts = min(len(truth), _MOST_PARTS)
    part_of = np.random.default_rng(seed).permutation(len(truth)) % parts
    values = np.array([measure(truth[part_of != p], found[part_of != p]) for p in range(parts)])
    return float(np.sqrt((parts - 1) / parts * np.square(values - values.mean()).sum()))
