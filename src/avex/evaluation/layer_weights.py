"""A linear probe on the weighted sum of layers, with softmax weights that are learned together with it.

Each layer is standardised, so that weights are comparable. The objective is that of the linear probe, with one more
parameter per layer; it is minimised by L-BFGS on all training clips at once, from equal weights.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from avex.configs import ProbeConfig
from avex.evaluation.predicting import Predictions, predict_rounds
from avex.evaluation.tasks import Indices, Task
from avex.training.probes.fitting import Recipe
from avex.training.probes.linear import penalty_factor
from avex.training.probes.options import FitOptions
from avex.training.probes.result import probabilities
from avex.training.probes.strength import standardiser

Floats = npt.NDArray[np.float32]
_STEPS = 200
_TOLERANCE = 1e-6


def predict_weighted(task: Task, layers: Floats, seed: int) -> tuple[Predictions, list[float]]:
    """Train and test in every round of a task.

    The strength of the regularisation is the one that suits the plain mean of the layers in that round.

    Args:
        task: The task.
        layers: (N, L, D) embeddings of L layers of one width.
        seed: Of the folds that the strength is chosen by.

    Returns:
        The predictions, and the weight of each layer, the mean over rounds.
    """
    uniform = Recipe(ProbeConfig(target_layers=["embeddings"]), FitOptions(resamples=0), seed=seed)
    learned = np.unique(np.concatenate([round_.train for round_ in task.rounds()]))
    first = predict_rounds(task, _standardised_mean(layers, learned), uniform)
    table = np.zeros_like(first.probabilities)
    targets = task.targets()
    shares = []
    place = {int(clip): row for row, clip in enumerate(first.clips)}
    for round_, strength in zip(task.rounds(), first.strengths, strict=True):
        train = torch.from_numpy(layers[round_.train])
        known = np.flatnonzero(targets.table()[round_.train].any(0))
        truth = torch.from_numpy(targets.table()[round_.train][:, known].astype(np.float32))
        model = _fit(train, truth, strength, targets.task == "single-label")
        shares.append(model.shares())
        logits = model.logits(torch.from_numpy(layers[round_.test])).numpy()
        rows = np.array([place[int(clip)] for clip in round_.test])
        table[np.ix_(rows, known)] = probabilities(logits, targets.task)
    found = Predictions(first.clips, table, first.rounds, first.strengths)
    return found, [float(value) for value in np.mean(shares, axis=0)]


def _standardised_mean(layers: Floats, learned: Indices) -> Floats:
    """Mean of the layers of each clip, each layer in units of its spread over the clips that are learned."""
    scale = layers[learned].std((0, 2), keepdims=True)
    return (layers / np.maximum(scale, 1e-12)).mean(1, dtype=np.float32)


class _Weighted:
    """Weights of layers, coefficients and intercepts, with the statistics of the training clips."""

    def __init__(self, train: Tensor, classes: int) -> None:
        flat = train.flatten(1)
        mean, std = standardiser(flat)
        self._mean, self._std = mean.unflatten(0, train.shape[1:]), std.unflatten(0, train.shape[1:])
        self.mix = torch.zeros(train.shape[1], requires_grad=True)
        self.weight = torch.zeros(classes, train.shape[2], requires_grad=True)
        self.bias = torch.zeros(classes, requires_grad=True)

    def standardise(self, x: Tensor) -> Tensor:
        return (x - self._mean) / self._std

    def of_standardised(self, x: Tensor) -> Tensor:
        mixed = torch.einsum("nld,l->nd", x, self.mix.softmax(0))
        return mixed @ self.weight.t() + self.bias

    @torch.no_grad()
    def logits(self, x: Tensor) -> Tensor:
        return self.of_standardised(self.standardise(x))

    def shares(self) -> Floats:
        return self.mix.detach().softmax(0).numpy()


def _fit(train: Tensor, truth: Tensor, strength: float, exclusive: bool) -> _Weighted:
    model = _Weighted(train, truth.shape[1])
    x = model.standardise(train)
    parameters = [model.mix, model.weight, model.bias]
    penalty = penalty_factor(truth.shape[1], exclusive=exclusive) / (2 * strength * len(x))
    optimiser = torch.optim.LBFGS(
        parameters, max_iter=_STEPS, tolerance_grad=_TOLERANCE, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        logits = model.of_standardised(x)
        if exclusive:
            loss = torch.nn.functional.cross_entropy(logits, truth)
        else:
            loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, truth) * truth.shape[1]
        value: Tensor = loss + penalty * model.weight.square().sum()
        value.backward()
        return value

    optimiser.step(closure)
    return model
