"""EAT's encoder, under the module names of its published checkpoints."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from avex.models.eat.config import FREQ_BINS, PATCH_SIZE, EatConfig
from avex.nn.positions_2d import sincos_2d
from avex.nn.transformer import Block, BlockStack, PatchEmbed, drop_path_rates

# The published port norms with this epsilon before its classifier; the original code with 1e-6.
HEAD_NORM_EPS = 1e-5


class FixedPositions(nn.Module):
    """Positions of the patches, (1, steps * 8, C): a sine-cosine table, stored in checkpoints, never trained.

    Args:
        dim: Length of a token.
        steps: Time steps of the table.
    """

    positions: Tensor

    def __init__(self, dim: int, steps: int) -> None:
        super().__init__()
        self.register_buffer("positions", sincos_2d(dim, rows=steps, columns=FREQ_BINS).unsqueeze(0))

    def forward(self, tokens: Tensor) -> Tensor:
        """Add to (B, N, C) tokens, counted from the first step, their positions."""
        return tokens + self.positions[:, : tokens.shape[1]]


class EatBackbone(nn.Module):
    """Log-mel frames to tokens.

    Patches of 16 frames by 16 bands, plus positions, behind one token without position (CLS); a layer norm; then
    blocks that norm after each residual sum.

    Args:
        config: Sizes.

    Source:
        Chen et al. (2024), https://arxiv.org/abs/2401.03497.

    Example:
        >>> tiny = EatConfig(embed_dim=8, depth=2, num_heads=2)
        >>> EatBackbone(tiny)(torch.zeros(1, 64, 128)).shape
        torch.Size([1, 33, 8])
    """

    def __init__(self, config: EatConfig) -> None:
        super().__init__()
        dim = config.embed_dim
        self.extra_tokens = nn.Parameter(torch.empty(1, 1, dim))
        self.local_encoder = PatchEmbed(dim, PATCH_SIZE)
        self.fixed_positional_encoder = FixedPositions(dim, config.max_length)
        self.pre_norm = nn.LayerNorm(dim, eps=1e-6)
        self.blocks = BlockStack(
            Block(dim, config.num_heads, config.hidden_dim, norm="post", drop_path=rate)
            for rate in drop_path_rates(config.drop_path_rate, config.depth)
        )
        if config.head_norm:
            self.fc_norm = nn.LayerNorm(dim, eps=HEAD_NORM_EPS)
        nn.init.normal_(self.extra_tokens, std=0.02)

    def forward(self, frames: Tensor, padding: Tensor | None = None) -> Tensor:
        """Tokens of a spectrogram.

        Args:
            frames: (B, T, 128) normalised log-mel values, T a multiple of 16.
            padding: (B, T // 16 * 8) bool, True for patches that attention leaves out; None for none.

        Returns:
            (B, 1 + T // 16 * 8, C), the CLS token first, then the 8 bands of each time step.
        """
        patches = self.fixed_positional_encoder(self.local_encoder(frames))
        tokens = torch.cat([self.extra_tokens.expand(patches.shape[0], -1, -1), patches], dim=1)
        keep = None if padding is None else nn.functional.pad(~padding, (1, 0), value=True)
        return self.blocks(self.pre_norm(tokens), keep)
