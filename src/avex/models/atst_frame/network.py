"""ATST-Frame's encoder, under the module names of its published checkpoints."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from avex.models.atst_frame.config import CHUNK_FRAMES, MEL_BANDS, PATCH_FRAMES, AtstFrameConfig
from avex.nn.linear import Linear
from avex.nn.transformer import Block, BlockStack, drop_path_rates

CHUNK_TOKENS = CHUNK_FRAMES // PATCH_FRAMES


class AtstPatchEmbed(nn.Module):
    """Map every four frames, all bands, to a token.

    Args:
        dim: Length of a token.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.patch_embed = Linear(MEL_BANDS * PATCH_FRAMES, dim)

    def forward(self, mel: Tensor) -> Tensor:
        """(B, 64, T) to (B, T // 4, C); a patch runs through the frames of one band, then of the next."""
        whole = mel.shape[-1] // PATCH_FRAMES * PATCH_FRAMES
        patches = mel[..., :whole].to(self.patch_embed.weight.dtype).unflatten(-1, (-1, PATCH_FRAMES))
        return self.patch_embed(patches.permute(0, 2, 1, 3).flatten(2))


class AtstFrameBackbone(nn.Module):
    """Mel spectrogram to one embedding every four frames.

    A vision transformer with norms before its branches, without CLS token. It sees ten seconds at a time: longer
    spectrograms are cut into chunks of 1001 frames, of which 1000 make tokens. Tokens attend within their chunk
    and positions start anew. All chunks run through the blocks together.

    Args:
        config: Sizes.

    Source:
        Li et al. (2024), https://arxiv.org/abs/2306.04186.

    Example:
        >>> tiny = AtstFrameConfig(embed_dim=8, depth=2, num_heads=2)
        >>> AtstFrameBackbone(tiny)(torch.zeros(1, 64, 501)).shape
        torch.Size([1, 125, 16])
    """

    def __init__(self, config: AtstFrameConfig) -> None:
        super().__init__()
        dim = config.embed_dim
        self.num_outputs = config.num_outputs
        # Stands for masked patches in pre-training; kept so that checkpoints come out as they went in.
        self.mask_embed = nn.Parameter(torch.empty(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.empty(1, CHUNK_TOKENS + 1, dim))  # row 0 is not used
        self.patch_embed = AtstPatchEmbed(dim)
        self.pos_drop = nn.Dropout(config.drop_rate)
        self.blocks = BlockStack(
            Block(dim, config.num_heads, config.hidden_dim, qkv_bias=False, span=CHUNK_TOKENS, drop_path=rate)
            for rate in drop_path_rates(config.drop_path_rate, config.depth)
        )
        self.norm_frame = nn.LayerNorm(dim, eps=1e-6)
        nn.init.normal_(self.mask_embed, std=0.02)
        nn.init.normal_(self.pos_embed, std=0.02)

    def forward(self, mel: Tensor) -> Tensor:
        """Embeddings of a spectrogram.

        Args:
            mel: (B, 64, T) scaled decibels.

        Returns:
            (B, N, blocks * C) with N the number of whole patches: the normed outputs of the last blocks side by
            side, the last block last.
        """
        tokens = self.patch_embed(_without_surplus(mel))
        outputs = list(self.blocks.outputs(self.pos_drop(tokens + self._positions(tokens.shape[1]))))
        return torch.cat([self.norm_frame(output) for output in outputs[-self.num_outputs :]], dim=-1)

    def _positions(self, count: int) -> Tensor:
        positions = self.pos_embed[:, 1:]
        if count > CHUNK_TOKENS:
            positions = positions.repeat(1, -(-count // CHUNK_TOKENS), 1)
        return positions[:, :count]


def _without_surplus(mel: Tensor) -> Tensor:
    """Drop the last frame of every whole chunk: it fills no patch."""
    chunks = mel.shape[-1] // CHUNK_FRAMES
    if chunks == 0:
        return mel
    whole = mel[..., : chunks * CHUNK_FRAMES].unflatten(-1, (chunks, CHUNK_FRAMES))
    kept = whole[..., : CHUNK_TOKENS * PATCH_FRAMES].flatten(-2)
    return torch.cat([kept, mel[..., chunks * CHUNK_FRAMES :]], dim=-1)
