"""Predictions for clips that a probe did not learn from: round by round, over the parts of a task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from avex.evaluation.tasks import Indices, Round, Task
from avex.training.probes.crossval import VALIDATION_FRACTION, hold_out
from avex.training.probes.examples import Examples, Features
from avex.training.probes.fitting import Fitted, Recipe, fit_examples, is_trained_in_batches
from avex.training.probes.loop import predict_logits
from avex.training.probes.result import probabilities
from avex.training.probes.targets import Targets

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a probe says of the clips that are tested.

    Attributes:
        clips: (M) indices of the clips.
        probabilities: (M, C); 0 for classes that had no clip to learn from.
        rounds: (M) name of the round that each was tested in.
        strengths: Regularisation of each round, of linear probes.
    """

    clips: Indices
    probabilities: Floats
    rounds: tuple[str, ...]
    strengths: tuple[float, ...] = ()


def predict_rounds(
    task: Task,
    features: Features,
    recipe: Recipe,
    choose: Callable[[Round], Indices] | None = None,
) -> Predictions:
    """Train and test in every round of a task.

    The test clips of a round play no part in anything that is chosen: regularisation and the moment to stop are
    chosen by validation clips, by the other folds, or by clips held out of the training part.

    Args:
        task: The task.
        features: (N, D), or N sequences (T, D), of its clips.
        recipe: The probe, and how it is trained.
        choose: Which training clips of a round to learn from; None takes all.

    Raises:
        ConfigError: A probe that does not fit the features, or fewer than two classes to learn.
        TrainingDivergedError: The loss became NaN.
    """
    examples = Examples(
        features, task.targets(), tuple(clip.id for clip in task.clips), task.groups, unit="window"
    )
    parts = [_one_round(examples, recipe, round_, choose) for round_ in task.rounds()]
    names = [name for round_ in task.rounds() for name in [round_.name] * len(round_.test)]
    order = np.concatenate([round_.test for round_ in task.rounds()])
    ascending = np.argsort(order)
    strengths = tuple(f.choice.strength for _, f in parts if f.choice is not None)
    table = np.concatenate([scores for scores, _ in parts])[ascending]
    return Predictions(order[ascending], table, tuple(names[int(i)] for i in ascending), strengths)


def _one_round(
    examples: Examples, recipe: Recipe, round_: Round, choose: Callable[[Round], Indices] | None
) -> tuple[Floats, Fitted]:
    train, validation, inner = round_.train, round_.validation, round_.inner
    if choose is not None:
        train = choose(round_)
        inner = None if inner is None else inner[np.searchsorted(round_.train, train)]
    if is_trained_in_batches(recipe.config) and not len(validation):
        train, validation, inner = _held_out(examples, recipe, train, inner)
    if inner is not None and len(np.unique(inner)) < 2:
        inner = None
    known = np.flatnonzero(examples.targets.table()[train].any(0))
    learned = _subset(examples, train, known)
    held = _subset(examples, validation, known) if len(validation) else None
    fitted = fit_examples(recipe, learned, held, inner)
    logits = predict_logits(fitted.probe, examples.subset(round_.test).features)
    scores = np.zeros((len(round_.test), len(examples.targets.classes)), np.float32)
    scores[:, known] = probabilities(logits, examples.targets.task)
    return scores, fitted


def _held_out(
    examples: Examples, recipe: Recipe, train: Indices, inner: Indices | None
) -> tuple[Indices, Indices, Indices | None]:
    """Training and validation clips for heads that stop early: one of the other folds, else a share."""
    if inner is None:
        return *hold_out(examples, train, VALIDATION_FRACTION, recipe.seed), None
    first = inner == np.unique(inner)[0]
    return train[~first], train[first], None


def _subset(examples: Examples, indices: Indices, known: Indices) -> Examples:
    """Some of the examples with the classes that can be learned; single labels beyond them are left out."""
    targets = examples.targets
    classes = tuple(targets.classes[int(i)] for i in known)
    if targets.values.ndim == 2:
        part = examples.subset(indices)
        return replace(part, targets=Targets(part.targets.values[:, known], classes))
    number = np.full(len(targets.classes), -1)
    number[known] = np.arange(len(known))
    kept = indices[number[targets.values[indices]] >= 0]
    part = examples.subset(kept)
    return replace(part, targets=Targets(number[part.targets.values], classes))
