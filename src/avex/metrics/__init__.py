"""How well scores fit the truth: metrics in weighted, vectorised form, with bootstrap intervals. NumPy only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from avex._core.registry import load_attribute

if TYPE_CHECKING:
    from avex.metrics.bootstrap import bootstrap_counts, percentile_interval
    from avex.metrics.confusion import ClassScores, class_scores, confusion_matrix
    from avex.metrics.ranking import average_precision, roc_auc
    from avex.metrics.scores import PRIMARY, Score, ScoreSet, score_predictions

__all__ = [
    "PRIMARY",
    "ClassScores",
    "Score",
    "ScoreSet",
    "average_precision",
    "bootstrap_counts",
    "class_scores",
    "confusion_matrix",
    "percentile_interval",
    "roc_auc",
    "score_predictions",
]

_HOMES = {
    "bootstrap": ("bootstrap_counts", "percentile_interval"),
    "confusion": ("ClassScores", "class_scores", "confusion_matrix"),
    "ranking": ("average_precision", "roc_auc"),
    "scores": ("PRIMARY", "Score", "ScoreSet", "score_predictions"),
}
_MODULE_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    value = load_attribute(f"{__name__}.{_MODULE_OF[name]}:{name}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
