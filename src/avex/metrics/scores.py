"""The metrics of a classifier, each with a bootstrap interval, from one call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from avex._core.errors import ConfigError
from avex.metrics.beans import mean_of_known
from avex.metrics.bootstrap import bootstrap_counts, percentile_interval
from avex.metrics.ranking import average_precision, roc_auc

Task = Literal["single-label", "multi-label"]
Floats = npt.NDArray[np.floating]
Metric = Callable[[Floats], Floats]

PRIMARY: Mapping[Task, str] = {"single-label": "accuracy", "multi-label": "mean_average_precision"}
"""The metric that a task is judged by."""

_CHUNK_CELLS = 4_000_000  # weights per pass of the ranking metrics: bounds their memory to about 100 MB


@dataclass(frozen=True, slots=True)
class Score:
    """A metric and the interval that it is known to.

    Attributes:
        value: The metric on all examples.
        low: Lower end of the interval; equal to `value` without a bootstrap.
        high: Upper end.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class ScoreSet(Mapping[str, Score]):
    """Metrics by name, in a fixed order.

    Attributes:
        scores: Name to value and interval.
        primary: The metric that the task is judged by.
        left_out: Metric to the classes it could not cover (no positive, or no negative, examples).
    """

    scores: Mapping[str, Score]
    primary: str
    left_out: Mapping[str, tuple[str, ...]]

    def __getitem__(self, name: str) -> Score:
        return self.scores[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.scores)

    def __len__(self) -> int:
        return len(self.scores)


def score_predictions(
    targets: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    *,
    classes: Sequence[str] | None = None,
    groups: Sequence[Any] | npt.NDArray[Any] | None = None,
    threshold: float = 0.5,
    top_k: int = 5,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> ScoreSet:
    """Compute the metrics of a classifier with intervals.

    For one label per example: `accuracy`, `balanced_accuracy` (mean recall of the classes that occur),
    `macro_f1` (mean over classes that occur or were predicted), `macro_roc_auc` (one against the rest) and
    `top5_accuracy` (for more than five classes). For several labels: `mean_average_precision`,
    `macro_roc_auc`, `macro_f1` and `micro_f1` at the threshold. All agree with the functions of scikit-learn
    of the same names.

    Intervals are percentiles of a bootstrap over groups. They say how far the test examples determine the
    value, nothing about another training run, and collapse to a point where every example is right.

    Args:
        targets: (N,) class indices, or (N, C) 0/1 for several labels.
        probabilities: (N, C), any scores that grow with the probability; for `threshold` they must be
            probabilities.
        classes: C names, for `left_out`; None numbers them.
        groups: (N,) what is resampled as one, such as the recording.
        threshold: From which probability on a label counts as predicted (several labels).
        top_k: Rank up to which the true class counts as found.
        resamples: Number of bootstrap resamples; 0 for none.
        confidence: Share of the resamples inside the interval.
        seed: Of the bootstrap.

    Raises:
        ConfigError: Shapes do not fit, or there is no example.

    Example:
        >>> scores = score_predictions([0, 1, 1, 0], [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.7, 0.3]])
        >>> scores["accuracy"].value, scores.primary
        (0.75, 'accuracy')
    """
    truth, table = np.asarray(targets), np.asarray(probabilities, dtype=np.float64)
    _check(truth, table)
    names = [str(i) for i in range(table.shape[1])] if classes is None else list(classes)
    task: Task = "single-label" if truth.ndim == 1 else "multi-label"
    positive = _one_hot(truth, table.shape[1]) if truth.ndim == 1 else truth.astype(bool)
    metrics = (
        _single(truth, positive, table, top_k) if truth.ndim == 1 else _multi(positive, table, threshold)
    )
    left_out = _left_out(positive, names, metrics)
    weights = np.ones((1, len(table)))
    drawn = bootstrap_counts(len(table), resamples, seed=seed, groups=groups) if resamples else None
    scores = {}
    for name, metric in metrics.items():
        value = float(metric(weights)[0])
        low, high = (value, value) if drawn is None else percentile_interval(metric(drawn), confidence)
        scores[name] = Score(value, low, high)
    return ScoreSet(scores, PRIMARY[task], left_out)


def _check(truth: npt.NDArray[Any], table: Floats) -> None:
    if table.ndim != 2 or not len(table) or truth.shape not in (table.shape[:1], table.shape):
        raise ConfigError(
            f"targets {truth.shape} and probabilities {table.shape} do not fit. Expected (N,) class indices "
            "or (N, C) 0/1, and (N, C) probabilities, N at least 1."
        )
    if not np.isfinite(table).all():
        raise ConfigError("Probabilities hold NaN or infinite values. Check the model and its input.")
    if truth.ndim == 1 and not (truth.min() >= 0 and truth.max() < table.shape[1]):
        raise ConfigError(
            f"Targets run from {truth.min()} to {truth.max()}, but there are {table.shape[1]} classes."
        )


def _one_hot(indices: npt.NDArray[Any], num_classes: int) -> npt.NDArray[np.bool_]:
    return np.equal(indices[:, None], np.arange(num_classes))


def _single(
    truth: npt.NDArray[Any], positive: npt.NDArray[np.bool_], table: Floats, top_k: int
) -> dict[str, Metric]:
    guess = _one_hot(table.argmax(1), table.shape[1])
    right = guess[np.arange(len(truth)), truth].astype(np.float32)
    metrics: dict[str, Metric] = {
        "accuracy": lambda w: w @ right / w.sum(1),
        "balanced_accuracy": lambda w: _mean_recall(w, positive, guess),
        "macro_f1": lambda w: _f1(w, positive, guess, macro=True),
        "macro_roc_auc": lambda w: _over_classes(roc_auc, positive, table, w),
    }
    if table.shape[1] > top_k:
        # Rank of the true class; ties count against it, so that a constant score finds nothing.
        own = table[np.arange(len(truth)), truth]
        found = ((table >= own[:, None]).sum(1) <= top_k).astype(np.float32)
        metrics[f"top{top_k}_accuracy"] = lambda w: w @ found / w.sum(1)
    return metrics


def _multi(positive: npt.NDArray[np.bool_], table: Floats, threshold: float) -> dict[str, Metric]:
    guess = table >= threshold
    return {
        "mean_average_precision": lambda w: _over_classes(average_precision, positive, table, w),
        "macro_roc_auc": lambda w: _over_classes(roc_auc, positive, table, w),
        "macro_f1": lambda w: _f1(w, positive, guess, macro=True),
        "micro_f1": lambda w: _f1(w, positive, guess, macro=False),
    }


def _left_out(
    positive: npt.NDArray[np.bool_], names: Sequence[str], metrics: Mapping[str, Metric]
) -> dict[str, tuple[str, ...]]:
    without_positive = np.logical_not(positive.any(axis=0))
    missing = {
        "mean_average_precision": without_positive,
        "macro_roc_auc": without_positive | positive.all(axis=0),
        "balanced_accuracy": without_positive,
    }
    return {
        metric: tuple(names[int(i)] for i in np.flatnonzero(missing[metric]))
        for metric in metrics
        if metric in missing and missing[metric].any()
    }


def _mean_recall(w: Floats, positive: npt.NDArray[np.bool_], guess: npt.NDArray[np.bool_]) -> Floats:
    hits, support = w @ (positive & guess).astype(w.dtype), w @ positive.astype(w.dtype)
    return mean_of_known(np.divide(hits, support, out=np.full_like(hits, np.nan), where=support > 0))


def _f1(w: Floats, positive: npt.NDArray[np.bool_], guess: npt.NDArray[np.bool_], *, macro: bool) -> Floats:
    hits = 2 * (w @ (positive & guess).astype(w.dtype))
    total = w @ positive.astype(w.dtype) + w @ guess.astype(w.dtype)
    if not macro:
        hits, total = hits.sum(1, keepdims=True), total.sum(1, keepdims=True)
    return mean_of_known(np.divide(hits, total, out=np.full_like(hits, np.nan), where=total > 0))


def _over_classes(
    metric: Callable[[Any, Any, Any], Floats], positive: npt.NDArray[np.bool_], table: Floats, w: Floats
) -> Floats:
    rows = max(1, _CHUNK_CELLS // w.shape[1])
    chunks = []
    for start in range(0, len(w), rows):
        part = w[start : start + rows]
        chunks.append(
            mean_of_known(np.stack([metric(p, s, part) for p, s in zip(positive.T, table.T, strict=True)], 1))
        )
    return np.concatenate(chunks)
