"""From examples to a trained probe: exact for linear heads, in one pass for prototypes, else in mini-batches."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from avex._core.errors import ConfigError
from avex.configs.probe import ProbeConfig
from avex.metrics import average_precision
from avex.models.probes import LinearProbe, Probe, build_probe_from_config
from avex.training.probes.examples import Examples
from avex.training.probes.linear import fit_path
from avex.training.probes.loop import Epoch, Part, collate, train_head
from avex.training.probes.options import ClassWeights, FitOptions
from avex.training.probes.strength import StrengthChoice, choose_strength, loss_weights, standardiser
from avex.training.probes.targets import Targets, class_weights

_BATCH = 4096
_SHOWN = 8


@dataclass(frozen=True)
class Recipe:
    """All that determines a training besides the examples.

    Attributes:
        config: The probe.
        options: How it is trained.
        weights: Weights of the classes.
        seed: Of weights, order and folds.
        device: Where it is trained.
    """

    config: ProbeConfig
    options: FitOptions
    weights: ClassWeights = None
    seed: int = 0
    device: str = "cpu"


@dataclass(frozen=True, eq=False)
class Fitted:
    """A trained probe.

    Attributes:
        probe: In eval mode.
        history: Epochs, of heads that have any.
        choice: Strength of a linear probe.
    """

    probe: Probe
    history: tuple[Epoch, ...] = ()
    choice: StrengthChoice | None = None


def is_trained_in_batches(config: ProbeConfig) -> bool:
    """Whether a probe type has epochs, and so needs validation examples to stop early."""
    return config.probe_type not in ("linear", "prototype", "knn")


def fit_examples(
    recipe: Recipe,
    train: Examples,
    validation: Examples | None = None,
    folds: npt.NDArray[np.int64] | None = None,
) -> Fitted:
    """Train a probe.

    Args:
        recipe: What and how.
        train: Examples to learn from.
        validation: Examples that decide when to stop, or how strong a linear probe is regularised.
        folds: (N,) folds of the training examples, to choose that strength by; ignored with `validation`.

    Raises:
        ConfigError: A class without training examples, or a probe that does not fit the features.
        TrainingDivergedError: The loss became NaN.
    """
    _check_classes(train)
    # Seeded apart from the global generator, whose state stays as it was.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        probe = build_probe_from_config(
            recipe.config,
            len(train.targets.classes),
            recipe.device,
            input_dim=_input_dim(recipe.config, train),
        )
    if isinstance(probe, LinearProbe):
        return _fit_linear(recipe, probe, train, validation, folds)
    if recipe.options.standardise:
        _standardise(probe, train)
    if not is_trained_in_batches(recipe.config):
        fit: Any = probe
        x, mask = collate(train.features, np.arange(len(train)), probe.device)
        return Fitted(fit.fit(x, torch.from_numpy(train.targets.values.astype(np.int64)), mask).eval())
    weights = class_weights(recipe.weights, train.targets)
    held_out = None if validation is None else Part(validation.features, validation.targets)
    part = Part(train.features, train.targets)
    history = train_head(probe, part, held_out, recipe.options, weights, primary_score, recipe.seed)
    return Fitted(probe, tuple(history))


def primary_score(targets: Targets, logits: npt.NDArray[np.floating]) -> float:
    """The metric that training stops by: accuracy, or mean average precision for several labels."""
    if targets.task == "single-label":
        return float((logits.argmax(1) == targets.values).mean())
    values = [average_precision(y, s)[0] for y, s in zip(targets.values.T, logits.T, strict=True) if y.any()]
    return float(np.mean(values)) if values else math.nan


def _check_classes(train: Examples) -> None:
    counts = train.targets.table().sum(0)
    empty = [name for name, count in zip(train.targets.classes, counts, strict=True) if not count]
    if empty:
        more = f" and {len(empty) - _SHOWN} more" if len(empty) > _SHOWN else ""
        raise ConfigError(
            f"No training example is of class {', '.join(map(repr, empty[:_SHOWN]))}{more}. Add recordings, "
            "leave the class out, or make the other parts of the split smaller."
        )
    if len(counts) < 2 and train.targets.task == "single-label":
        raise ConfigError(
            f"All examples are of class '{train.targets.classes[0]}'. A probe needs at least two classes."
        )


def _input_dim(config: ProbeConfig, train: Examples) -> Any:
    """Shape of one example; layers side by side are as wide as their store says, or else equally wide."""
    shape = train.features[0].shape
    layers = len(config.target_layers)
    if config.input_processing == "flatten":
        if isinstance(train.features, list):
            raise ConfigError(
                "input_processing='flatten' needs sequences of one length, as an array (N, T, D)."
            )
        return tuple(shape)
    if layers == 1 or "all" in config.target_layers:
        return int(shape[-1])
    stored = train.header.extra.get("layer_dims", []) if train.header is not None else []
    if len(stored) == layers and sum(stored) == shape[-1]:
        return list(stored)
    if shape[-1] % layers:
        raise ConfigError(
            f"Embeddings of {shape[-1]} numbers cannot be those of {layers} layers side by side. Name the "
            "layers that they were made from in target_layers."
        )
    return [int(shape[-1]) // layers] * layers


def _fit_linear(
    recipe: Recipe,
    probe: LinearProbe,
    train: Examples,
    validation: Examples | None,
    folds: npt.NDArray[np.int64] | None,
) -> Fitted:
    options = recipe.options
    x = _head_inputs(probe, train)
    weights = class_weights(recipe.weights, train.targets)
    choice = None
    if options.strength is None:
        choice = _choose(recipe, x, probe, train, validation, folds, weights)
    features = torch.from_numpy(x)
    if options.standardise:
        mean, std = standardiser(features)
        probe.set_standardisation(mean, std)
        features = (features - mean) / std
    strength = options.strength if choice is None else choice.strength
    assert strength is not None
    targets = torch.from_numpy(train.targets.values)
    solution = next(
        fit_path(
            features, targets, [strength], loss_weights(train.targets, weights), len(train.targets.classes)
        )
    )
    scale = 1.0 if choice is None else choice.scale
    with torch.no_grad():
        probe.classifier.weight.copy_(solution.weight * scale)
        probe.classifier.bias.copy_(solution.bias * scale)
    return Fitted(probe.eval(), choice=choice)


def _choose(
    recipe: Recipe,
    x: npt.NDArray[np.float32],
    probe: Probe,
    train: Examples,
    validation: Examples | None,
    folds: npt.NDArray[np.int64] | None,
    weights: npt.NDArray[np.float64] | None,
) -> StrengthChoice:
    targets, groups = train.targets, train.groups
    if validation is not None:
        folds = np.r_[np.full(len(train), -1), np.zeros(len(validation), np.int64)]
        x = np.concatenate([x, _head_inputs(probe, validation)])
        targets = Targets(np.concatenate([targets.values, validation.targets.values]), targets.classes)
        groups = (*groups, *validation.groups)
    return choose_strength(x, targets, groups, recipe.options, weights, folds, recipe.seed)


def _standardise(probe: Probe, train: Examples) -> None:
    """Statistics of the head's input, over examples and, for sequences, over steps that are not padding."""
    values = []
    for x, mask in _inputs(probe, train):
        values.append(x.reshape(-1, x.shape[-1]) if mask is None else x[~mask])
    probe.set_standardisation(*standardiser(torch.cat(values)))


def _head_inputs(probe: Probe, examples: Examples) -> npt.NDArray[np.float32]:
    return np.concatenate([x.numpy() for x, _ in _inputs(probe, examples)]).astype(np.float32)


def _inputs(probe: Probe, examples: Examples) -> Iterator[tuple[Tensor, Tensor | None]]:
    with torch.no_grad():
        for start in range(0, len(examples), _BATCH):
            batch = np.arange(start, min(start + _BATCH, len(examples)))
            x, mask = probe.head_input(*collate(examples.features, batch, probe.device))
            yield x.cpu(), None if mask is None else mask.cpu()
