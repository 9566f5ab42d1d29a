"""The trained model as files that `load_model` reads: weights, labels and a card."""

from __future__ import annotations

from pathlib import Path

import yaml

from avex.configs.training import RunConfig
from avex.io import write_text
from avex.models.base_model import ModelBase
from avex.training.checkpoint import AtomicCheckpointIO
from avex.training.data import TrainingData
from avex.training.objectives import Objective, save_encoder

WEIGHTS, CARD, LABELS = "model.safetensors", "model.yml", "label_map.json"
_PREFIX = "objective."


def export_model(
    folder: Path, config: RunConfig, data: TrainingData, objective: Objective, best: Path | None
) -> Path:
    """Write the model of a run, and the card to load it by.

    Args:
        folder: Folder of the run.
        config: The run.
        data: Its clips and labels.
        objective: As it was trained; it takes over the weights of `best`.
        best: Checkpoint to take the weights from; None takes them as they are.

    Returns:
        The card, for `load_model`.
    """
    if best is not None:
        state = AtomicCheckpointIO().load_checkpoint(best)["state_dict"]
        own = {key.removeprefix(_PREFIX): value for key, value in state.items() if key.startswith(_PREFIX)}
        objective.load_state_dict(own)
    objective.save_extras(folder)
    model = objective.export()
    save_encoder(model, folder / WEIGHTS, None if data.encoder is not None else objective.layout)
    write_text(folder / CARD, yaml.safe_dump(_card(folder, config, data, model), sort_keys=False))
    return folder / CARD


def _card(folder: Path, config: RunConfig, data: TrainingData, model: ModelBase) -> dict[str, object]:
    spec = config.model_spec.model_dump(mode="json", exclude_unset=True)
    card: dict[str, object] = {
        "name": folder.name,
        "description": f"Trained by avex ({config.label_type})",
        "checkpoint_path": WEIGHTS,  # beside the card, so that the folder can be moved
        "embedding_dim": model.embedding_dim,
        "model_spec": {**spec, "pretrained": False, "device": "cpu"},
    }
    if data.encoder is not None:
        card |= {
            "class_mapping_path": LABELS,
            "num_classes": data.num_classes,
            "activation": "sigmoid" if config.loss_function in ("bce", "focal") else "softmax",
        }
    return card
