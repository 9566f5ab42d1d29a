"""Which class is taken for which, and precision, recall and F1 of each class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from avex._core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class ClassScores:
    """One line of the table of classes.

    Attributes:
        name: The class.
        support: Examples that are of this class.
        predicted: Examples that were said to be of it.
        precision: Share of those said to be of it that are; NaN if none was.
        recall: Share of those that are of it that were found; NaN if none is.
        f1: Harmonic mean of both; NaN if the class neither is nor was said to be there.
    """

    name: str
    support: int
    predicted: int
    precision: float
    recall: float
    f1: float


def confusion_matrix(
    targets: npt.ArrayLike, predicted: npt.ArrayLike, num_classes: int
) -> npt.NDArray[np.int64]:
    """Count examples by true class (rows) and predicted class (columns).

    Args:
        targets: (N,) class indices.
        predicted: (N,) class indices.
        num_classes: C.

    Returns:
        (C, C) counts.

    Raises:
        ConfigError: Lengths differ, or an index is not a class.

    Example:
        >>> confusion_matrix([0, 1, 1], [0, 1, 0], 2).tolist()
        [[1, 0], [1, 1]]
    """
    truth, guess = np.asarray(targets, np.int64), np.asarray(predicted, np.int64)
    if truth.shape != guess.shape or truth.ndim != 1:
        raise ConfigError(
            f"targets {truth.shape} and predictions {guess.shape} differ. Expected (N,) for both."
        )
    both = np.concatenate([truth, guess])
    if len(both) and (both.min() < 0 or both.max() >= num_classes):
        raise ConfigError(
            f"Class indices run from {both.min()} to {both.max()}, but there are {num_classes} classes. "
            f"Expected 0 to {num_classes - 1}."
        )
    return np.bincount(truth * num_classes + guess, minlength=num_classes**2).reshape(
        num_classes, num_classes
    )


def class_scores(
    truth: npt.ArrayLike, guess: npt.ArrayLike, classes: Sequence[str]
) -> tuple[ClassScores, ...]:
    """Precision, recall and F1 of each class.

    Args:
        truth: (N, C) 0/1, which classes each example is of.
        guess: (N, C) 0/1, which it was said to be of.
        classes: C names.

    Example:
        >>> class_scores([[1, 0], [0, 1]], [[1, 0], [1, 0]], ["frog", "newt"])[0].precision
        0.5
    """
    is_class, said = np.asarray(truth, bool), np.asarray(guess, bool)
    if is_class.shape != said.shape or is_class.ndim != 2 or is_class.shape[1] != len(classes):
        raise ConfigError(
            f"truth {is_class.shape} and predictions {said.shape} do not fit {len(classes)} classes. "
            f"Expected (N, {len(classes)}) for both."
        )
    hits, support, predicted = (is_class & said).sum(0), is_class.sum(0), said.sum(0)
    return tuple(
        ClassScores(name, int(n), int(p), _share(hit, p), _share(hit, n), _share(2 * hit, n + p))
        for name, hit, n, p in zip(classes, hits, support, predicted, strict=True)
    )


def _share(part: int, whole: int) -> float:
    return float(part) / float(whole) if whole else float("nan")
