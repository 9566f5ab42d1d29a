"""Labels as numbers: class indices for one label per example, a table of 0 and 1 for several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from avex._core.errors import ConfigError, did_you_mean

_SHOWN = 5


@dataclass(frozen=True, eq=False)
class Targets:
    """What examples are.

    Attributes:
        values: (N,) int64 class indices, or (N, C) uint8 0/1 for several labels.
        classes: C names.
    """

    values: npt.NDArray[Any]
    classes: tuple[str, ...]

    @property
    def task(self) -> Literal["single-label", "multi-label"]:
        """Whether classes exclude each other."""
        return "single-label" if self.values.ndim == 1 else "multi-label"

    def table(self) -> npt.NDArray[np.uint8]:
        """(N, C) 0/1, whatever the task."""
        if self.values.ndim == 2:
            return self.values
        return (self.values[:, None] == np.arange(len(self.classes))).astype(np.uint8)


def encode_labels(
    labels: Any, classes: Sequence[str] | None = None, multilabel: bool | None = None
) -> Targets:
    """Turn the labels of examples into numbers.

    Args:
        labels: (N) names or whole numbers; N collections of names; or an array (N, C) of 0 and 1.
        classes: Names in the order of the indices. None takes the names that occur, sorted; for numbers, 0
            to the largest.
        multilabel: Whether an example may be of none or of several classes; None sees whether any is.

    Raises:
        ConfigError: Labels of a mixed or unknown kind, an unknown class, or an example of several classes
            (or none) under `multilabel=False`.

    Example:
        >>> encode_labels(["wren", "robin", "wren"]).values.tolist()
        [1, 0, 1]
        >>> encode_labels([["wren"], ["robin", "wren"]]).values.tolist()
        [[0, 1], [1, 1]]
    """
    array = _as_array(labels)
    if array is not None and array.ndim == 2:
        return _from_table(array, classes, multilabel)
    if array is not None:
        return _from_indices(array, classes, bool(multilabel))
    rows = [(label,) if isinstance(label, str) else tuple(label) for label in labels]
    if not rows:
        raise ConfigError("There are no labels. Expected one per example.")
    return encode_rows(rows, classes, multilabel)


def encode_rows(
    rows: Sequence[Sequence[str]], classes: Sequence[str] | None, multilabel: bool | None
) -> Targets:
    """`encode_labels` for a collection of names per example."""
    names = tuple(classes) if classes is not None else tuple(sorted({label for row in rows for label in row}))
    _check_classes(names)
    index = {name: i for i, name in enumerate(names)}
    for label in dict.fromkeys(label for row in rows for label in row):
        if label not in index:
            raise ConfigError(
                f"Label {label!r} is not one of the {len(names)} classes.{did_you_mean(str(label), names)} "
                "Add it to the classes, or leave these examples out."
            )
    several = multilabel if multilabel is not None else any(len(set(row)) != 1 for row in rows)
    if not several:
        wrong = next((i for i, row in enumerate(rows) if len(set(row)) != 1), None)
        if wrong is not None:
            raise ConfigError(
                f"Example {wrong} has {len(set(rows[wrong]))} labels {list(rows[wrong])[:_SHOWN]}, but one "
                "label per example was asked for. Pass multilabel=True."
            )
        return Targets(np.array([index[row[0]] for row in rows], np.int64), names)
    table = np.zeros((len(rows), len(names)), np.uint8)
    for i, row in enumerate(rows):
        table[i, [index[label] for label in row]] = 1
    return Targets(table, names)


def class_weights(
    weights: str | Mapping[str, float] | None, targets: Targets
) -> npt.NDArray[np.float64] | None:
    """Weight of each class in the loss.

    Args:
        weights: `balanced` gives rare classes as much say as common ones: N / (C n_c) for one label per
            example, as in scikit-learn, and the ratio of negatives to positives, at most 100, for several
            labels. A mapping gives weights by name; classes that it does not name have 1.
        targets: Of the training examples.

    Returns:
        (C,), or None if all weigh the same.

    Raises:
        ConfigError: An unknown word or class, or a weight that is not positive.
    """
    if weights is None:
        return None
    if isinstance(weights, str):
        if weights != "balanced":
            raise ConfigError(
                f"Unknown class weights '{weights}'. Choose 'balanced', or give a weight per class."
            )
        counts = targets.table().sum(0, dtype=np.float64)
        total = len(targets.values)
        if targets.task == "single-label":
            return total / (len(counts) * np.maximum(counts, 1))
        return np.clip((total - counts) / np.maximum(counts, 1), 0.01, 100)
    for name, weight in weights.items():
        if name not in targets.classes:
            raise ConfigError(f"There is no class '{name}' to weigh.{did_you_mean(name, targets.classes)}")
        if not weight > 0:
            raise ConfigError(f"The weight of class '{name}' is {weight}. Expected a positive number.")
    return np.array([float(weights.get(name, 1.0)) for name in targets.classes])


def _as_array(labels: Any) -> npt.NDArray[Any] | None:
    """Labels that are numbers, as an array; None if they are names."""
    if hasattr(labels, "detach"):
        labels = labels.detach().cpu().numpy()
    if not hasattr(labels, "dtype"):
        first = next(iter(labels), None)
        if (
            first is None
            or isinstance(first, str)
            or (isinstance(first, (list, tuple, set)) and not _is_bits(first))
        ):
            return None
    array = np.asarray(labels)
    if array.dtype.kind not in "iufb":
        return None
    if array.ndim not in (1, 2) or not len(array):
        raise ConfigError(
            f"Labels of shape {array.shape} make no sense. Expected (N,) classes or (N, C) of 0 and 1."
        )
    return array


def _is_bits(row: Any) -> bool:
    return isinstance(row, (list, tuple)) and bool(row) and not any(isinstance(value, str) for value in row)


def _from_indices(array: npt.NDArray[Any], classes: Sequence[str] | None, several: bool) -> Targets:
    indices = array.astype(np.int64)
    if not np.array_equal(indices, array) or indices.min() < 0:
        raise ConfigError(
            "Labels that are numbers must be class indices: whole numbers from 0. Or pass names."
        )
    names = tuple(classes) if classes is not None else tuple(map(str, range(int(indices.max()) + 1)))
    _check_classes(names)
    if indices.max() >= len(names):
        raise ConfigError(
            f"Label {indices.max()} is beyond the {len(names)} classes, which have 0 to {len(names) - 1}."
        )
    targets = Targets(indices, names)
    return Targets(targets.table(), names) if several else targets


def _from_table(array: npt.NDArray[Any], classes: Sequence[str] | None, multilabel: bool | None) -> Targets:
    if not np.isin(array, (0, 1)).all():
        raise ConfigError("Labels of shape (N, C) must be 0 or 1. Expected a column per class.")
    names = tuple(classes) if classes is not None else tuple(map(str, range(array.shape[1])))
    _check_classes(names)
    if len(names) != array.shape[1]:
        raise ConfigError(f"Labels have {array.shape[1]} columns, but there are {len(names)} classes.")
    if multilabel is False:
        if not (array.sum(1) == 1).all():
            raise ConfigError(
                "Some examples are of several classes or of none, but one label per example was asked for. "
                "Pass multilabel=True."
            )
        return Targets(array.argmax(1).astype(np.int64), names)
    return Targets(array.astype(np.uint8), names)


def _check_classes(names: Sequence[str]) -> None:
    if not names:
        raise ConfigError("There are no classes: no example has a label.")
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ConfigError(f"The class '{twice}' is named twice. Classes must differ.")
