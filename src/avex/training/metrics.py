"""Metrics of a validation, by the names that configurations have."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from avex._core.errors import ConfigError, UnknownNameError, did_you_mean
from avex.metrics import beans_map, confusion_matrix, roc_auc

Array = npt.NDArray[np.floating]
Metric = Callable[[npt.NDArray[np.bool_], Array], float]


def compute_metrics(names: Sequence[str], logits: npt.ArrayLike, targets: npt.ArrayLike) -> dict[str, float]:
    """Metrics of logits.

    Args:
        names: Such as `accuracy`, `balanced_accuracy`, `multiclass_f1`, `map`, `roc_auc`; see `METRICS`.
        logits: (N, C).
        targets: (N,) class numbers or (N, C) 0/1.

    Raises:
        UnknownNameError: No such metric.
        ConfigError: `accuracy` and the like with several labels per clip.

    Example:
        >>> compute_metrics(["accuracy"], [[2.0, 1.0], [0.0, 3.0]], [0, 0])
        {'accuracy': 0.5}
    """
    table, truth = np.asarray(logits, np.float64), np.asarray(targets)
    positive = truth[:, None] == np.arange(table.shape[1]) if truth.ndim == 1 else truth > 0.5
    return {name: find_metric(name)(positive, table) for name in names}


def find_metric(name: str) -> Metric:
    """A metric by its name, upper or lower case.

    Raises:
        UnknownNameError: There is none.
    """
    metric = METRICS.get(name.lower())
    if metric is None:
        raise UnknownNameError(
            f"Unknown metric '{name}'.{did_you_mean(name, METRICS)} Choose {', '.join(sorted(METRICS))}."
        )
    return metric


def better_is_more(name: str) -> bool:
    """Whether more of a metric is better: not of losses.

    Example:
        >>> better_is_more("val/loss"), better_is_more("val/accuracy")
        (False, True)
    """
    return "loss" not in name.lower()


def _single(positive: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    if not bool((positive.sum(1) == 1).all()):
        raise ConfigError(
            "accuracy, balanced_accuracy and f1 are for one label per clip, but there are clips with several or "
            "none. Set metrics: [map] or [roc_auc]."
        )
    return positive.argmax(1)


def _accuracy(positive: npt.NDArray[np.bool_], logits: Array) -> float:
    return float((_single(positive) == logits.argmax(1)).mean())


def _balanced_accuracy(positive: npt.NDArray[np.bool_], logits: Array) -> float:
    hit = _single(positive) == logits.argmax(1)
    return float(np.mean([hit[column].mean() for column in positive.T if column.any()]))


def _macro_f1(positive: npt.NDArray[np.bool_], logits: Array) -> float:
    matrix = confusion_matrix(_single(positive), logits.argmax(1), logits.shape[1])
    total = matrix.sum(0) + matrix.sum(1)
    # As scikit-learn: classes that neither occur nor were predicted do not count.
    return float(np.mean(2 * matrix.diagonal()[total > 0] / total[total > 0]))


def _binary_f1(positive: npt.NDArray[np.bool_], logits: Array) -> float:
    truth, found = _single(positive) == 1, logits.argmax(1) == 1
    hits = float((truth & found).sum())
    total = float(truth.sum() + found.sum())
    return 2 * hits / total if total else 0.0


def _map(positive: npt.NDArray[np.bool_], logits: Array) -> float:
    return float(beans_map(positive, logits, empty_classes="skip")[0])


def _roc_auc(positive: npt.NDArray[np.bool_], logits: Array) -> float:
    if (positive.sum(1) == 1).all():
        logits = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    known = [i for i, column in enumerate(positive.T) if column.any() and not column.all()]
    values = [float(roc_auc(positive[:, i], logits[:, i])[0]) for i in known]
    return float(np.mean(values)) if values else float("nan")


METRICS: dict[str, Metric] = {
    "accuracy": _accuracy,
    "acc": _accuracy,
    "balanced_accuracy": _balanced_accuracy,
    "binary_f1": _binary_f1,
    "multiclass_f1": _macro_f1,
    "f1_macro": _macro_f1,
    "map": _map,
    "roc_auc": _roc_auc,
}
