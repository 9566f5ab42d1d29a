"""How well scores fit the truth: metrics in weighted, vectorised form, with bootstrap intervals. NumPy only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from avex._core.lazy import lazy_names

if TYPE_CHECKING:
    from avex.metrics.beans import beans_map, class_average_precision
    from avex.metrics.birdset import auroc, cmap, top1_accuracy
    from avex.metrics.bootstrap import bootstrap_counts, percentile_interval
    from avex.metrics.clustering import ClusteringScores, clustering_scores
    from avex.metrics.confusion import ClassScores, class_scores, confusion_matrix
    from avex.metrics.events import EventScores, TimedEvent, event_scores
    from avex.metrics.ranking import average_precision, roc_auc
    from avex.metrics.retrieval import RetrievalScores, retrieval_scores
    from avex.metrics.scores import PRIMARY, Score, ScoreSet, score_predictions

__all__ = [
    "PRIMARY",
    "ClassScores",
    "ClusteringScores",
    "EventScores",
    "RetrievalScores",
    "Score",
    "ScoreSet",
    "TimedEvent",
    "auroc",
    "average_precision",
    "beans_map",
    "bootstrap_counts",
    "class_average_precision",
    "class_scores",
    "clustering_scores",
    "cmap",
    "confusion_matrix",
    "event_scores",
    "percentile_interval",
    "retrieval_scores",
    "roc_auc",
    "score_predictions",
    "top1_accuracy",
]

_HOMES = {
    "beans": ("beans_map", "class_average_precision"),
    "birdset": ("auroc", "cmap", "top1_accuracy"),
    "bootstrap": ("bootstrap_counts", "percentile_interval"),
    "clustering": ("ClusteringScores", "clustering_scores"),
    "confusion": ("ClassScores", "class_scores", "confusion_matrix"),
    "events": ("EventScores", "TimedEvent", "event_scores"),
    "ranking": ("average_precision", "roc_auc"),
    "retrieval": ("RetrievalScores", "retrieval_scores"),
    "scores": ("PRIMARY", "Score", "ScoreSet", "score_predictions"),
}
_MODULE_OF = {name: module for module, names in _HOMES.items() for name in names}


__getattr__ = lazy_names(__name__, _MODULE_OF)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
