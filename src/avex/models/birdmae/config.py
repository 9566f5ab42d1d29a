"""Sizes of Bird-MAE."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from avex._core.errors import ConfigError
from avex.nn.vit_config import find_published, join_config

PATCH_SIZE = 16
TIME_STEPS = 32  # patches along 512 frames
FREQ_BINS = 8  # patches along 128 mel bands

SIZES: dict[str, dict[str, int]] = {
    "bird-mae-base": {"embed_dim": 768, "depth": 12, "num_heads": 12},
    "bird-mae-large": {"embed_dim": 1024, "depth": 24, "num_heads": 16},
    "bird-mae-huge": {"embed_dim": 1280, "depth": 32, "num_heads": 16},
}


@dataclass(frozen=True)
class BirdMaeConfig:
    """Sizes of Bird-MAE; the default is Huge.

    Attributes:
        embed_dim: Length of a token and of the embedding.
        depth: Number of blocks.
        num_heads: Attention heads; divides `embed_dim`.
        mlp_ratio: Length inside the MLP in units of `embed_dim`.
        drop_rate: Dropout of what enters the first block, in training.
        drop_path_rate: Stochastic depth of the last block in training; it rises linearly to there.

    Raises:
        ConfigError: Sizes that do not fit together.

    Example:
        >>> BirdMaeConfig.from_options(model_id="DBD-research-group/Bird-MAE-Base").embed_dim
        768
    """

    embed_dim: int = 1280
    depth: int = 32
    num_heads: int = 16
    mlp_ratio: float = 4.0
    drop_rate: float = 0.0
    drop_path_rate: float = 0.0

    def __post_init__(self) -> None:
        if self.embed_dim % self.num_heads or self.embed_dim % 4:
            raise ConfigError(
                f"Bird-MAE tokens of length {self.embed_dim} cannot be shared among {self.num_heads} heads: give "
                "config={'num_heads': ...} that divides the length, itself a multiple of 4."
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
    ) -> BirdMaeConfig:
        """Join what is known of a model, the most explicit last.

        Args:
            model_id: Published model; its sizes count, so that a checkpoint of another size does not fit.
            checkpoint_config: What a checkpoint states of itself; counts where no `model_id` is given.
            config: Fields of this class.

        Raises:
            ConfigError: An unknown model or field, or sizes that do not fit together.
        """
        stated = find_published("Bird-MAE", model_id, SIZES) if model_id else checkpoint_config or {}
        return join_config(cls(), "Bird-MAE", stated, config or {})
