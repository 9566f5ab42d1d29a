"""Sizes of vision transformers: joining what is known of them, and reading them off a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

from avex._core.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from torch import Tensor

ConfigT = TypeVar("ConfigT")


def join_config(
    default: ConfigT, family: str, stated: Mapping[str, Any], given: Mapping[str, Any]
) -> ConfigT:
    """Fill in a configuration.

    Args:
        default: A frozen dataclass.
        family: What the model is called, for messages.
        stated: Fields that a checkpoint or a published model's name settles.
        given: Fields that the caller or the card settles; they win.

    Raises:
        ConfigError: `given` has an unknown field, or the dataclass refuses a value.

    Example:
        >>> from dataclasses import dataclass
        >>> Sizes = dataclass(frozen=True)(type("Sizes", (), {"__annotations__": {"depth": int}, "depth": 12}))
        >>> join_config(Sizes(), "Tiny", {"depth": 3}, {}).depth
        3
    """
    known = {field.name for field in fields(default)}  # type: ignore[arg-type]
    if unknown := given.keys() - known:
        name = min(unknown)
        raise ConfigError(
            f"{family} has no setting '{name}'.{did_you_mean(name, known)} Known: {', '.join(sorted(known))}."
        )
    return replace(default, **{**stated, **given})  # type: ignore[type-var]


def find_published(family: str, model_id: str, sizes: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    """Sizes of a published model, by a part of its name.

    Args:
        family: What the model is called, for messages.
        model_id: The published name, such as `"DBD-research-group/Bird-MAE-Base"`.
        sizes: Part of the name, in small letters, to sizes.

    Raises:
        ConfigError: No part occurs in the name.

    Example:
        >>> find_published("Tiny", "me/Tiny-Large", {"large": {"depth": 24}})
        {'depth': 24}
    """
    for part, values in sizes.items():
        if part in model_id.lower():
            return values
    raise ConfigError(
        f"Unknown {family} model '{model_id}': its name holds none of {', '.join(map(repr, sizes))}. Leave "
        "model_id out to take the sizes from the checkpoint."
    )


def read_sizes(state: Mapping[str, Tensor], blocks: str = "backbone.blocks.") -> dict[str, Any]:
    """`embed_dim`, `depth` and `mlp_ratio` of a stack of blocks, as far as a state dict tells.

    Args:
        state: Tensors.
        blocks: What the names of the blocks begin with.

    Example:
        >>> import torch
        >>> read_sizes({"backbone.blocks.0.mlp.fc1.weight": torch.empty(16, 8)})
        {'depth': 1, 'embed_dim': 8, 'mlp_ratio': 2.0}
    """
    found: dict[str, Any] = {}
    if numbers := {key.removeprefix(blocks).split(".")[0] for key in state if key.startswith(blocks)}:
        found["depth"] = len(numbers)
    weight = state.get(f"{blocks}0.mlp.fc1.weight")
    if weight is not None and weight.ndim == 2 and weight.shape[1]:
        found["embed_dim"] = weight.shape[1]
        found["mlp_ratio"] = weight.shape[0] / weight.shape[1]
    return found
