"""What only the pre-training of EAT needs: the masked student, the teacher's targets, the decoder."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from avex._core.errors import ConfigError
from avex.models.eat.config import FREQ_BINS
from avex.models.eat.network import EatBackbone
from avex.models.layers import tap_layers
from avex.nn.masking import gather_tokens, scatter_tokens


@dataclass(frozen=True)
class EatPretrainingConfig:
    """Settings of EAT's pre-training; the defaults are those of the published base model.

    Attributes:
        keep: Share of the patches that the student sees.
        block: Side of the blocks in which it sees them, in patches.
        mask_adjust: Added to `keep` for the number of blocks, which overlap.
        clones: Masks per clip; the teacher runs once for all of them.
        top_k: How many of the teacher's last blocks are averaged.
        utterance_weight: Weight of the utterance loss beside the frame loss.
        ema_start: Decay of the teacher at the first step.
        ema_end: Decay from `ema_steps` on.
        ema_steps: Steps over which the decay rises.
        mask_noise: Standard deviation of what stands for hidden patches in the decoder.
        decoder_dim: Channels of the decoder.
        decoder_kernel: Side of its kernels.
        decoder_groups: Groups of channels; divides `decoder_dim` and the length of a token.
        decoder_layers: Number of convolutions.

    Source:
        Chen et al. (2024), https://arxiv.org/abs/2401.03497, sections 3 and 4, and the settings published with
        it (https://github.com/cwx-worst-one/EAT, `config/pretraining_AS2M.yaml`).

    Example:
        >>> EatPretrainingConfig().clones
        16
    """

    keep: float = 0.2
    block: int = 5
    mask_adjust: float = 0.07
    clones: int = 16
    top_k: int = 12
    utterance_weight: float = 1.0
    ema_start: float = 0.9998
    ema_end: float = 0.99999
    ema_steps: int = 100_000
    mask_noise: float = 0.01
    decoder_dim: int = 768
    decoder_kernel: int = 3
    decoder_groups: int = 16
    decoder_layers: int = 6

    def __post_init__(self) -> None:
        if self.clones < 1 or self.top_k < 1 or self.decoder_layers < 1:
            raise ConfigError("EAT pre-training needs clones, top_k and decoder_layers of at least 1.")
        if self.decoder_kernel % 2 == 0:
            raise ConfigError(
                f"decoder_kernel must be odd, not {self.decoder_kernel}: the grid keeps its size."
            )


class EatDecoder(nn.Module):
    """Convolutions over the grid of patches that guess the teacher's features.

    Each is followed by a norm over the channels and a GELU; residuals go around those that keep the number of
    channels.

    Args:
        dim: Length of the student's and the teacher's tokens.
        config: Settings.
    """

    def __init__(self, dim: int, config: EatPretrainingConfig) -> None:
        super().__init__()
        if dim % config.decoder_groups or config.decoder_dim % config.decoder_groups:
            raise ConfigError(
                f"decoder_groups={config.decoder_groups} must divide decoder_dim={config.decoder_dim} "
                f"and tokens of length {dim}."
            )
        widths = [dim] + [config.decoder_dim] * config.decoder_layers
        self.convs = nn.ModuleList(
            nn.Conv2d(
                a, b, config.decoder_kernel, padding=config.decoder_kernel // 2, groups=config.decoder_groups
            )
            for a, b in itertools.pairwise(widths)
        )
        self.proj = nn.Linear(config.decoder_dim, dim)

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """(B, rows * columns, C) to the same shape."""
        x = tokens.transpose(1, 2).unflatten(2, grid)
        for conv in self.convs:
            y = conv(x)
            y = functional.layer_norm(y.permute(0, 2, 3, 1), y.shape[1:2]).permute(0, 3, 1, 2)
            y = functional.gelu(y)
            x = x + y if x.shape == y.shape else y
        return self.proj(x.flatten(2).transpose(1, 2))


def patch_grid(frames: Tensor, patch_size: int = 16) -> tuple[int, int]:
    """Rows (time steps) and columns (bands) of the patches of a spectrogram (B, T, 128)."""
    return frames.shape[1] // patch_size, FREQ_BINS


def embed_patches(backbone: EatBackbone, frames: Tensor) -> Tensor:
    """Patches with their positions, (B, N, C), of a spectrogram (B, T, 128)."""
    return backbone.fixed_positional_encoder(backbone.local_encoder(frames))


def encode_visible(backbone: EatBackbone, patches: Tensor, places: Tensor) -> Tensor:
    """The student: CLS and the visible patches through the encoder.

    Args:
        backbone: The encoder.
        patches: (B, N, C), from `embed_patches`.
        places: (B, K), the visible ones.

    Returns:
        (B, 1 + K, C), CLS first.
    """
    visible = gather_tokens(patches, places)
    tokens = torch.cat([backbone.extra_tokens.expand(len(visible), -1, -1), visible], dim=1)
    return backbone.blocks(backbone.pre_norm(tokens))


def fill_hidden(visible: Tensor, places: Tensor, count: int, noise: float) -> Tensor:
    """A decoder's input (B, N, C): the encoded visible patches (B, K, C) in their places, noise elsewhere."""
    fill = visible.new_empty(len(visible), count, visible.shape[-1]).normal_(0.0, noise)
    return scatter_tokens(visible, places, fill)


@torch.no_grad()
def teacher_targets(backbone: EatBackbone, frames: Tensor, top_k: int) -> Tensor:
    """What the student has to guess: the mean over blocks of what their MLPs put out, patches only.

    The output of each MLP is taken before the residual sum and normalised over the patches of a clip, channel by
    channel; the mean is normalised once more, token by token.

    Args:
        backbone: The teacher.
        frames: (B, T, 128).
        top_k: Number of blocks, the last ones; at most as many as there are.

    Returns:
        (B, N, C) float32.
    """
    first = max(0, len(backbone.blocks) - top_k)
    names = [f"blocks.{i}.mlp" for i in range(first, len(backbone.blocks))]
    with tap_layers(backbone, names) as taps:
        backbone(frames)
    return average_normalised([taps[name][:, 1:] for name in names])


def average_normalised(layers: Sequence[Tensor]) -> Tensor:
    """Mean over layers (B, N, C), each instance-normalised over N, then layer-normalised; float32."""
    total = cast(Tensor, sum(functional.instance_norm(layer.float().transpose(1, 2)) for layer in layers))
    mean = (total / len(layers)).transpose(1, 2)
    return functional.layer_norm(mean, mean.shape[-1:])
