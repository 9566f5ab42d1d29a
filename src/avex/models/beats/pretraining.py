"""What only the pre-training of BEATs needs: the encoder of visible patches and the predictor of labels."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from avex._core.errors import ConfigError
from avex.models.beats.config import BeatsConfig
from avex.models.beats.network import BeatsBackbone, Encoder
from avex.nn.linear import Linear
from avex.nn.masking import gather_tokens, scatter_tokens


@dataclass(frozen=True)
class BeatsPretrainingConfig:
    """Settings of BEATs' masked prediction of labels.

    Mask, codes and their length are the paper's.

    Attributes:
        mask_ratio: Share of the patches that is hidden.
        codes: Number of different labels of the tokenizer.
        code_dim: Length of a code's vector.
        predictor_layers: Transformer layers that turn what the encoder saw into labels of what it did not.

    Source:
        Chen et al. (2022), https://arxiv.org/abs/2212.09058, sections 3 and 4.

    Example:
        >>> BeatsPretrainingConfig().codes
        1024
    """

    mask_ratio: float = 0.75
    codes: int = 1024
    code_dim: int = 256
    predictor_layers: int = 3

    def __post_init__(self) -> None:
        if self.codes < 2 or self.code_dim < 1 or self.predictor_layers < 1:
            raise ConfigError("BEATs pre-training needs codes >= 2, code_dim >= 1 and predictor_layers >= 1.")


class LabelPredictor(nn.Module):
    """Guesses the labels of hidden patches from the encoded visible ones.

    Args:
        config: Sizes of the encoder, which its layers share.
        settings: Settings of the pre-training.
    """

    def __init__(self, config: BeatsConfig, settings: BeatsPretrainingConfig) -> None:
        super().__init__()
        self.mask_vector = nn.Parameter(torch.empty(config.encoder_embed_dim))
        self.encoder = Encoder(dataclasses.replace(config, encoder_layers=settings.predictor_layers))
        self.labels = Linear(config.encoder_embed_dim, settings.codes)
        nn.init.normal_(self.mask_vector, std=0.02)

    def forward(self, visible: Tensor, places: Tensor, count: int, padding: Tensor | None = None) -> Tensor:
        """Scores of the labels of all patches.

        Args:
            visible: (B, K, C), the encoded visible patches.
            places: (B, K), where they stand.
            count: Number of patches, N.
            padding: (B, N) bool, True for patches of padding.

        Returns:
            (B, N, codes).
        """
        fill = self.mask_vector.expand(len(visible), count, -1)
        return self.labels(self.encoder(scatter_tokens(visible, places, fill), padding))


def raw_patches(fbank: Tensor, patch_size: int) -> Tensor:
    """Cut a spectrogram (B, T, F) into patches (B, N, patch_size^2), in the order of BEATs' tokens."""
    high, wide = fbank.shape[1] // patch_size, fbank.shape[2] // patch_size
    cut = fbank[:, : high * patch_size, : wide * patch_size]
    cells = cut.reshape(-1, high, patch_size, wide, patch_size).transpose(2, 3)
    return cells.reshape(-1, high * wide, patch_size**2)


def embed_patches(backbone: BeatsBackbone, fbank: Tensor) -> Tensor:
    """Patches (B, N, C) of a spectrogram (B, T, F), as they enter the transformer."""
    x = backbone.patch_embedding(fbank.to(backbone.patch_embedding.weight.dtype))
    return backbone.dropout_input(backbone.post_extract_proj(backbone.layer_norm(x)))


def encode_visible(
    encoder: Encoder, patches: Tensor, mask: Tensor, places: Tensor, padding: Tensor | None = None
) -> Tensor:
    """Run only the visible patches through the transformer.

    It gives what the whole transformer gives in their places if it treats hidden patches as padding: they are
    zeros to the convolution of positions, and nobody looks at them. Distances between patches are those in the
    whole clip. A quarter of the patches takes a quarter of the time, and less in attention.

    Args:
        encoder: BEATs' transformer.
        patches: (B, N, C), from `embed_patches`.
        mask: (B, N) bool, True for hidden patches.
        places: (B, K), the visible ones.
        padding: (B, N) bool, True for patches of padding, or None.

    Returns:
        (B, K, C).
    """
    hidden = mask if padding is None else mask | padding
    x = patches.masked_fill(hidden.unsqueeze(-1), 0.0)
    x = x + encoder.pos_conv(x)
    x = gather_tokens(encoder.dropout(x if encoder.norm_first else encoder.layer_norm(x)), places)
    bias = _distance_bias(encoder, places, patches.shape[1])
    closed = None if padding is None else padding.gather(1, places)
    if closed is not None:
        # A clip whose visible patches are all padding has nothing else to look at.
        closed = closed & ~closed.all(1, keepdim=True)
    return encoder.run_layers(x, bias, closed)


def _distance_bias(encoder: Encoder, places: Tensor, count: int) -> Tensor | None:
    """Bias of the distances between places, (B, H, K, K)."""
    if encoder.relative_attention_bias is None:
        return None
    rows = encoder.relative_attention_bias(count)
    ahead = places[:, None, :] - places[:, :, None]
    return rows[:, count - 1 - ahead].transpose(0, 1)
