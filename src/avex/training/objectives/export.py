"""Encoders out of a training, in the layouts in which their families are published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from avex._core.errors import ConfigError
from avex._core.registry import load_attribute
from avex.io.atomic import atomic_path
from avex.models.base_model import ModelBase

# Where a family turns a state dict into a published layout.
_EXPORTERS = {
    "beats": "avex.models.beats.checkpoint:export_state",
    "eat_hf": "avex.models.eat.checkpoint:export_state",
    "hubert": "avex.models.hubert.checkpoint:export_state",
    "birdmae": "avex.models.birdmae.checkpoint:export_state",
    "atst_frame": "avex.models.atst_frame.checkpoint:export_state",
    "efficientnet": "avex.models.efficientnet.checkpoint:export_state",
    **dict.fromkeys(("resnet18", "resnet50", "resnet152"), "avex.models.resnet.checkpoint:export_state"),
    "clip": "avex.models.clip.checkpoint:export_state",
}


def published_state(model: ModelBase, layout: str | None = None) -> dict[str, Tensor]:
    """The weights of a model under the names of a published layout.

    Args:
        model: The model, without LoRA.
        layout: Such as `fairseq` for EAT or `microsoft` for BEATs; None for the model's own names.

    Returns:
        Contiguous tensors on the CPU.

    Raises:
        ConfigError: The family has no published layouts here.
        UnknownNameError: It has no such layout.

    Example:
        >>> from avex.testing import tiny_model
        >>> "extra_tokens" in published_state(tiny_model("eat", num_classes=None), "huggingface_core")
        True
    """
    state: dict[str, Tensor] = dict(model.state_dict())
    if layout is not None:
        if model.name not in _EXPORTERS:
            raise ConfigError(
                f"There is no published layout of '{model.name}'. Leave layout=None for the model's own names; "
                f"there are layouts of {', '.join(_EXPORTERS)}."
            )
        export: Any = load_attribute(_EXPORTERS[model.name])
        state = export(state, layout)
    return {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}


def save_encoder(model: nn.Module, path: str | Path, layout: str | None = None) -> Path:
    """Write a model that `avex.load_model(..., checkpoint_path=path)` reads, all of it or nothing.

    Args:
        model: What `Objective.export()` gives, or any model of avex.
        path: A `.safetensors` file.
        layout: See `published_state`; `objective.layout` is the one that suits what was trained.

    Returns:
        The path.

    Example:
        >>> save_encoder(objective.export(), "encoder.safetensors", objective.layout)   # doctest: +SKIP
    """
    if not isinstance(model, ModelBase):
        raise ConfigError(f"A {type(model).__name__} is not a model of avex: pass objective.export().")
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ConfigError(f"Encoders are written as .safetensors, not as '{path.name}'.")
    with torch.no_grad(), atomic_path(path) as temporary:
        save_file(published_state(model, layout), temporary)
    return path
