"""Sizes of Bird-MAE."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from avex.configs.settings import Share, Size
from avex.nn.vit_config import VitConfig

PATCH_SIZE = 16
TIME_STEPS = 32  # patches along 512 frames
FREQ_BINS = 8  # patches along 128 mel bands

SIZES: dict[str, dict[str, int]] = {
    "bird-mae-base": {"embed_dim": 768, "depth": 12, "num_heads": 12},
    "bird-mae-large": {"embed_dim": 1024, "depth": 24, "num_heads": 16},
    "bird-mae-huge": {"embed_dim": 1280, "depth": 32, "num_heads": 16},
}


@dataclass(frozen=True)
class BirdMaeConfig(VitConfig):
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

    family: ClassVar[str] = "Bird-MAE"
    published: ClassVar[Mapping[str, Mapping[str, Any]]] = SIZES
    length_unit: ClassVar[int] = 4

    embed_dim: Size = 1280
    depth: Size = 32
    num_heads: Size = 16
    drop_rate: Share = 0.0
    drop_path_rate: Share = 0.0
