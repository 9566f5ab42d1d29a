"""Retrieval: are the most similar clips of the same class?"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from avex.evaluation.modes.base import Context, Outcome
from avex.evaluation.scoring import mean_score
from avex.evaluation.tasks import Indices
from avex.metrics import RetrievalScores, retrieval_scores

MAIN = "retrieval_roc_auc"


def run(context: Context) -> Outcome:
    """Search with the embeddings of the last layer chosen.

    `test_vs_test` searches the test clips for each other; `train_vs_test` searches the test clips with each
    training clip, as in earlier versions. Where there are folds, each clip searches the other folds.
    """
    task = context.task
    x, y = context.stored().vectors(context.layers[-1]), task.targets().values
    parts = [_search(context, x, y, queries, items) for queries, items in _searches(context)]
    clips = np.concatenate([queries for queries, _ in parts])
    groups = context.tested_groups(clips)
    scores = {
        f"retrieval_{name}": mean_score(
            np.concatenate([found.per_query[name] for _, found in parts]),
            groups,
            context.config.bootstrap_samples,
            context.seed,
        )
        for name in parts[0][1].per_query
    }
    details: dict[str, Any] = {
        "layer": context.layers[-1],
        "queries": len(clips),
        "skipped": sum(found.skipped for _, found in parts),
        "max_queries": context.config.retrieval_max_queries,
        "mode": "other_folds" if task.folds else task.retrieval_mode,
    }
    return Outcome(scores, MAIN, details)


def _searches(context: Context) -> list[tuple[Indices, Indices | None]]:
    """Queries, and what they search; None is themselves."""
    task = context.task
    if task.folds:
        return [(round_.test, round_.train) for round_ in task.rounds()]
    if task.retrieval_mode == "train_vs_test":
        return [(task.indices("train"), task.indices("test"))]
    return [(task.indices("test"), None)]


def _search(
    context: Context, x: npt.NDArray[Any], y: npt.NDArray[Any], queries: Indices, items: Indices | None
) -> tuple[Indices, RetrievalScores]:
    database = None if items is None else x[items]
    labels = None if items is None else y[items]
    found = retrieval_scores(
        x[queries],
        y[queries],
        database,
        labels,
        ks=context.config.retrieval_k,
        max_queries=_share(context, len(queries)),
        seed=context.seed,
    )
    return queries[found.queries], found


def _share(context: Context, queries: int) -> int | None:
    """Queries of one search: with folds, each has its share of `retrieval_max_queries`."""
    most = context.config.retrieval_max_queries
    if most is None or not context.task.folds:
        return most
    return max(1, round(most * queries / len(context.task.clips)))
