"""Choosing how strongly a linear probe is regularised, by cross-validation inside the training examples.

Strong regularisation often ranks the classes best and yet is far too unsure, which plain log loss punishes
and accuracy does not see; accuracy in turn is too coarse to choose by among a few hundred examples. So each
strength is judged by its log loss after the best single scaling of its logits (temperature scaling, Guo et
al. 2017, arXiv:1706.04599).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from avex._core.errors import ConfigError
from avex.data import make_folds
from avex.training.probes.linear import LinearSolution, fit_path
from avex.training.probes.options import FitOptions
from avex.training.probes.targets import Targets

# From this many examples on, one held-out part is as good as several folds.
_MANY = 5000
# Strengths after the best one that are tried before the search stops.
_LOOKAHEAD = 2
_COARSE = 1e-4
_LOG_SCALES = (-3.0, 3.5)
_GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True)
class StrengthChoice:
    """What the search found.

    Attributes:
        strength: C.
        scale: Factor for the logits that calibrates them.
        losses: Strength to mean log loss after scaling, of those that were tried.
    """

    strength: float
    scale: float = 1.0
    losses: dict[float, float] = field(default_factory=dict)


def standardiser(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each feature; 1 where a feature does not vary beyond rounding."""
    exact = x.to(torch.float64)
    mean, std = exact.mean(0), exact.std(0, unbiased=False)
    flat = std <= 1e-6 * exact.abs().amax(0).clamp(min=1e-12)
    return mean.to(x.dtype), torch.where(flat, torch.ones_like(std), std).to(x.dtype)


def loss_weights(targets: Targets, weights: npt.NDArray[np.float64] | None) -> Tensor | None:
    """Weights of the classes as weights of single losses: (N,), or (N, C) for several labels."""
    if weights is None:
        return None
    if targets.task == "single-label":
        return torch.from_numpy(weights[targets.values])
    return torch.from_numpy(np.where(targets.values == 1, weights, 1.0))


def choose_strength(
    x: npt.NDArray[np.float32],
    targets: Targets,
    groups: Sequence[Any],
    options: FitOptions,
    weights: npt.NDArray[np.float64] | None = None,
    folds: npt.NDArray[np.int64] | None = None,
    seed: int = 0,
) -> StrengthChoice:
    """Choose C for features that are not standardised yet.

    Args:
        x: (N, D) features of the training examples.
        targets: Their classes.
        groups: What must not be on both sides of a fold.
        options: Strengths and number of folds.
        weights: (C,) weights of the classes.
        folds: (N,) given folds to choose by; -1 for examples that are only ever learned from.
        seed: Of the folds.

    Raises:
        ConfigError: A class has too few examples to hold some out.
    """
    if folds is None:
        folds = _inner_folds(targets, groups, options.inner_folds, seed)
    held_out = [fold for fold in np.unique(folds) if fold >= 0]
    if len(x) >= _MANY:
        held_out = held_out[:1]
    parts = [_Fold(x, targets, weights, folds == fold, options) for fold in held_out]
    truth = torch.cat([part.truth for part in parts])
    losses: dict[float, float] = {}
    scales: dict[float, float] = {}
    for strength in sorted(options.strengths):
        logits = torch.cat([next(part.solutions) for part in parts])
        scales[strength], losses[strength] = best_scale(logits, truth)
        ranked = sorted(losses, key=lambda s: losses[s])
        if sum(tried > ranked[0] for tried in losses) >= _LOOKAHEAD:
            break
    best = min(losses, key=lambda s: losses[s])
    return StrengthChoice(best, scales[best], losses)


def _inner_folds(targets: Targets, groups: Sequence[Any], k: int, seed: int) -> npt.NDArray[np.int64]:
    repeated = len(set(groups)) < len(groups)
    counts = _examples_per_class(targets, groups)
    smallest = int(counts[counts > 0].min())
    if smallest < 2:
        rare = targets.classes[int(np.flatnonzero(counts == smallest)[0])]
        raise ConfigError(
            f"Class '{rare}' has only one training example (or recording), so none can be held out to "
            "choose the regularisation. Add recordings, or give the strength (0.01 is usual)."
        )
    return make_folds(
        targets.values,
        min(k, smallest),
        groups=groups if repeated else None,
        seed=seed,
        classes=targets.classes,
    )


def _examples_per_class(targets: Targets, groups: Sequence[Any]) -> npt.NDArray[np.int64]:
    table = targets.table().astype(bool)
    numbers = np.unique(np.array([str(group) for group in groups]), return_inverse=True)[1].reshape(-1)
    present = np.zeros((int(numbers.max()) + 1, table.shape[1]), bool)
    np.logical_or.at(present, numbers, table)
    return present.sum(0)


class _Fold:
    """One part that is held out: its truth, and its logits for one strength after the other."""

    def __init__(
        self,
        x: npt.NDArray[np.float32],
        targets: Targets,
        weights: npt.NDArray[np.float64] | None,
        out: npt.NDArray[np.bool_],
        options: FitOptions,
    ) -> None:
        learned = Targets(targets.values[~out], targets.classes)
        train, held = torch.from_numpy(x[~out]), torch.from_numpy(x[out])
        if options.standardise:
            mean, std = standardiser(train)
            train, held = (train - mean) / std, (held - mean) / std
        path = fit_path(
            train,
            torch.from_numpy(learned.values),
            sorted(options.strengths),
            loss_weights(learned, weights),
            len(targets.classes),
            _COARSE,
        )
        self.truth = torch.from_numpy(targets.values[out])
        self.solutions = _logits(path, held)


def _logits(path: Iterator[LinearSolution], held: Tensor) -> Iterator[Tensor]:
    return (solution.logits(held) for solution in path)


def best_scale(logits: Tensor, truth: Tensor) -> tuple[float, float]:
    """Factor for logits with the smallest log loss, and that loss.

    Truth is taken for nearly, not quite, certain (Platt, 1999), so that the factor stays finite where every
    example is right.

    Args:
        logits: (N, C).
        truth: (N,) class indices, or (N, C) 0/1.
    """
    doubt = 1 / (len(logits) + 2)

    def loss(log_scale: float) -> float:
        scaled = logits * math.exp(log_scale)
        if truth.ndim == 1:
            return float(torch.nn.functional.cross_entropy(scaled, truth, label_smoothing=doubt))
        soft = truth.to(scaled.dtype) * (1 - doubt) + doubt / 2
        return float(torch.nn.functional.binary_cross_entropy_with_logits(scaled, soft))

    log_scale = _golden_section(loss, *_LOG_SCALES)
    return math.exp(log_scale), loss(log_scale)


def _golden_section(function: Callable[[float], float], low: float, high: float) -> float:
    """Minimum of a function with one valley, to 0.005."""
    a, b = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_a, at_b = function(a), function(b)
    while high - low > 0.005:
        if at_a < at_b:
            high, b, at_b = b, a, at_a
            a = high - _GOLDEN * (high - low)
            at_a = function(a)
        else:
            low, a, at_a = a, b, at_b
            b = low + _GOLDEN * (high - low)
            at_b = function(b)
    return (low + high) / 2
