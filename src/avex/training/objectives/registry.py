"""Objectives by name."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any

from avex._core.errors import ConfigError, UnknownNameError, did_you_mean
from avex._core.registry import load_attribute
from avex.models.base_model import ModelBase
from avex.training.objectives.base import Objective

_HERE = "avex.training.objectives"

# Name: the class, and the dataclass of its settings, if it has one.
OBJECTIVES: dict[str, tuple[str, str | None]] = {
    "supervised": (f"{_HERE}.supervised:SupervisedObjective", None),
    "contrastive": (f"{_HERE}.contrastive:ContrastiveObjective", None),
    "distillation": (f"{_HERE}.distillation:DistillationObjective", None),
    "eat": (f"{_HERE}.eat:EatObjective", "avex.models.eat.pretraining:EatPretrainingConfig"),
    "mae": (f"{_HERE}.mae:MaeObjective", "avex.models.birdmae.pretraining:MaePretrainingConfig"),
    "hubert": (f"{_HERE}.hubert:HubertObjective", "avex.models.hubert.pretraining:HubertPretrainingConfig"),
    "beats": (f"{_HERE}.beats:BeatsObjective", "avex.models.beats.pretraining:BeatsPretrainingConfig"),
    "beats_tokenizer": (
        f"{_HERE}.beats:BeatsTokenizerObjective",
        "avex.models.beats.pretraining:BeatsPretrainingConfig",
    ),
}
# The self-supervised objective of each family.
SELF_SUPERVISED = {"eat_hf": "eat", "birdmae": "mae", "hubert": "hubert", "beats": "beats"}


def build_objective(
    name: str, model: ModelBase, settings: Mapping[str, Any] | None = None, **arguments: Any
) -> Objective:
    """Build an objective by its name.

    Args:
        name: One of `OBJECTIVES`.
        model: What is trained.
        settings: As in a configuration file: fields of the objective's settings and its arguments, in one mapping.
        **arguments: Further arguments, such as `teacher` of `distillation`.

    Raises:
        UnknownNameError: No such objective.
        ConfigError: A setting that it does not have, or a model that it does not fit.

    Example:
        >>> from avex.testing import tiny_model
        >>> model = tiny_model("eat", num_classes=3)
        >>> build_objective("supervised", model, {"loss": "bce"}).name
        'supervised'
    """
    if name not in OBJECTIVES:
        raise UnknownNameError(
            f"Unknown objective '{name}'.{did_you_mean(name, OBJECTIVES)} Choose {', '.join(OBJECTIVES)}."
        )
    class_path, config_path = OBJECTIVES[name]
    cls: Any = load_attribute(class_path)
    given = {**(settings or {}), **arguments}
    config: Any = load_attribute(config_path) if config_path else None
    fields = {field.name for field in dataclasses.fields(config)} if config else set()
    known = set(inspect.signature(cls).parameters) - {"model", "config"}
    if unknown := sorted(given.keys() - known - fields):
        raise ConfigError(
            f"The objective '{name}' has no setting '{unknown[0]}'.{did_you_mean(unknown[0], known | fields)} "
            f"Known: {', '.join(sorted(known | fields))}."
        )
    if config is not None:
        given["config"] = config(**{key: given.pop(key) for key in list(given) if key in fields})
    return cls(model, **given)


def objective_for(model: ModelBase) -> str:
    """Name of the self-supervised objective of a model's family.

    Raises:
        ConfigError: It has none.

    Example:
        >>> from avex.testing import tiny_model
        >>> objective_for(tiny_model("birdmae"))
        'mae'
    """
    if model.name not in SELF_SUPERVISED:
        raise ConfigError(
            f"There is no self-supervised objective for '{model.name}'; there are for {', '.join(SELF_SUPERVISED)}."
        )
    return SELF_SUPERVISED[model.name]
