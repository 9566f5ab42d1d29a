"""Sizes of ATST-Frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from avex._core.errors import ConfigError
from avex.configs.settings import Share, Size
from avex.nn.vit_config import VitConfig

MEL_BANDS = 64
PATCH_FRAMES = 4
CHUNK_FRAMES = 1001  # ten seconds; positions start anew after each

SIZES: dict[str, dict[str, int]] = {
    "small": {"embed_dim": 384, "depth": 12, "num_heads": 6},
    "base": {"embed_dim": 768, "depth": 12, "num_heads": 12},
    "large": {"embed_dim": 1024, "depth": 24, "num_heads": 16},
}


@dataclass(frozen=True)
class AtstFrameConfig(VitConfig):
    """Sizes of ATST-Frame; the default is small.

    Attributes:
        embed_dim: Length of a token.
        depth: Number of blocks.
        num_heads: Attention heads; divides `embed_dim`.
        mlp_ratio: Length inside the MLP in units of `embed_dim`.
        n_blocks: How many of the last blocks make up the embedding, one behind the other.
        drop_rate: Dropout of what enters the first block, in training.
        drop_path_rate: Stochastic depth of the last block in training; it rises linearly to there.

    Raises:
        ConfigError: Sizes that do not fit together.

    Example:
        >>> AtstFrameConfig.from_options(model_id="atst_frame_base").embedding_dim
        9216
    """

    family: ClassVar[str] = "ATST-Frame"
    published: ClassVar[Mapping[str, Mapping[str, Any]]] = SIZES

    embed_dim: Size = 384
    depth: Size = 12
    num_heads: Size = 6
    n_blocks: Size = 12
    drop_rate: Share = 0.0
    drop_path_rate: Share = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_blocks < 1:
            raise ConfigError(f"ATST-Frame n_blocks must be at least 1, not {self.n_blocks}.")

    @property
    def num_outputs(self) -> int:
        """Blocks that make up the embedding."""
        return min(self.n_blocks, self.depth)

    @property
    def embedding_dim(self) -> int:
        """Length of the embedding."""
        return self.num_outputs * self.embed_dim
