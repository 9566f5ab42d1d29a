"""Metrics by the names that tasks use, each with a bootstrap interval."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from avex._core.errors import UnknownNameError, did_you_mean
from avex.metrics import (
    Score,
    beans_map,
    bootstrap_counts,
    cmap,
    percentile_interval,
    score_predictions,
    top1_accuracy,
)
from avex.training.probes.targets import Targets

Floats = npt.NDArray[np.floating]
THRESHOLD = 0.5

# Names in task definitions to names in results; the left ones of older files and of torchmetrics.
ALIASES: Mapping[str, str] = {
    "acc": "accuracy",
    "balanced_acc": "balanced_accuracy",
    "f1_macro": "multiclass_f1",
    "macro_f1": "multiclass_f1",
    "mean_average_precision": "map_present",
    "macro_roc_auc": "roc_auc",
    "auroc": "roc_auc",
    "t1_acc": "top1_accuracy",
}
# Computed by `score_predictions` under another name.
_BASE: Mapping[str, str] = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced_accuracy",
    "multiclass_f1": "macro_f1",
    "roc_auc": "macro_roc_auc",
    "top5_accuracy": "top5_accuracy",
    "micro_f1": "micro_f1",
    "map_present": "mean_average_precision",
}
_SINGLE_ONLY = frozenset({"accuracy", "balanced_accuracy", "top5_accuracy"})
_MULTI_ONLY = frozenset({"micro_f1", "map_present"})
_TOP_K = 5
_WITH_PREFIX = ("clustering_", "retrieval_")


def canonical_metric(name: str) -> str:
    """Name of a metric in results.

    `map` is that of BEANS: classes without positives count as zero; `map_present` leaves them out.

    Raises:
        UnknownNameError: There is no such metric.

    Example:
        >>> canonical_metric("mAP"), canonical_metric("f1_macro")
        ('map', 'multiclass_f1')
    """
    lowered = name.lower()
    known = ALIASES.get(lowered, lowered)
    if known in _BASE or known in _EXTRA or known.startswith(_WITH_PREFIX):
        return known
    choices = sorted({*_BASE, *_EXTRA, *ALIASES})
    raise UnknownNameError(
        f"Unknown metric '{name}'.{did_you_mean(lowered, choices)} Choose {', '.join(choices)}."
    )


def score_task(
    targets: Targets,
    probabilities: npt.NDArray[np.floating],
    metrics: Sequence[str],
    *,
    groups: Sequence[str] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Score]:
    """Compute the metrics of a task.

    Args:
        targets: What the clips are.
        probabilities: (N, C).
        metrics: Names; those of clustering and retrieval are other modes' and are left out. Metrics that come for
            free (accuracy and F1, or mAP) are added.
        groups: (N) what is resampled as one; None resamples clips.
        resamples: Of the bootstrap; 0 for none.
        seed: Of the bootstrap.

    Returns:
        Name to value and interval, in the order of `metrics`.

    Raises:
        UnknownNameError: There is no such metric, or the task does not have it.
    """
    grouped = groups if groups is not None and len(set(groups)) < len(groups) else None
    base = score_predictions(
        targets.values, probabilities, classes=targets.classes, groups=grouped, resamples=resamples, seed=seed
    )
    named = {name: base[own] for name, own in _BASE.items() if own in base}
    wanted = [canonical_metric(name) for name in metrics]
    wanted = [name for name in wanted if not name.startswith(_WITH_PREFIX)]
    drawn = bootstrap_counts(len(probabilities), resamples, seed=seed, groups=grouped) if resamples else None
    found: dict[str, Score] = {}
    for name in dict.fromkeys([*wanted, *named]):
        if name in named:
            found[name] = named[name]
        elif name in _EXTRA:
            metric = partial(_EXTRA[name], targets, probabilities)
            found[name] = _interval(metric, drawn, len(probabilities))
        else:
            raise _not_of(name, targets.task, len(targets.classes), [*named, *_EXTRA])
    return found


def check_metrics(metrics: Sequence[str], multi_label: bool, classes: int) -> None:
    """Check names of metrics before anything is computed.

    Raises:
        UnknownNameError: There is no such metric, or a task of this kind does not have it.

    Example:
        >>> check_metrics(["map", "retrieval_roc_auc"], True, 5)
    """
    without = _SINGLE_ONLY if multi_label else _MULTI_ONLY
    if classes <= _TOP_K:
        without = without | {"top5_accuracy"}
    choices = [name for name in [*_BASE, *_EXTRA] if name not in without]
    for name in map(canonical_metric, metrics):
        if name in without:
            raise _not_of(name, "multi-label" if multi_label else "single-label", classes, choices)


def _not_of(name: str, task: str, classes: int, choices: Sequence[str]) -> UnknownNameError:
    return UnknownNameError(
        f"Metric '{name}' is not one of a {task} task of {classes} classes. Choose {', '.join(choices)}."
    )


def _interval(metric: Callable[[Floats], Floats], drawn: Floats | None, count: int) -> Score:
    value = float(metric(np.ones((1, count)))[0])
    if drawn is None:
        return Score(value, value, value)
    return Score(value, *percentile_interval(metric(drawn)))


def mean_score(values: Floats, groups: Sequence[str] | None, resamples: int, seed: int) -> Score:
    """A mean over examples with its interval; NaN left out."""
    known = np.isfinite(values)
    if not known.any():
        return Score(float("nan"), float("nan"), float("nan"))
    kept = values[known]
    picked = None if groups is None else [g for g, k in zip(groups, known, strict=True) if k]
    grouped = picked if picked is not None and len(set(picked)) < len(picked) else None
    drawn = bootstrap_counts(len(kept), resamples, seed=seed, groups=grouped) if resamples else None
    return _interval(lambda w: w @ kept / w.sum(1), drawn, len(kept))


def _said(targets: Targets, probabilities: Floats) -> npt.NDArray[np.bool_]:
    if targets.task == "multi-label":
        return probabilities >= THRESHOLD
    return probabilities.argmax(1)[:, None] == np.arange(probabilities.shape[1])


def _class_f1(targets: Targets, probabilities: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """F1 (B, C) of each class, 0 without any, and its support (B, C)."""
    truth, said = targets.table().astype(np.float64), _said(targets, probabilities).astype(np.float64)
    hits, support, predicted = weights @ (truth * said), weights @ truth, weights @ said
    total = support + predicted
    return np.divide(2 * hits, total, out=np.zeros_like(hits), where=total > 0), support


def _weighted_f1(targets: Targets, probabilities: Floats, weights: Floats) -> Floats:
    f1, support = _class_f1(targets, probabilities, weights)
    return (f1 * support).sum(1) / np.maximum(support.sum(1), 1e-12)


def _binary_f1(targets: Targets, probabilities: Floats, weights: Floats) -> Floats:
    return _class_f1(targets, probabilities, weights)[0][:, -1]


def _beans_map(targets: Targets, probabilities: Floats, weights: Floats) -> Floats:
    return beans_map(targets.table(), probabilities, weights)


def _cmap(targets: Targets, probabilities: Floats, weights: Floats) -> Floats:
    return cmap(targets.table(), probabilities, weights)


def _top1(targets: Targets, probabilities: Floats, weights: Floats) -> Floats:
    return top1_accuracy(targets.table(), probabilities, weights)


_EXTRA: Mapping[str, Callable[[Targets, Any, Any], Floats]] = {
    "map": _beans_map,
    "cmap": _cmap,
    "top1_accuracy": _top1,
    "f1_weighted": _weighted_f1,
    "binary_f1": _binary_f1,
}
