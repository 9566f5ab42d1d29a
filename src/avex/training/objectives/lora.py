"""LoRA: fine-tuning with a low-rank change of chosen matrices, everything else frozen."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from avex._core.errors import ConfigError
from avex.models.base_model import ModelBase

# Queries and values in the families' names, as in the paper; `qkv` also has the keys in it.
DEFAULT_TARGETS = ("qkv", "q_proj", "v_proj", "query", "value")


class LoraLinear(nn.Linear):
    """A linear map that is frozen, and a low-rank change of it that is trained.

    The change is `scale * up @ down`; `up` starts at zero, so that nothing changes at first.

    Args:
        linear: The map; its parameters are taken over, not copied.
        rank: Rows of `down` and columns of `up`.
        alpha: The scale is `alpha / rank`.
    """

    def __init__(self, linear: nn.Linear, rank: int, alpha: float) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self.scale = alpha / rank
        self.lora_down = nn.Parameter(linear.weight.new_empty(rank, self.in_features))
        self.lora_up = nn.Parameter(linear.weight.new_zeros(self.out_features, rank))
        nn.init.kaiming_uniform_(self.lora_down, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        change = functional.linear(functional.linear(x, self.lora_down), self.lora_up)
        return super().forward(x) + self.scale * change

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """A plain map with the change in its weight, which is the same parameter as before."""
        self.weight.addmm_(self.lora_up, self.lora_down, alpha=self.scale)
        plain = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None, device="meta")
        plain.weight, plain.bias = self.weight, self.bias
        return plain.train(self.training)


def apply_lora(
    model: ModelBase, rank: int = 8, targets: Sequence[str] = DEFAULT_TARGETS, alpha: float | None = None
) -> list[str]:
    """Freeze a model but for its head and low-rank changes of chosen linear maps.

    Args:
        model: Changed in place; it gives what it gave before until it is trained.
        rank: Rank of the changes.
        targets: Names of linear maps that the network calls, or last parts of names, such as `qkv` or
            `blocks.3.mlp.fc1`.
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
        parent, _, last = name.rpartition(".")
        changed = LoraLinear(linear[name], rank, 2.0 * rank if alpha is None else alpha)
        setattr(model.get_submodule(parent), last, changed.train(linear[name].training))
    return chosen


def merge_lora(model: nn.Module) -> int:
    """Add the changes to the maps and remove LoRA; names are then as before.

    Parameters stay frozen as they are; `model.requires_grad_(True)` trains all again.

    Returns:
        How many maps were merged.
    """
    changed = [(name, part) for name, part in model.named_modules() if isinstance(part, LoraLinear)]
    for name, part in changed:
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, part.merged())
    return len(changed)


def has_lora(model: nn.Module) -> bool:
    """Whether `apply_lora` was applied and not merged."""
    return any(isinstance(module, LoraLinear) for module in model.modules())
