"""`avex.fit_probe`: embeddings and labels in, a trained probe with its metrics out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from avex._core.errors import ConfigError, did_you_mean
from avex.data import Split, check_leakage, make_split, split_from_column
from avex.training.probes.crossval import (
    VALIDATION_FRACTION,
    CrossValidation,
    Folds,
    cross_validate_examples,
    hold_out,
)
from avex.training.probes.examples import Examples, Unit
from avex.training.probes.fitting import Recipe, fit_examples, is_trained_in_batches
from avex.training.probes.gather import LabelOptions, gather
from avex.training.probes.loop import predict_logits
from avex.training.probes.options import ClassWeights, FitOptions, ProbeChoice, make_options
from avex.training.probes.result import Evaluation, ProbeFit, probabilities

TEST_FRACTION = 0.2
_METHODS = ("auto", "stratified", "grouped")


def fit_probe(
    embeddings: Any,
    labels: Any,
    config: ProbeChoice = None,
    *,
    classes: Sequence[str] | None = None,
    groups: Sequence[Any] | str | None = None,
    multilabel: bool | None = None,
    unit: Unit | None = None,
    label_column: str | None = None,
    split: str | Split | None = "auto",
    test_fraction: float = TEST_FRACTION,
    val_fraction: float | None = None,
    folds: Folds | None = None,
    class_weights: ClassWeights = None,
    seed: int = 0,
    device: str = "cpu",
    options: FitOptions | None = None,
    **training: Any,
) -> ProbeFit:
    """Train a probe on embeddings and say how good it is.

    A linear probe (the default) is fitted exactly, as scikit-learn's logistic regression on standardised
    features; how strongly it is regularised is chosen by cross-validation inside the training examples.
    Standardisation is part of the probe. The same seed gives the same probe.

    Args:
        embeddings: (N, D) or (N, T, D) array or tensor; a list of N arrays (T, D); or an embedding store or
            its path.
        labels: One per embedding: names, class indices, collections of names, or (N, C) of 0 and 1. With a
            store also a label table (CSV, TSV, Parquet, DataFrame) with a column `recording`, `path` or
            `file`, a column `label` or `labels`, and optionally `start_s` and `end_s`.
        config: A `ProbeConfig`, its fields, a YAML file, or the name of a type (`linear`, `mlp`, `knn`, ...).
            Layers and pooling are those of the store if it does not say. Several layers in an array are taken to
            be equally wide; a store knows their widths.
        classes: Names in the order of the logits; None takes those that occur, sorted.
        groups: What must never be in two parts of a split: one value per example, or a column of the label
            table. None takes the recording.
        multilabel: Whether an example may be of several classes or none. None sees whether any is.
        unit: With a label table, what an example is: a `recording` (mean of its windows; their sequence for
            sequence probes) or a `window`. None takes recordings unless labels are of parts of them.
        label_column: Column of the label table to take labels from.
        split: `stratified`, `grouped`, `auto` (grouped if recordings have several examples); a column of the
            label table that says train, validation or test; a `Split`; or None to train on everything.
        test_fraction: Share of the examples for the test.
        val_fraction: Share for validation. None holds out 0.15 for heads that stop early and none for others.
        folds: Estimate the metrics by cross-validation instead, then train on everything: how many folds, a
            column of the label table, or one value per example.
        class_weights: `balanced`, weights by name, or None.
        seed: Of splits, weights and order.
        device: Where heads are trained in mini-batches.
        options: How to train.
        **training: Fields of `FitOptions`, as a short cut (`strength=0.01`, `epochs=50`).

    Returns:
        The probe with its metrics: see `ProbeFit`.

    Raises:
        ConfigError: Embeddings, labels, split and probe do not fit each other; the message says what to do.
        TrainingDivergedError: The loss became NaN.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> names = ["frog", "newt"] * 20
        >>> x = rng.normal(size=(40, 8)) + np.array([[0.0], [6.0]] * 20)
        >>> fit = fit_probe(x, names, strength=0.1)
        >>> fit.metrics["accuracy"].value, fit.predict(x[:2])
        (1.0, ['frog', 'newt'])
    """
    started = time.perf_counter()
    label_options = LabelOptions(classes, multilabel, unit, label_column, groups=groups)
    examples, probe_config = gather(embeddings, labels, config, label_options)
    recipe = Recipe(probe_config, make_options(options, training), class_weights, seed, device)
    if folds is None:
        parts = _split(examples, recipe, split, test_fraction, val_fraction)
        validated = None
    else:
        if split != "auto":
            raise ConfigError("Give either a split or folds, not both.")
        validated = cross_validate_examples(examples, recipe, folds)
        parts = _split(examples, recipe, None, 0.0, val_fraction)
    return _fit(examples, recipe, parts, validated, started)


def _fit(
    examples: Examples, recipe: Recipe, parts: Split, validated: CrossValidation | None, started: float
) -> ProbeFit:
    validation = examples.subset(parts.validation) if len(parts.validation) else None
    # Folds that were given are also those to choose by.
    given = validated is not None and validated.given and validation is None
    inner = np.array(validated.numbers()) if validated is not None and given else None
    fitted = fit_examples(recipe, examples.subset(parts.train), validation, inner)
    evaluation = None if validated is None else validated.evaluation
    sizes = {name: len(indices) for name, indices in parts.parts().items()}
    if len(parts.test):
        test = examples.subset(parts.test)
        scores = probabilities(predict_logits(fitted.probe, test.features), examples.targets.task)
        evaluation = Evaluation.of(test, scores, resamples=recipe.options.resamples, seed=recipe.seed)
    if validated is not None:
        sizes["out of fold"] = len(examples)
    return ProbeFit(
        probe=fitted.probe,
        classes=examples.targets.classes,
        task=examples.targets.task,
        config=recipe.config,
        options=recipe.options,
        seed=recipe.seed,
        sizes=sizes,
        evaluation=evaluation,
        seconds=time.perf_counter() - started,
        fold_metrics=() if validated is None else validated.fold_metrics,
        history=fitted.history,
        strength=fitted.choice,
        header=examples.header,
        unit=examples.unit,
        is_sequence=examples.is_sequence,
        notes=examples.notes,
    )


def _split(
    examples: Examples, recipe: Recipe, how: str | Split | None, test: float, validation: float | None
) -> Split:
    """Parts of the examples, without a group in two of them."""
    if validation is None:
        validation = VALIDATION_FRACTION if is_trained_in_batches(recipe.config) else 0.0
    if how is None or (isinstance(how, str) and how in _METHODS):
        parts = _dealt(examples, how, 0.0 if how is None else test, validation, recipe.seed)
    else:
        parts = how if isinstance(how, Split) else _from_column(examples, how)
        check_leakage(parts, examples.groups)
        if not len(parts.validation) and validation:
            train, held_out = hold_out(examples, parts.train, validation, recipe.seed)
            parts = Split(train, held_out, parts.test)
    check_leakage(parts, examples.groups)
    return parts


def _dealt(examples: Examples, how: str | None, test: float, validation: float, seed: int) -> Split:
    if not test and not validation:
        return Split(np.arange(len(examples)))
    repeated = len(set(examples.groups)) < len(examples)
    return make_split(
        examples.targets.values,
        validation=validation,
        test=test,
        groups=examples.groups if how == "grouped" or (how != "stratified" and repeated) else None,
        seed=seed,
        classes=examples.targets.classes,
    )


def _from_column(examples: Examples, name: str) -> Split:
    if examples.table is None or name not in examples.table.columns:
        known = [*_METHODS, *(examples.table.columns if examples.table else ())]
        raise ConfigError(
            f"Unknown split '{name}'.{did_you_mean(name, known)} Choose {', '.join(_METHODS)}, or a column "
            "of the label table that says train, validation or test."
        )
    return split_from_column(examples.column(name))
