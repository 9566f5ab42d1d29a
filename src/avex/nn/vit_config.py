"""Sizes of vision transformers: joining what is known of them, and reading them off a checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from avex._core.errors import ConfigError
from avex.configs.settings import Positive, Size, check_settings

if TYPE_CHECKING:
    from torch import Tensor
    from typing_extensions import Self

ConfigT = TypeVar("ConfigT")


@dataclass(frozen=True)
class VitConfig:
    """Sizes that every vision transformer has; a family adds its own fields and defaults.

    Attributes:
        embed_dim: Length of a token.
        depth: Number of blocks.
        num_heads: Attention heads; divides `embed_dim`.
        mlp_ratio: Length inside the MLP in units of `embed_dim`.
        family: What the model is called, for messages.
        option: Which option of the model holds these fields, for messages.
        published: Sizes of published models, by a part of their names (`find_published`).
        length_unit: What `embed_dim` is a multiple of.

    Raises:
        ConfigError: Sizes that do not fit together.

    Example:
        >>> VitConfig(embed_dim=8, depth=2, num_heads=2).hidden_dim
        32
    """

    family: ClassVar[str] = "Transformer"
    option: ClassVar[str] = "config"
    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    length_unit: ClassVar[int] = 1

    embed_dim: Size = 768
    depth: Size = 12
    num_heads: Size = 12
    mlp_ratio: Positive = 4.0

    def __post_init__(self) -> None:
        if self.depth < 1:
            raise ConfigError(f"{self.family} has at least one block, not depth={self.depth}.")
        if self.num_heads < 1 or self.embed_dim % self.num_heads or self.embed_dim % self.length_unit:
            itself = f", itself a multiple of {self.length_unit}" if self.length_unit > 1 else ""
            raise ConfigError(
                f"{self.family} tokens of length {self.embed_dim} cannot be shared among {self.num_heads} heads: "
                f"give {self.option}={{'num_heads': ...}} that divides the length{itself}."
            )

    @property
    def hidden_dim(self) -> int:
        """Length inside the MLP."""
        return round(self.embed_dim * self.mlp_ratio)

    @classmethod
    def from_options(
        cls,
        model_id: str | None = None,
        checkpoint_config: Mapping[str, Any] | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> Self:
        """Join what is known of a model, the most explicit last.

        Args:
            model_id: Published model; its sizes count, so that a checkpoint of another size does not fit.
            checkpoint_config: What a checkpoint states of itself; counts where no `model_id` is given.
            config: Fields of this class.

        Raises:
            ConfigError: An unknown model or field, sizes that do not fit together, or heads that nobody states.
        """
        stated = find_published(cls.family, model_id, cls.published) if model_id else checkpoint_config or {}
        return cls.joined(stated, config or {})

    @classmethod
    def joined(cls, stated: Mapping[str, Any], given: Mapping[str, Any]) -> Self:
        """Fill in the defaults (`join_config`), but for the heads of tokens of a stated length.

        The default number of heads may divide another length just as well, and give wrong numbers.

        Raises:
            ConfigError: As for `join_config`; or a length of tokens is stated, and no number of heads.
        """
        if "embed_dim" in stated and "num_heads" not in stated and "num_heads" not in given:
            raise ConfigError(
                f"How many attention heads a {cls.family} with tokens of length {stated['embed_dim']} has is not "
                f"clear: no tensor shows it. Pass {cls.option}={{'num_heads': ...}}."
            )
        return join_config(cls(), cls.family, stated, given)


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
        ConfigError: `given` has an unknown field or a value of another type, or the dataclass refuses a value.

    Example:
        >>> from dataclasses import dataclass
        >>> Sizes = dataclass(frozen=True)(type("Sizes", (), {"__annotations__": {"depth": int}, "depth": 12}))
        >>> join_config(Sizes(), "Tiny", {"depth": 3}, {}).depth
        3
    """
    checked = check_settings(type(default), family, given)
    return replace(default, **{**stated, **checked})  # type: ignore[type-var]


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
        if part in str(model_id).lower():  # YAML may have read a number
            return values
    raise ConfigError(
        f"Unknown {family} model '{model_id}': its name holds none of {', '.join(map(repr, sizes))}. Leave "
        "model_id out to take the sizes from the checkpoint."
    )


def count_items(names: Iterable[str], prefix: str) -> int:
    """Items of a numbered list of modules, to judge by the last one: what a file lacks is then named as missing.

    Args:
        names: Names of tensors.
        prefix: What the names of the items begin with, before the number.

    Example:
        >>> count_items(["blocks.0.bias", "blocks.2.bias", "norm.bias"], "blocks.")
        3
    """
    numbers = (name.removeprefix(prefix).split(".")[0] for name in names if name.startswith(prefix))
    return max((int(number) + 1 for number in numbers if number.isdecimal()), default=0)


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
    if depth := count_items(state, blocks):
        found["depth"] = depth
    weight = state.get(f"{blocks}0.mlp.fc1.weight")
    if weight is not None and weight.ndim == 2 and weight.shape[1]:
        found["embed_dim"] = weight.shape[1]
        found["mlp_ratio"] = weight.shape[0] / weight.shape[1]
    return found
