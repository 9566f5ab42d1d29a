"""Sizes and settings of EAT."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from avex._core.errors import ConfigError
from avex.configs.settings import Positive, Share, Size
from avex.nn.vit_config import VitConfig, find_published

PATCH_SIZE = 16
FREQ_BINS = 8  # patches that lie side by side: 128 mel bands / 16

# Which published model has which sizes.
SIZES: dict[str, dict[str, Any]] = {
    "eat-base": {"embed_dim": 768, "depth": 12, "num_heads": 12},
    "eat-large": {"embed_dim": 1024, "depth": 24, "num_heads": 16},
}


@dataclass(frozen=True)
class EatConfig(VitConfig):
    """Sizes and settings of EAT.

    Attributes:
        embed_dim: Length of a token.
        depth: Number of blocks.
        num_heads: Attention heads; divides `embed_dim`.
        mlp_ratio: Length inside the MLP in units of `embed_dim`.
        max_length: Time steps (of 160 ms) that the table of positions holds.
        target_length: Frames (of 10 ms) that a clip is padded or cut to; a multiple of 16.
        norm_mean: Mean of the log-mel values, taken off.
        norm_std: Their standard deviation, divided by twice.
        pooling: What the classifier reads: the `cls` token, or the `mean` over all tokens.
        mask_padding: Keep tokens of padding out of attention and pooling. The reference lets them in.
        head_norm: Whether a layer norm stands before the classifier, as in fine-tuned models.
        drop_path_rate: Stochastic depth of the last block in training; it rises linearly to there.

    Raises:
        ConfigError: Sizes that do not fit together.

    Example:
        >>> EatConfig.from_options(model_id="worstchan/EAT-large_epoch20_pretrain").depth
        24
    """

    family: ClassVar[str] = "EAT"
    option: ClassVar[str] = "eat_cfg"
    published: ClassVar[Mapping[str, Mapping[str, Any]]] = SIZES
    length_unit: ClassVar[int] = 4

    max_length: Size = 768
    target_length: Size = 1024
    norm_mean: float = -4.268
    norm_std: Positive = 4.569
    pooling: Literal["cls", "mean"] = "cls"
    mask_padding: bool = False
    head_norm: bool = False
    drop_path_rate: Share = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.target_length % PATCH_SIZE or not 0 < self.target_length <= self.max_length * PATCH_SIZE:
            raise ConfigError(
                f"EAT target_length must be a multiple of {PATCH_SIZE} up to {self.max_length * PATCH_SIZE} "
                f"frames, not {self.target_length}."
            )
        if self.pooling not in ("cls", "mean"):
            raise ConfigError(f"EAT pooling must be 'cls' or 'mean', not '{self.pooling}'.")

    @classmethod
    def from_options(
        cls,
        model_id: str | None = None,
        checkpoint_config: Mapping[str, Any] | None = None,
        config: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> EatConfig:
        """Join what is known of a model, the most explicit last.

        Args:
            model_id: Published model; its sizes count, so that a checkpoint of another size does not fit.
            checkpoint_config: What a checkpoint states of itself; its sizes count where no `model_id` is given,
                and whether it has a norm before its classifier in any case.
            config: Fields of this class.
            **settings: Fields of this class; None leaves one as it is.

        Raises:
            ConfigError: An unknown model or field, sizes that do not fit together, or heads that nobody states.
        """
        stated = dict(checkpoint_config or {})
        if model_id:
            sizes = find_published(cls.family, model_id, cls.published)
            stated = {**sizes, "head_norm": stated.get("head_norm", cls.head_norm)}
        set_here = {name: value for name, value in settings.items() if value is not None}
        return cls.joined(stated, {**(config or {}), **set_here})
