"""The network of BEATs: spectrogram patches, convolutional positions, a transformer with gated relative ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from avex.models.beats.config import BeatsConfig
from avex.models.beats.relative_position import RelativePositionTable, biased_attention
from avex.nn.linear import Linear, linear_gelu
from avex.nn.position import ConvPositionEmbedding
from avex.nn.transformer import PatchProjection

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "gelu_accurate": partial(functional.gelu, approximate="tanh"),
    "gelu_fast": partial(functional.gelu, approximate="tanh"),
    "relu": functional.relu,
    "tanh": torch.tanh,
    "linear": lambda x: x,
}


class GatedAttention(nn.Module):
    """Multi-head self-attention with a relative position bias that each query gates.

    Args:
        config: Sizes and settings.

    Source:
        Chi et al. (2022), https://arxiv.org/abs/2106.16138, section 3.1 (the gate).
    """

    def __init__(self, config: BeatsConfig) -> None:
        super().__init__()
        dim = config.encoder_embed_dim
        self.num_heads = config.encoder_attention_heads
        self.dropout = config.attention_dropout
        self.k_proj = Linear(dim, dim)
        self.v_proj = _scaled(Linear(dim, dim), config.branch_gain)
        self.q_proj = Linear(dim, dim)
        self.out_proj = _scaled(Linear(dim, dim), config.branch_gain)
        self.gated = config.gru_rel_pos and config.relative_position_embedding
        if self.gated:
            self.grep_linear = Linear(dim // self.num_heads, 8)
            self.grep_a = nn.Parameter(torch.ones(1, self.num_heads, 1, 1))

    def forward(self, x: Tensor, bias: Tensor | None, padding: Tensor | None = None) -> Tensor:
        """Mix tokens.

        Args:
            x: (B, T, C).
            bias: (H, 2 T - 1) by distance; (B, H, T, T) by pair, for tokens that do not lie side by side; or None.
            padding: (B, T) bool, True for tokens that nobody may look at.

        Returns:
            (B, T, C).
        """
        query, key, value = (self._heads(proj(x)) for proj in (self.q_proj, self.k_proj, self.v_proj))
        dropout = self.dropout if self.training else 0.0
        gate = self._gate(query) if self.gated and bias is not None else None
        if bias is not None and bias.ndim == 2:
            mixed = biased_attention(query, key, value, bias, gate, padding, dropout)
        else:
            mask = _pair_mask(bias, gate, padding, query.dtype)
            mixed = functional.scaled_dot_product_attention(
                query, key, value, attn_mask=mask, dropout_p=dropout
            ).transpose(1, 2)
        return self.out_proj(mixed.reshape(x.shape))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.num_heads, -1)).transpose(1, 2)

    def _gate(self, query: Tensor) -> Tensor:
        """How much of the bias each query takes, (B, H, T), from the query before it is scaled."""
        # The published layer maps to 2 x 4 numbers and adds up each four: that is a map to 2.
        weight = self.grep_linear.weight.view(2, 4, -1).sum(1)
        bias = self.grep_linear.bias.view(2, 4).sum(1)
        update, reset = functional.linear(query, weight, bias).float().sigmoid().unbind(-1)
        return update * (reset * self.grep_a.squeeze(-1) - 1.0) + 2.0


class EncoderLayer(nn.Module):
    """One transformer layer: attention and a feed-forward part, each with a scaled residual.

    Args:
        config: Sizes and settings.
    """

    def __init__(self, config: BeatsConfig) -> None:
        super().__init__()
        dim = config.encoder_embed_dim
        self.norm_first = config.layer_norm_first
        self.residual_scale = config.residual_scale
        self.activation = _ACTIVATIONS[config.activation_fn]
        self.self_attn = GatedAttention(config)
        self.self_attn_layer_norm = nn.LayerNorm(dim)
        self.fc1 = _scaled(Linear(dim, config.encoder_ffn_embed_dim), config.branch_gain)
        self.fc2 = _scaled(Linear(config.encoder_ffn_embed_dim, dim), config.branch_gain)
        self.final_layer_norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(config.dropout)
        self.activation_dropout = nn.Dropout(config.activation_dropout)

    def forward(
        self, x: Tensor, bias: Tensor | None, padding: Tensor | None = None, *, skip: bool = False
    ) -> Tensor:
        """(B, T, C) to (B, T, C); `bias` and `padding` as in `GatedAttention.forward`.

        `skip`: return `x` as it is. A layer that is left out is called all the same, for those who read layers.
        """
        if skip:
            return x
        entering = self.self_attn_layer_norm(x) if self.norm_first else x
        x = self._add(self.self_attn(entering, bias, padding), x)
        x = x if self.norm_first else self.self_attn_layer_norm(x)
        entering = self.final_layer_norm(x) if self.norm_first else x
        hidden = self.activation_dropout(self._expand(entering))
        x = self._add(self.fc2(hidden), x)
        return x if self.norm_first else self.final_layer_norm(x)

    def _expand(self, x: Tensor) -> Tensor:
        if self.activation is functional.gelu:
            return linear_gelu(self.fc1, x)
        return self.activation(self.fc1(x))

    def _add(self, branch: Tensor, residual: Tensor) -> Tensor:
        return torch.add(self.dropout(branch), residual, alpha=self.residual_scale)


class Encoder(nn.Module):
    """The transformer.

    Args:
        config: Sizes and settings.

    Attributes:
        gradient_checkpointing: In training, keep only the inputs of the layers and compute the rest again.
    """

    def __init__(self, config: BeatsConfig) -> None:
        super().__init__()
        dim = config.encoder_embed_dim
        self.norm_first = config.layer_norm_first
        self.layerdrop = config.encoder_layerdrop
        self.gradient_ratio = config.layer_wise_gradient_decay_ratio
        self.gradient_checkpointing = False
        self.pos_conv = ConvPositionEmbedding(dim, config.conv_pos, config.conv_pos_groups)
        self.layer_norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(config.dropout)
        self.relative_attention_bias = (
            RelativePositionTable(config.num_buckets, config.max_distance, config.encoder_attention_heads)
            if config.relative_position_embedding
            else None
        )
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers))

    def forward(self, x: Tensor, padding: Tensor | None = None) -> Tensor:
        """Tokens (B, T, C) to (B, T, C).

        `padding`: (B, T) bool, True where padded. Padded tokens enter as zeros and nobody looks at them; what
        comes out in their places means nothing.
        """
        if padding is not None:
            x = x.masked_fill(padding.unsqueeze(-1), 0.0)
            # A clip that is padding throughout has nothing else to look at.
            padding = padding & ~padding.all(1, keepdim=True)
        x = x + self.pos_conv(x)
        x = self.dropout(x if self.norm_first else self.layer_norm(x))
        rows = None if self.relative_attention_bias is None else self.relative_attention_bias(x.shape[1])
        return self.run_layers(x, rows, padding)

    def run_layers(self, x: Tensor, bias: Tensor | None, padding: Tensor | None) -> Tensor:
        """Run tokens (B, T, C) that have their positions through all layers; see `GatedAttention.forward`."""
        for layer in self.layers:
            x = self._run(layer, x, bias, padding)
        return self.layer_norm(x) if self.norm_first else x

    def _run(self, layer: nn.Module, x: Tensor, bias: Tensor | None, padding: Tensor | None) -> Tensor:
        if not self.training:
            return layer(x, bias, padding)
        if self.gradient_ratio != 1.0 and torch.is_grad_enabled():
            x = cast(Tensor, _ScaleGradient.apply(x, self.gradient_ratio))
        if self.layerdrop and torch.rand(()).item() < self.layerdrop:
            return layer(x, bias, padding, skip=True)
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return checkpoint(layer, x, bias, padding, use_reentrant=False)
        return layer(x, bias, padding)


class BeatsBackbone(nn.Module):
    """BEATs from normalised filter bank energies to tokens.

    Args:
        config: Sizes and settings.

    Source:
        Chen et al. (2022), https://arxiv.org/abs/2212.09058.

    Example:
        >>> BeatsBackbone(BeatsConfig(encoder_layers=1)).eval()(torch.zeros(1, 32, 128)).shape
        torch.Size([1, 16, 768])
    """

    def __init__(self, config: BeatsConfig) -> None:
        super().__init__()
        patch = config.input_patch_size
        self.patch_embedding = PatchProjection(
            1, config.embed_dim, patch, stride=patch, bias=config.conv_bias
        )
        self.layer_norm = nn.LayerNorm(config.embed_dim)
        same = config.embed_dim == config.encoder_embed_dim
        self.post_extract_proj = nn.Identity() if same else Linear(config.embed_dim, config.encoder_embed_dim)
        self.dropout_input = nn.Dropout(config.dropout_input)
        self.encoder = Encoder(config)
        self.predictor = None
        if config.finetuned_model:
            self.predictor_dropout = nn.Dropout(config.predictor_dropout)
            self.predictor = Linear(config.encoder_embed_dim, config.predictor_class)

    def forward(self, fbank: Tensor, padding: Tensor | None = None) -> Tensor:
        """Tokens of filter bank energies.

        Args:
            fbank: (B, frames, bands).
            padding: (B, T) bool, True for tokens of padding.

        Returns:
            (B, T, C): the bands of one time step lie next to each other.
        """
        x = self.post_extract_proj(self.layer_norm(self.patch_embedding(fbank)))
        return self.encoder(self.dropout_input(x), padding)


class _ScaleGradient(torch.autograd.Function):
    """The identity, with the gradient scaled."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, ratio: float) -> Tensor:
        ctx.ratio = ratio
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * ctx.ratio, None


def _pair_mask(
    bias: Tensor | None, gate: Tensor | None, padding: Tensor | None, dtype: torch.dtype
) -> Tensor | None:
    """What is added to the scores of pairs of tokens, or True where a token may be looked at; None for neither."""
    if bias is None:
        return None if padding is None else ~padding[:, None, None, :]
    mask = bias if gate is None else gate.unsqueeze(-1) * bias
    if padding is not None:
        mask = mask.masked_fill(padding[:, None, None, :], -math.inf)
    return mask.to(dtype)


def _scaled(layer: nn.Linear, gain: float) -> nn.Linear:
    with torch.no_grad():
        layer.weight.mul_(gain)
    return layer
