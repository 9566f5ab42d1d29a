"""Bird-MAE's encoder, under the module names of its published checkpoints."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from avex.models.birdmae.config import FREQ_BINS, PATCH_SIZE, TIME_STEPS, BirdMaeConfig
from avex.nn.positions_2d import sincos_2d
from avex.nn.transformer import Block, BlockStack, PatchEmbed, drop_path_rates


class BirdMaeBackbone(nn.Module):
    """Log-mel frames to tokens or to one embedding.

    A vision transformer with norms before its branches. Positions are a fixed sine-cosine table. It was built for
    a grid of 8 rows by 32 columns while the patches run over 32 time steps of 8 bands; the networks were trained
    like that, so it stays.

    Args:
        config: Sizes.

    Source:
        Rauch et al. (2025), https://arxiv.org/abs/2504.12880.

    Example:
        >>> tiny = BirdMaeConfig(embed_dim=8, depth=2, num_heads=2)
        >>> BirdMaeBackbone(tiny)(torch.zeros(1, 512, 128)).shape
        torch.Size([1, 8])
    """

    pos_embed: Tensor

    def __init__(self, config: BirdMaeConfig) -> None:
        super().__init__()
        dim = config.embed_dim
        table = sincos_2d(dim, rows=FREQ_BINS, columns=TIME_STEPS)
        self.cls_token = nn.Parameter(torch.empty(1, 1, dim))
        self.register_buffer("pos_embed", nn.functional.pad(table, (0, 0, 1, 0)).unsqueeze(0))
        self.patch_embed = PatchEmbed(dim, PATCH_SIZE)
        self.pos_drop = nn.Dropout(config.drop_rate)
        self.blocks = BlockStack(
            Block(dim, config.num_heads, config.hidden_dim, drop_path=rate)
            for rate in drop_path_rates(config.drop_path_rate, config.depth)
        )
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.fc_norm = nn.LayerNorm(dim, eps=1e-6)
        nn.init.normal_(self.cls_token, std=0.02)

    def forward(self, frames: Tensor) -> Tensor:
        """Embedding of a spectrogram: the norm of the mean over the patches of the last block.

        Args:
            frames: (B, 512, 128) normalised log-mel values.

        Returns:
            (B, C).
        """
        return self.fc_norm(self._encode(frames)[:, 1:].mean(1))

    def tokens(self, frames: Tensor) -> Tensor:
        """Normed tokens of a spectrogram, (B, 257, C): CLS first, then the 8 bands of each of 32 steps."""
        return self.norm(self._encode(frames))

    def _encode(self, frames: Tensor) -> Tensor:
        patches = self.patch_embed(frames)
        tokens = torch.cat([self.cls_token.expand(patches.shape[0], -1, -1), patches], dim=1) + self.pos_embed
        return self.blocks(self.pos_drop(tokens))
