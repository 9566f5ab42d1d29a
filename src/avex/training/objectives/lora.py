"""LoRA: fine-tuning with a low-rank change of chosen matrices, everything else frozen."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from avex._core.errors import ConfigError
from avex.models.base_model import ModelBase

# Queries and values in the families' names, as in the paper; `qkv` also has the keys in it.
DEFAULT_TARGETS = ("qkv", "q_proj", "v_proj", "query", "value")


class LowRank(nn.Module):
    """Adds `scale * B @ A` to a matrix; B starts at zero, so that nothing changes at first.

    Args:
        weight: The matrix (out, in).
        rank: Rows of A and columns of B.
        alpha: The scale is `alpha / rank`.
    """

    def __init__(self, weight: Tensor, rank: int, alpha: float) -> None:
        super().__init__()
        out_dim, in_dim = weight.shape
        self.scale = alpha / rank
        self.down = nn.Parameter(weight.new_empty(rank, in_dim))
        self.up = nn.Parameter(weight.new_zeros(out_dim, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        """The changed matrix."""
        return torch.addmm(weight, self.up, self.down, alpha=self.scale)


def apply_lora(
    model: ModelBase, rank: int = 8, targets: Sequence[str] = DEFAULT_TARGETS, alpha: float | None = None
) -> list[str]:
    """Freeze a model but for its head and low-rank changes of chosen linear maps.

    Args:
        model: Changed in place; it gives what it gave before until it is trained.
        rank: Rank of the changes.
        targets: Names of linear maps, or last parts of names, such as `qkv` or `blocks.3.mlp.fc1`.
        alpha: The changes are scaled by `alpha / rank`; None for `2 * rank`.

    Returns:
        Names of the changed maps.

    Raises:
        ConfigError: No map has such a name, the rank is below 1, or the model has LoRA already.

    Source:
        Hu et al. (2021), https://arxiv.org/abs/2106.09685.

    Example:
        >>> from avex.testing import tiny_model
        >>> apply_lora(tiny_model("eat"), rank=2)
        ['backbone.blocks.0.attn.qkv', 'backbone.blocks.1.attn.qkv']
    """
    if rank < 1:
        raise ConfigError(f"The rank of LoRA must be at least 1, not {rank}.")
    if has_lora(model):
        raise ConfigError("This model has LoRA already. Merge it first, with merge_lora(model).")
    linear = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    ends = tuple(f".{target}" for target in targets)
    chosen = [name for name in linear if f".{name}".endswith(ends)]
    if not chosen:
        parts = sorted({name.rpartition(".")[2] for name in linear})
        raise ConfigError(
            f"LoRA found no linear map called {', '.join(targets)}. This model has {', '.join(parts)}: choose with "
            "targets=(...)."
        )
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(model.head_prefixes))
    for name in chosen:
        layer = linear[name]
        parametrize.register_parametrization(
            layer, "weight", LowRank(layer.weight, rank, 2.0 * rank if alpha is None else alpha)
        )
        layer.parametrizations.weight.original.requires_grad_(False)  # type: ignore[union-attr]
    return chosen


def merge_lora(model: nn.Module) -> int:
    """Add the changes to the matrices and remove LoRA; names are then as before.

    Returns:
        How many maps were merged.
    """
    merged = 0
    for module in list(model.modules()):
        if parametrize.is_parametrized(module, "weight") and _is_lora(module):
            with torch.no_grad():
                parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
            # The weight comes back as the last parameter; checkpoints list it before the bias.
            module._parameters["bias"] = module._parameters.pop("bias", None)
            merged += 1
    return merged


def has_lora(model: nn.Module) -> bool:
    """Whether `apply_lora` was applied and not merged."""
    return any(isinstance(module, LowRank) for module in model.modules())


def _is_lora(module: nn.Module) -> bool:
    return any(isinstance(part, LowRank) for part in module.parametrizations.weight)  # type: ignore[union-attr]
