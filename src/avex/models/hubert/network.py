"""The network of HuBERT: convolutions on raw samples, convolutional positions, a post-norm transformer."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from avex.models.hubert.config import HubertConfig
from avex.models.hubert.extractor import FeatureExtractor
from avex.nn.linear import Linear, linear_gelu
from avex.nn.position import ConvPositionEmbedding


class FeatureProjection(nn.Module):
    """Norm and linear map from the convolutions to the transformer."""

    def __init__(self, inputs: int, config: HubertConfig) -> None:
        super().__init__()
        self.layer_norm = nn.LayerNorm(inputs)
        self.projection = Linear(inputs, config.encoder_embed_dim)
        self.dropout = nn.Dropout(config.encoder_projection_dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) to (B, T, D)."""
        return self.dropout(self.projection(self.layer_norm(x)))


class SelfAttention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, config: HubertConfig) -> None:
        super().__init__()
        dim = config.encoder_embed_dim
        self.num_heads = config.encoder_num_heads
        self.dropout = config.encoder_attention_dropout
        self.k_proj = Linear(dim, dim)
        self.v_proj = Linear(dim, dim)
        self.q_proj = Linear(dim, dim)
        self.out_proj = Linear(dim, dim)

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """(B, T, D) to (B, T, D); `keep`: (B, 1, 1, T) bool, False for frames that nobody may look at."""
        query, key, value = (
            proj(x).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=keep, dropout_p=self.dropout if self.training else 0.0
        )
        return self.out_proj(mixed.transpose(1, 2).reshape(x.shape))


class FeedForward(nn.Module):
    """Two linear maps with an exact GELU between them."""

    def __init__(self, config: HubertConfig) -> None:
        super().__init__()
        self.intermediate_dense = Linear(config.encoder_embed_dim, config.encoder_ff_interm_features)
        self.intermediate_dropout = nn.Dropout(config.encoder_ff_interm_dropout)
        self.output_dense = Linear(config.encoder_ff_interm_features, config.encoder_embed_dim)
        self.output_dropout = nn.Dropout(config.encoder_dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) to (B, T, D)."""
        hidden = self.intermediate_dropout(linear_gelu(self.intermediate_dense, x))
        return self.output_dropout(self.output_dense(hidden))


class EncoderLayer(nn.Module):
    """One transformer layer; norms come after the sums."""

    def __init__(self, config: HubertConfig) -> None:
        super().__init__()
        self.attention = SelfAttention(config)
        self.dropout = nn.Dropout(config.encoder_dropout)
        self.layer_norm = nn.LayerNorm(config.encoder_embed_dim)
        self.feed_forward = FeedForward(config)
        self.final_layer_norm = nn.LayerNorm(config.encoder_embed_dim)

    def forward(self, x: Tensor, keep: Tensor | None = None, *, skip: bool = False) -> Tensor:
        """(B, T, D) to (B, T, D); `keep` as in `SelfAttention.forward`.

        `skip`: return `x` as it is. A layer that is left out is called all the same, for those who read layers.
        """
        if skip:
            return x
        x = self.layer_norm(x + self.dropout(self.attention(x, keep)))
        return self.final_layer_norm(x + self.feed_forward(x))


class Transformer(nn.Module):
    """Positions and layers.

    Attributes:
        gradient_checkpointing: In training, keep only the inputs of the layers and compute the rest again.
    """

    def __init__(self, config: HubertConfig) -> None:
        super().__init__()
        dim = config.encoder_embed_dim
        self.layer_drop = config.encoder_layer_drop
        self.gradient_checkpointing = False
        self.pos_conv_embed = ConvPositionEmbedding(
            dim, config.encoder_pos_conv_kernel, config.encoder_pos_conv_groups
        )
        self.layer_norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(config.encoder_dropout)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_num_layers))

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """(B, T, D) to (B, T, D); `keep` as in `SelfAttention.forward`."""
        x = self.dropout(self.layer_norm(x + self.pos_conv_embed(x)))
        for layer in self.layers:
            if self.training and self.layer_drop and torch.rand(()).item() < self.layer_drop:
                x = layer(x, keep, skip=True)
            elif self.training and self.gradient_checkpointing and torch.is_grad_enabled():
                x = checkpoint(layer, x, keep, use_reentrant=False)
            else:
                x = layer(x, keep)
        return x


class Encoder(nn.Module):
    """Projection and transformer."""

    def __init__(self, inputs: int, config: HubertConfig) -> None:
        super().__init__()
        self.feature_projection = FeatureProjection(inputs, config)
        self.transformer = Transformer(config)

    def forward(self, x: Tensor, padding: Tensor | None = None) -> Tensor:
        """(B, T, C) to (B, T, D); `padding`: (B, T) bool, True for frames of padding."""
        x = self.feature_projection(x)
        if padding is None:
            return self.transformer(x)
        x = x.masked_fill(padding.unsqueeze(-1), 0.0)
        # A clip that is padding throughout has nothing else to look at.
        keep = ~padding | padding.all(1, keepdim=True)
        return self.transformer(x, keep[:, None, None, :])


class HubertBackbone(nn.Module):
    """HuBERT from raw samples to frames.

    Args:
        config: Sizes and settings.

    Source:
        Hsu et al. (2021), https://arxiv.org/abs/2106.07447.

    Example:
        >>> HubertBackbone(HubertConfig(encoder_num_layers=1)).eval()(torch.zeros(1, 16000)).shape
        torch.Size([1, 49, 768])
    """

    def __init__(self, config: HubertConfig) -> None:
        super().__init__()
        self.feature_extractor = FeatureExtractor(config)
        self.encoder = Encoder(config.extractor_conv_layer_config[-1][0], config)

    def forward(self, waveform: Tensor, padding: Tensor | None = None) -> Tensor:
        """Frames of a waveform.

        Args:
            waveform: (B, S) at 16 kHz.
            padding: (B, T) bool, True for frames of padding, or None to let all take part.

        Returns:
            (B, T, D).
        """
        return self.encoder(self.feature_extractor(waveform), padding)
