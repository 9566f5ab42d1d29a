"""Linear probes by exact optimisation: L2-regularised logistic regression with L-BFGS.

The objective is that of scikit-learn's `LogisticRegression`: `C * sum_i w_i loss_i + |W|^2 / 2`, the
intercept free, with the multinomial loss for one label per example and one binary loss per class for
several. It is convex, so both arrive at the same probabilities. The penalty does not change under rotation:
the features are turned to their principal axes, and each parameter is scaled by the curvature of the
objective along it, after which half the steps are enough (Nocedal and Wright, Numerical Optimization, 2006,
chapters 5 and 7).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from avex._core.errors import ConfigError

MAX_ITERATIONS = 500
# Largest slope at the end, in coordinates where the curvature is about one: the loss is then within
# (slope^2 / 2) * parameters of its minimum.
TOLERANCE = 1e-6
# What single precision can reach.
_SINGLE_TOLERANCE = 5e-5
_CHANGE = 1e-12
# Multiplications per pass from which single precision is used: it is three times as fast, and sums of
# thousands of losses are not where it loses anything (they are summed in double precision).
_LARGE = 50_000_000
_HISTORY = 20
_RANK = 1e-10
_FLAT = 1e-6
# Rows that the axes are found from.
_SAMPLE = 2048


@dataclass(frozen=True)
class LinearSolution:
    """Coefficients for one strength of regularisation.

    Attributes:
        strength: C, the inverse of the penalty; smaller is stronger.
        weight: (C, D) float64.
        bias: (C,) float64.
        iterations: Steps taken.
        converged: Whether the slope fell below the tolerance.
    """

    strength: float
    weight: Tensor
    bias: Tensor
    iterations: int
    converged: bool

    def logits(self, x: Tensor) -> Tensor:
        """Logits (N, C) of features (N, D)."""
        return x.to(self.weight.dtype) @ self.weight.t() + self.bias


def fit_path(
    x: Tensor,
    targets: Tensor,
    strengths: Sequence[float],
    weights: Tensor | None = None,
    num_classes: int | None = None,
    tolerance: float = TOLERANCE,
) -> Iterator[LinearSolution]:
    """Fit logistic regressions for several strengths, each starting from the one before.

    Args:
        x: (N, D) features, standardised.
        targets: (N,) class indices, or (N, C) 0/1 for several labels.
        strengths: Values of C, best in ascending order (the first are the fastest).
        weights: (N,), or (N, C) for several labels: weight of each loss; None is one for all.
        num_classes: C for class indices; None takes the largest index.
        tolerance: Largest slope at the end.

    Yields:
        One solution per strength.

    Raises:
        ConfigError: Features are not finite, or a strength is not positive.

    Example:
        >>> x = torch.tensor([[-1.0], [-2.0], [1.0], [2.0]])
        >>> solution = next(fit_path(x, torch.tensor([0, 0, 1, 1]), [1.0]))
        >>> solution.logits(x).argmax(1).tolist()
        [0, 0, 1, 1]
    """
    problem = _Problem(x, targets, weights, num_classes)
    start = torch.zeros(problem.num_outputs, problem.rank + 1, dtype=torch.float64)
    for strength in strengths:
        if not strength > 0:
            raise ConfigError(f"The strength C is {strength}. Expected a positive number, such as 0.01.")
        start, iterations, converged = problem.minimise(float(strength), start, tolerance)
        yield LinearSolution(float(strength), *problem.in_features(start), iterations, converged)


def penalty_factor(classes: int, *, exclusive: bool) -> float:
    """How often the penalty of the weights counts.

    Two classes that exclude each other are one decision: its penalty counts both rows of the weights.

    Example:
        >>> penalty_factor(2, exclusive=True), penalty_factor(2, exclusive=False)
        (2.0, 1.0)
    """
    return 2.0 if classes == 2 and exclusive else 1.0


class _Problem:
    """The data in principal axes, and the objective there."""

    def __init__(self, x: Tensor, targets: Tensor, weights: Tensor | None, num_classes: int | None) -> None:
        if x.ndim != 2 or not len(x) or not torch.isfinite(x).all():
            raise ConfigError(
                f"Features of shape {tuple(x.shape)} cannot be fitted: expected (N, D) finite numbers. "
                "Check the embeddings."
            )
        self._multi = targets.ndim == 2
        classes = targets.shape[1] if self._multi else num_classes or int(targets.max()) + 1
        self._dtype = torch.float32 if x.numel() * classes > _LARGE else torch.float64
        axes = _principal_axes(x, self._dtype)
        self._axes, self._coordinates = axes, x.to(self._dtype) @ axes.to(self._dtype)
        self.rank = axes.shape[1]
        self._penalty = penalty_factor(classes, exclusive=not self._multi)
        self.num_outputs = classes
        self._targets = targets.to(self._dtype) if self._multi else targets.long()
        ones = torch.ones(targets.shape, dtype=self._dtype)
        self._weights = ones if weights is None else weights.to(self._dtype)
        self._total = float(self._weights.sum(dtype=torch.float64)) / (classes if self._multi else 1)

    def minimise(self, strength: float, start: Tensor, tolerance: float) -> tuple[Tensor, int, bool]:
        penalty = self._penalty / (strength * self._total)
        if self._dtype == torch.float32:
            tolerance = max(tolerance, _SINGLE_TOLERANCE)
        scale = self._curvature_at(start, penalty).rsqrt()
        scaled = (start / scale).requires_grad_()
        optimiser = torch.optim.LBFGS(
            [scaled],
            max_iter=MAX_ITERATIONS,
            max_eval=2 * MAX_ITERATIONS,
            tolerance_grad=tolerance,
            tolerance_change=_CHANGE,
            history_size=_HISTORY,
            line_search_fn="strong_wolfe",
        )

        def closure() -> Tensor:
            value, slope = self._objective(scaled.detach() * scale, penalty)
            scaled.grad = slope * scale
            return value

        optimiser.step(closure)
        found = scaled.detach() * scale
        slope = self._objective(found, penalty)[1]
        steps = optimiser.state[scaled]["n_iter"]
        return found, int(steps), bool((slope * scale).abs().max() <= 10 * tolerance)

    def _curvature_at(self, parameters: Tensor, penalty: float) -> Tensor:
        """Second derivative of the objective by each parameter alone, (C, rank + 1)."""
        logits = self._logits(parameters)
        p = torch.sigmoid(logits) if self._multi else torch.softmax(logits, 1)
        spread = p * (1 - p) * (self._weights if self._multi else self._weights[:, None]) / self._total
        curvature = torch.cat([spread.t() @ self._coordinates.square(), spread.sum(0)[:, None]], 1)
        curvature = curvature.to(torch.float64)
        curvature[:, :-1] += penalty
        return curvature.clamp_(min=_FLAT)

    def _logits(self, parameters: Tensor) -> Tensor:
        weight, bias = parameters[:, :-1].to(self._dtype), parameters[:, -1].to(self._dtype)
        return torch.addmm(bias, self._coordinates, weight.t())

    def _objective(self, parameters: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
        """Mean loss plus penalty, and its gradient, (C, rank + 1)."""
        weight, logits = parameters[:, :-1], self._logits(parameters)
        losses, error = self._binary(logits) if self._multi else self._multinomial(logits)
        slope = torch.cat([error.t() @ self._coordinates, error.sum(0)[:, None]], 1).to(torch.float64)
        slope /= self._total
        slope[:, :-1] += penalty * weight
        value = losses.sum(dtype=torch.float64) / self._total + penalty / 2 * weight.square().sum()
        return value, slope

    def _multinomial(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        log_p = torch.log_softmax(logits, 1)
        picked = self._targets[:, None]
        losses = -log_p.gather(1, picked)[:, 0] * self._weights
        error = log_p.exp_()
        error.scatter_add_(1, picked, torch.full(picked.shape, -1, dtype=self._dtype))
        return losses, error.mul_(self._weights[:, None])

    def _binary(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        losses = torch.nn.functional.binary_cross_entropy_with_logits(
            logits, self._targets, self._weights, reduction="none"
        )
        return losses, (torch.sigmoid(logits) - self._targets) * self._weights

    def in_features(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Weight and bias for the features as they were given."""
        return parameters[:, :-1] @ self._axes.to(torch.float64).t(), parameters[:, -1].clone()


def _principal_axes(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Orthonormal directions (D, R) to describe the data in, exactly; R is smaller than D for fewer rows than D."""
    if len(x) < x.shape[1]:
        # Squares are summed in double precision: axes of little extent would drown in rounding otherwise.
        exact = x.to(torch.float64)
        values, vectors = torch.linalg.eigh(exact @ exact.t())
        keep = values > values[-1].clamp(min=1e-300) * _RANK
        return exact.t() @ (vectors[:, keep] * values[keep].rsqrt())
    # Any basis is exact here, so that a sample of the rows is enough to find a good one.
    sample = x[:: max(1, len(x) // _SAMPLE)].to(dtype)
    return torch.linalg.eigh(sample.t() @ sample)[1]
