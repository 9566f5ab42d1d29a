"""What only the pre-training of Bird-MAE needs: encoding of visible patches, a decoder, patches as targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from avex._core.errors import ConfigError
from avex.models.birdmae.config import FREQ_BINS, PATCH_SIZE, TIME_STEPS
from avex.models.birdmae.network import BirdMaeBackbone
from avex.nn.linear import Linear
from avex.nn.masking import gather_tokens, scatter_tokens
from avex.nn.positions_2d import sincos_2d
from avex.nn.transformer import Block, BlockStack


@dataclass(frozen=True)
class MaePretrainingConfig:
    """Settings of a masked autoencoder of spectrograms.

    The defaults are Bird-MAE's mask and Audio-MAE's decoder. Audio-MAE itself hides 80 %. `decoder_layers`
    is the place to save time.

    Attributes:
        mask_ratio: Share of the patches that is hidden.
        decoder: `local`: attention within windows, shifted by half a window in every other layer; `global`:
            all patches attend to all.
        decoder_dim: Length of a token of the decoder.
        decoder_layers: Its layers.
        decoder_heads: Its attention heads.
        window: Side of its windows in patches.
        normalise_patches: Targets are patches with mean 0 and variance 1 each.

    Source:
        Huang et al. (2022), https://arxiv.org/abs/2207.06405, sections 3 and 4; Rauch et al. (2025),
        https://arxiv.org/abs/2504.12880.

    Example:
        >>> MaePretrainingConfig(decoder_layers=2).decoder_dim
        512
    """

    mask_ratio: float = 0.75
    decoder: Literal["local", "global"] = "local"
    decoder_dim: int = 512
    decoder_layers: int = 16
    decoder_heads: int = 16
    window: int = 4
    normalise_patches: bool = True

    def __post_init__(self) -> None:
        if self.decoder not in ("local", "global"):
            raise ConfigError(f"The decoder of an MAE is 'local' or 'global', not '{self.decoder}'.")
        if self.decoder_dim % self.decoder_heads or self.decoder_dim % 4:
            raise ConfigError(
                f"decoder_dim={self.decoder_dim} must be a multiple of 4 and of decoder_heads={self.decoder_heads}."
            )
        if self.window < 2 or self.decoder_layers < 1:
            raise ConfigError("A decoder needs window >= 2 and decoder_layers >= 1.")


class WindowedBlock(nn.Module):
    """A transformer block whose attention stays within square windows of the grid of patches.

    Args:
        dim: Length of a token.
        num_heads: Attention heads.
        window: Side of a window.
        shift: How far the windows are moved up and left; those at the edges are then smaller.

    Source:
        Liu et al. (2021), https://arxiv.org/abs/2103.14030 (without its bias by relative position).

    Example:
        >>> WindowedBlock(8, 2, window=4, shift=2)(torch.zeros(1, 48, 8), (6, 8)).shape
        torch.Size([1, 48, 8])
    """

    def __init__(self, dim: int, num_heads: int, window: int, shift: int) -> None:
        super().__init__()
        self.window = window
        self.shift = shift
        self.block = Block(dim, num_heads, 4 * dim)

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """(B, rows * columns, C) to the same shape."""
        (rows, columns), size = grid, self.window
        before = (size - self.shift) % size
        below, right = (-(rows + before)) % size, (-(columns + before)) % size
        pads = (before, right, before, below)
        padded = functional.pad(tokens.unflatten(1, grid), (0, 0, *pads))
        real = functional.pad(tokens.new_ones(1, rows, columns, dtype=torch.bool), pads)
        windows, high, wide = self._split(padded), padded.shape[1] // size, padded.shape[2] // size
        keep = self._split(real.unsqueeze(-1)).squeeze(-1).repeat(len(tokens), 1)
        out = self.block(windows, keep if any(pads) else None)
        out = out.unflatten(0, (-1, high, wide)).unflatten(3, (size, size)).transpose(2, 3)
        whole = out.flatten(3, 4).flatten(1, 2)
        return whole[:, before : before + rows, before : before + columns].flatten(1, 2)

    def _split(self, grid: Tensor) -> Tensor:
        """(B, R, S, C) to (B * windows, size * size, C)."""
        size = self.window
        cells = grid.unflatten(2, (-1, size)).unflatten(1, (-1, size)).transpose(2, 3)
        return cells.flatten(3, 4).flatten(0, 2)


class MaeDecoder(nn.Module):
    """From encoded visible patches to all patches of the spectrogram.

    Args:
        dim: Length of the encoder's tokens.
        config: Settings.
    """

    positions: Tensor

    def __init__(self, dim: int, config: MaePretrainingConfig) -> None:
        super().__init__()
        width, heads = config.decoder_dim, config.decoder_heads
        self.embed = Linear(dim, width)
        self.mask_token = nn.Parameter(torch.empty(1, 1, width))
        self.register_buffer(
            "positions", sincos_2d(width, TIME_STEPS, FREQ_BINS).unsqueeze(0), persistent=False
        )
        self.local = config.decoder == "local"
        if self.local:
            shifts = [(i % 2) * (config.window // 2) for i in range(config.decoder_layers)]
            self.blocks: nn.ModuleList = nn.ModuleList(
                WindowedBlock(width, heads, config.window, shift) for shift in shifts
            )
        else:
            self.blocks = BlockStack(Block(width, heads, 4 * width) for _ in range(config.decoder_layers))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.predict = Linear(width, PATCH_SIZE**2)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, visible: Tensor, places: Tensor) -> Tensor:
        """Guess all patches.

        Args:
            visible: (B, K, C), the encoder's output without CLS.
            places: (B, K), where they stand.

        Returns:
            (B, N, 256), in the order of `patches_of`.
        """
        fill = self.mask_token.expand(len(visible), self.positions.shape[1], -1)
        x = scatter_tokens(self.embed(visible), places, fill) + self.positions
        for block in self.blocks:
            x = block(x, (TIME_STEPS, FREQ_BINS)) if self.local else block(x)
        return self.predict(self.norm(x))


def patches_of(frames: Tensor, *, normalise: bool = True) -> Tensor:
    """Cut a spectrogram into the patches that its tokens stand for.

    Args:
        frames: (B, T, F).
        normalise: Give each patch mean 0 and variance 1.

    Returns:
        (B, T // 16 * F // 16, 256) float32.

    Example:
        >>> patches_of(torch.zeros(1, 512, 128)).shape
        torch.Size([1, 256, 256])
    """
    high, wide = frames.shape[1] // PATCH_SIZE, frames.shape[2] // PATCH_SIZE
    cut = frames[:, : high * PATCH_SIZE, : wide * PATCH_SIZE].float()
    cells = cut.reshape(-1, high, PATCH_SIZE, wide, PATCH_SIZE).transpose(2, 3)
    patches = cells.reshape(-1, high * wide, PATCH_SIZE**2)
    return functional.layer_norm(patches, patches.shape[-1:], eps=1e-6) if normalise else patches


def encode_visible(backbone: BirdMaeBackbone, frames: Tensor, places: Tensor) -> Tensor:
    """CLS and the visible patches through the encoder.

    Args:
        backbone: The encoder.
        frames: (B, 512, 128).
        places: (B, K), the visible patches.

    Returns:
        (B, 1 + K, C), normed, CLS first.
    """
    cls_position, positions = backbone.pos_embed[:, :1], backbone.pos_embed[:, 1:]
    visible = gather_tokens(backbone.patch_embed(frames) + positions, places)
    cls = (backbone.cls_token + cls_position).expand(len(visible), -1, -1)
    tokens = torch.cat([cls, visible], dim=1)
    return backbone.norm(backbone.blocks(backbone.pos_drop(tokens)))
