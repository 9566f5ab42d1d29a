"""Metrics of a validation, by the names that configurations have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from avex._core.errors import ConfigError, UnknownNameError, did_you_mean
from avex.metrics import class_average_precision, confusion_matrix, roc_auc
from avex.training.scores import Labels, Logits, Numbers, ScoreTable


@dataclass(frozen=True)
class OfChoices:
    """A metric of the label of each clip, and the class with the highest logit.

    Attributes:
        value: Of the labels (N,), the choices (N,), and the number of classes.
    """

    value: Callable[[Numbers, Numbers, int], float]


@dataclass(frozen=True)
class OfClasses:
    """A metric of each class for itself, averaged over those for which it is defined.

    Attributes:
        values: (K,) of labels (N, K) and logits (N, K); NaN where it is not defined.
    """

    values: Callable[[Labels, Logits], npt.NDArray[np.float64]]


Metric: TypeAlias = OfChoices | OfClasses


def compute_metrics(names: Sequence[str], table: ScoreTable) -> dict[str, float]:
    """Metrics of a validation.

    Args:
        names: Such as `accuracy`, `balanced_accuracy`, `multiclass_f1`, `map`, `roc_auc`; see `METRICS`.
        table: Logits and labels.

    Raises:
        UnknownNameError: No such metric.
        ConfigError: `accuracy` and the like with several labels per clip.

    Example:
        >>> table = ScoreTable()
        >>> table.add(np.array([[2.0, 1.0], [0.0, 3.0]]), np.array([0, 0]))
        >>> compute_metrics(["accuracy"], table)
        {'accuracy': 0.5}
    """
    metrics = {name: find_metric(name) for name in names}
    _, classes, single = table.sizes
    values: dict[str, float] = {}
    of_choices = {name: metric for name, metric in metrics.items() if isinstance(metric, OfChoices)}
    if of_choices:
        if not single:
            raise ConfigError(
                "accuracy, balanced_accuracy and f1 are for one label per clip, but there are clips with several "
                "or none. Set metrics: [map] or [roc_auc]."
            )
        truth, best = table.choices()
        values |= {name: metric.value(truth, best, classes) for name, metric in of_choices.items()}
    of_classes = {name: metric for name, metric in metrics.items() if isinstance(metric, OfClasses)}
    if of_classes:
        parts: dict[str, list[npt.NDArray[np.float64]]] = {name: [] for name in of_classes}
        for labels, logits in table.columns():
            for name, metric in of_classes.items():
                parts[name].append(metric.values(labels, logits))
        values |= {name: _mean_of_known(np.concatenate(found)) for name, found in parts.items()}
    return {name: values[name] for name in names}


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


def _accuracy(truth: Numbers, best: Numbers, classes: int) -> float:
    return float((truth == best).mean())


def _balanced_accuracy(truth: Numbers, best: Numbers, classes: int) -> float:
    matrix = confusion_matrix(truth, best, classes)
    count = matrix.sum(1)
    return float(np.mean(matrix.diagonal()[count > 0] / count[count > 0]))


def _macro_f1(truth: Numbers, best: Numbers, classes: int) -> float:
    matrix = confusion_matrix(truth, best, classes)
    total = matrix.sum(0) + matrix.sum(1)
    # As scikit-learn: classes that neither occur nor were predicted do not count.
    return float(np.mean(2 * matrix.diagonal()[total > 0] / total[total > 0]))


def _binary_f1(truth: Numbers, best: Numbers, classes: int) -> float:
    positive, found = truth == 1, best == 1
    total = float(positive.sum() + found.sum())
    return 2 * float((positive & found).sum()) / total if total else 0.0


def _average_precisions(labels: Labels, logits: Logits) -> npt.NDArray[np.float64]:
    return class_average_precision(labels, logits)[0]


def _areas(labels: Labels, logits: Logits) -> npt.NDArray[np.float64]:
    return np.array([roc_auc(labels[:, i], logits[:, i])[0] for i in range(labels.shape[1])])


def _mean_of_known(values: npt.NDArray[np.float64]) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


METRICS: dict[str, Metric] = {
    "accuracy": OfChoices(_accuracy),
    "acc": OfChoices(_accuracy),
    "balanced_accuracy": OfChoices(_balanced_accuracy),
    "binary_f1": OfChoices(_binary_f1),
    "multiclass_f1": OfChoices(_macro_f1),
    "f1_macro": OfChoices(_macro_f1),
    "map": OfClasses(_average_precisions),
    "roc_auc": OfClasses(_areas),
}
