"""Clustering: do the groups that k-means finds agree with the classes?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from avex._core.optional import require
from avex.evaluation.modes.base import Context, Outcome
from avex.evaluation.projection import scatter
from avex.metrics import Score, clustering_scores, percentile_interval

MAIN = "clustering_ari"
_MOST_RESAMPLES = 200


def run(context: Context) -> Outcome:
    """Cluster the clips that are tested by the last layer chosen.

    The intervals of ARI and NMI are of clips drawn anew with the clusters that were found, without clustering
    again.
    """
    task = context.task
    tested = task.tested()
    vectors = context.stored().vectors(context.layers[-1])
    x, y = vectors[tested], task.targets().values[tested]
    found = clustering_scores(x, y, seed=context.seed)
    scores = {name: Score(value, value, value) for name, value in found.values.items()}
    metrics = require("sklearn.metrics", "eval", "Clustering")
    resamples = min(context.config.bootstrap_samples, _MOST_RESAMPLES)
    measures = {MAIN: "adjusted_rand_score", "clustering_nmi": "normalized_mutual_info_score"}
    for name, function in measures.items() if resamples else ():
        values = _resampled(getattr(metrics, function), y, found.assigned, resamples, context.seed)
        scores[name] = Score(found.values[name], *percentile_interval(values))
    details: dict[str, Any] = {
        "layer": context.layers[-1],
        "clips": len(tested),
        "scatter": scatter(task, vectors, context.seed),
    }
    return Outcome(scores, MAIN, details)


def _resampled(
    measure: Callable[[Any, Any], float],
    truth: npt.NDArray[Any],
    found: npt.NDArray[Any],
    resamples: int,
    seed: int,
) -> npt.NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    drawn = (rng.integers(len(truth), size=len(truth)) for _ in range(resamples))
    return np.array([measure(truth[rows], found[rows]) for rows in drawn])
