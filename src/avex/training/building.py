"""The model and the objective that a run's configuration describes."""

from __future__ import annotations

import torch
from torch import Tensor

from avex._core.errors import ConfigError
from avex.configs.training import RunConfig
from avex.models.base_model import ModelBase
from avex.models.template.cards import TEMPLATE_MODEL, is_template_name
from avex.models.utils.factory import build_model_from_spec
from avex.models.utils.load import load_model
from avex.models.utils.registry import find_card, get_model_class
from avex.training.data import TrainingData
from avex.training.objectives import Objective, apply_lora, build_objective, objective_for


def build_training_model(config: RunConfig, num_classes: int) -> ModelBase:
    """Build the model of a run on the CPU, with the weights to start from.

    `model_spec.name` is a family, a registered class, or the name of a card, whose weights are then taken.

    Args:
        config: The run.
        num_classes: Size of the classifier; 0 for none.

    Raises:
        UnknownModelError: No such model.
        WeightsError: The weights do not fit.
        ConfigError: Not a model that can be trained.
    """
    spec = config.model_spec
    if is_template_name(spec.name) or spec.name == TEMPLATE_MODEL:
        raise ConfigError(
            f"'{spec.name}' is a JSON template: code of its own that gives embeddings, not a network that can be "
            "trained here. Fit a probe to its embeddings (avex embed, avex probe fit), or name a family or class."
        )
    card = find_card(spec.name) if get_model_class(spec.name) is None else None
    torch.manual_seed(config.seed)
    has_weights = config.checkpoint_path is not None or (
        card is not None and card.checkpoint_path is not None
    )
    if config.label_type == "text" and not has_weights:
        # Without weights to say that there is a text tower, load_model gives the audio tower alone.
        model = build_model_from_spec(card.model_spec if card else spec, "cpu")
    else:
        model = load_model(
            card or spec,
            device="cpu",
            num_classes=num_classes if config.label_type == "supervised" else None,
            checkpoint_path=config.checkpoint_path,
            return_features_only=config.label_type == "self_supervised",
        )
    if not isinstance(model, ModelBase):
        raise ConfigError(
            f"Model '{spec.name}' is a {type(model).__name__}; what is trained must derive from ModelBase."
        )
    if not any(True for _ in model.parameters()):
        raise ConfigError(f"Model '{spec.name}' has no parameters that could be trained.")
    if config.training_params.gradient_checkpointing:
        model.enable_gradient_checkpointing()
    return model


def objective_name(config: RunConfig, model: ModelBase) -> str:
    """Name of the objective of a run.

    Raises:
        ConfigError: Self-supervised training of a family that has no objective for it.
    """
    if config.objective.name is not None:
        return config.objective.name
    if config.label_type == "self_supervised":
        return objective_for(model)
    return "contrastive" if config.label_type == "text" else "supervised"


def build_run_objective(config: RunConfig, data: TrainingData, model: ModelBase) -> Objective:
    """Build the objective of a run around its model.

    Raises:
        ConfigError: Settings that do not fit.
    """
    name = objective_name(config, model)
    if config.training_params.lora_rank is not None:
        apply_lora(model, config.training_params.lora_rank)
    settings = dict(config.objective.settings)
    if name == "supervised":
        settings = {"loss": config.loss_function, **settings}
        weights = class_weights(config, data)
        if weights is not None:
            settings["class_weights"] = weights
    if isinstance(settings.get("teacher"), str):
        settings["teacher"] = load_teacher(settings["teacher"])
    return build_objective(name, model, settings)


def load_teacher(name: str) -> ModelBase:
    """Load a frozen encoder that another one learns from, without its classifier.

    Args:
        name: Name, alias or card, such as `runs/first/model.yml`.

    Raises:
        UnknownModelError: No such model.
        ConfigError: Not a network.
    """
    teacher = load_model(name, return_features_only=True, device="cpu")
    if not isinstance(teacher, ModelBase):
        raise ConfigError(
            f"The teacher '{name}' is a {type(teacher).__name__}; it must derive from ModelBase."
        )
    return teacher.requires_grad_(False).eval()


def class_weights(config: RunConfig, data: TrainingData) -> Tensor | None:
    """Factor on each class in the loss, with mean 1 over the clips when balanced.

    Raises:
        ConfigError: Not as many numbers as classes, or a class without training clips.
    """
    if config.class_weights is None or data.encoder is None:
        return None
    classes = data.encoder.classes
    if config.class_weights != "balanced":
        if len(config.class_weights) != len(classes):
            raise ConfigError(
                f"class_weights has {len(config.class_weights)} numbers for {len(classes)} classes. Order: "
                f"{', '.join(classes[:5])} ... ."
            )
        return torch.tensor(config.class_weights)
    counts = dict.fromkeys(classes, 0)
    for clip in data.train:
        for label in clip.labels:
            counts[label] += 1
    empty = [name for name, count in counts.items() if not count]
    if empty:
        raise ConfigError(
            f"class_weights='balanced' needs training clips of every class; '{empty[0]}' has none."
        )
    total = sum(counts.values())
    return torch.tensor([total / (len(classes) * count) for count in counts.values()])
