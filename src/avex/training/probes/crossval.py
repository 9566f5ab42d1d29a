"""Cross-validation of a probe: every example is predicted by a probe that did not see its fold."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from avex._core.errors import ConfigError
from avex.configs.probe import ProbeConfig
from avex.data import Split, check_leakage, make_folds, make_split
from avex.metrics import ScoreSet
from avex.training.probes.examples import Examples
from avex.training.probes.fitting import Recipe, fit_examples, is_trained_in_batches
from avex.training.probes.gather import LabelOptions, gather
from avex.training.probes.loop import predict_logits
from avex.training.probes.options import ClassWeights, FitOptions, ProbeChoice, make_options
from avex.training.probes.result import Evaluation, mean_and_deviation, probabilities

Folds = int | str | Sequence[Any] | npt.NDArray[Any]
VALIDATION_FRACTION = 0.15


@dataclass(frozen=True, eq=False)
class CrossValidation:
    """Predictions out of fold.

    Attributes:
        classes: Names, in the order of the probabilities.
        config: The probe.
        evaluation: Predictions of all examples, and metrics over all of them.
        fold_of: (N) fold of each example, by the names that the folds were given.
        fold_metrics: Metric values of each fold.
        strengths: C of the linear probe of each fold; empty for other heads.
        seconds: How long it took.
        notes: What was left out, for people.
        given: Whether the folds were given rather than dealt.
    """

    classes: tuple[str, ...]
    config: ProbeConfig
    evaluation: Evaluation
    fold_of: tuple[str, ...]
    fold_metrics: tuple[Mapping[str, float], ...]
    strengths: tuple[float, ...]
    seconds: float
    notes: tuple[str, ...] = ()
    given: bool = False

    def numbers(self) -> list[int]:
        """Fold of each example as a number from 0."""
        names = {name: i for i, name in enumerate(dict.fromkeys(self.fold_of))}
        return [names[name] for name in self.fold_of]

    @property
    def metrics(self) -> ScoreSet:
        """Metrics over all examples, with confidence intervals."""
        return self.evaluation.metrics

    def over_folds(self) -> dict[str, tuple[float, float]]:
        """Mean of each metric over the folds, and its standard deviation."""
        return mean_and_deviation(self.fold_metrics)


def cross_validate_probe(
    embeddings: Any,
    labels: Any,
    config: ProbeChoice = None,
    *,
    folds: Folds = 5,
    classes: Sequence[str] | None = None,
    groups: Sequence[Any] | str | None = None,
    multilabel: bool | None = None,
    unit: Any = None,
    label_column: str | None = None,
    class_weights: ClassWeights = None,
    seed: int = 0,
    device: str = "cpu",
    options: FitOptions | None = None,
    **training: Any,
) -> CrossValidation:
    """Estimate how good a probe is by cross-validation.

    Everything that is chosen (standardisation, regularisation, when to stop) is chosen inside the training
    folds. Folds that are given are used for that too: a linear probe is chosen by cross-validation over the
    other folds, heads that stop early hold out the next one.

    Args:
        embeddings: See `fit_probe`.
        labels: See `fit_probe`.
        config: See `fit_probe`.
        folds: How many; or a column of the label table; or the fold of each example.
        classes: See `fit_probe`.
        groups: See `fit_probe`.
        multilabel: See `fit_probe`.
        unit: See `fit_probe`.
        label_column: See `fit_probe`.
        class_weights: See `fit_probe`.
        seed: See `fit_probe`.
        device: See `fit_probe`.
        options: See `fit_probe`.
        **training: Fields of `FitOptions`.

    Raises:
        ConfigError: See `fit_probe`; also a recording that is in two folds.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> x, y = rng.normal(size=(60, 4)), np.arange(60) % 3
        >>> x[np.arange(60), y] += 8
        >>> cross_validate_probe(x, y, folds=3, strength=0.1).metrics["accuracy"].value
        1.0
    """
    label_options = LabelOptions(classes, multilabel, unit, label_column, groups=groups)
    examples, probe_config = gather(embeddings, labels, config, label_options)
    recipe = Recipe(probe_config, make_options(options, training), class_weights, seed, device)
    return cross_validate_examples(examples, recipe, folds)


def cross_validate_examples(examples: Examples, recipe: Recipe, folds: Folds) -> CrossValidation:
    """`cross_validate_probe` for examples that are there already."""
    started = time.perf_counter()
    fold_of, given = _folds(examples, folds, recipe.seed)
    names = list(dict.fromkeys(sorted(fold_of, key=_sort_key)))
    numbers = np.array([names.index(name) for name in fold_of])
    if len(names) < 2:
        raise ConfigError(
            f"All examples are in the fold '{names[0]}'. Cross-validation needs at least two folds."
        )
    everything = np.zeros((len(examples), len(examples.targets.classes)), np.float32)
    fold_metrics, strengths = [], []
    for fold in range(len(names)):
        test = np.flatnonzero(numbers == fold)
        check_leakage(Split(np.flatnonzero(numbers != fold), test=test), examples.groups)
        scores, strength = _one_fold(examples, recipe, numbers, fold, given)
        everything[test] = scores
        own = Evaluation.of(examples.subset(test), scores, resamples=0, seed=recipe.seed)
        fold_metrics.append({name: score.value for name, score in own.metrics.items()})
        strengths += [] if strength is None else [strength]
    evaluation = Evaluation.of(examples, everything, resamples=recipe.options.resamples, seed=recipe.seed)
    return CrossValidation(
        examples.targets.classes,
        recipe.config,
        evaluation,
        tuple(fold_of),
        tuple(fold_metrics),
        tuple(strengths),
        time.perf_counter() - started,
        examples.notes,
        given,
    )


def hold_out(
    examples: Examples, indices: npt.NDArray[np.int64], fraction: float, seed: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Split off a validation part of some examples, whole groups at a time."""
    groups = [examples.groups[int(i)] for i in indices]
    repeated = len(set(groups)) < len(groups)
    split = make_split(
        examples.targets.values[indices],
        validation=fraction,
        test=0.0,
        groups=groups if repeated else None,
        seed=seed,
        classes=examples.targets.classes,
    )
    return indices[split.train], indices[split.validation]


def _one_fold(
    examples: Examples, recipe: Recipe, numbers: npt.NDArray[np.int64], fold: int, given: bool
) -> tuple[npt.NDArray[np.float32], float | None]:
    train, test = np.flatnonzero(numbers != fold), np.flatnonzero(numbers == fold)
    validation = None
    if is_trained_in_batches(recipe.config):
        count = int(numbers.max()) + 1
        if given and count > 2:
            following = (fold + 1) % count
            validation = np.flatnonzero(numbers == following)
            train = np.flatnonzero((numbers != fold) & (numbers != following))
        else:
            train, validation = hold_out(examples, train, VALIDATION_FRACTION, recipe.seed)
    inner = numbers[train] if given and len(np.unique(numbers[train])) > 1 else None
    fitted = fit_examples(
        recipe, examples.subset(train), None if validation is None else examples.subset(validation), inner
    )
    logits = predict_logits(fitted.probe, examples.subset(test).features)
    strength = None if fitted.choice is None else fitted.choice.strength
    return probabilities(logits, examples.targets.task), strength


def _folds(examples: Examples, folds: Folds, seed: int) -> tuple[list[str], bool]:
    """Fold of each example as text, and whether it was given rather than dealt."""
    if isinstance(folds, str):
        return list(examples.column(folds)), True
    if not isinstance(folds, (int, np.integer)):
        if len(folds) != len(examples):
            raise ConfigError(
                f"There are {len(folds)} folds for {len(examples)} examples. Expected one for each."
            )
        return [str(fold) for fold in folds], True
    groups = examples.groups if len(set(examples.groups)) < len(examples) else None
    dealt = make_folds(
        examples.targets.values, int(folds), groups=groups, seed=seed, classes=examples.targets.classes
    )
    return [str(fold) for fold in dealt], False


def _sort_key(name: str) -> tuple[int, str]:
    """Numbers by value, then names."""
    return (int(name), "") if name.isdecimal() else (1 << 62, name)
