"""Probes with attention: self-attention, a transformer, and learned queries over time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from avex._core.errors import ConfigError
from avex.models.probes.base import Probe
from avex.models.probes.heads import masked_mean
from avex.models.probes.inputs import LayerMix
from avex.models.probes.positions import DEFAULT_STEPS, add_learned, learned_positions, sinusoids


class AttentionProbe(Probe):
    """Layers of self-attention, each with a residual and a norm; then the mean over time.

    Args:
        inputs: See `Probe`.
        num_classes: Number of logits.
        num_heads: Attention heads; must divide the width of the input.
        attention_dim: Accepted and unused, as in published probes: attention is as wide as the input.
        num_layers: Layers.
        dropout_rate: Dropout of attention, after each layer and before the classifier.
        use_positional_encoding: Add sines and cosines of the position.
        max_sequence_length: Rows of the stored table; longer sequences get a longer one.
        **options: `base_model` and `freeze_backbone` of `Probe`.

    Raises:
        ConfigError: `num_heads` does not divide the width.
    """

    probe_type = "attention"
    kind = "sequence"

    pos_encoding: Tensor | None

    def __init__(
        self,
        inputs: LayerMix,
        num_classes: int,
        *,
        num_heads: int = 8,
        attention_dim: int = 512,
        num_layers: int = 1,
        dropout_rate: float = 0.1,
        use_positional_encoding: bool = False,
        max_sequence_length: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(inputs, num_classes, **options)
        dim = inputs.dim
        check_heads(num_heads, dim)
        self.attention_layers = nn.ModuleList(
            nn.MultiheadAttention(dim, num_heads, dropout=dropout_rate, batch_first=True)
            for _ in range(num_layers)
        )
        self.layer_norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(num_layers))
        self.dropout = nn.Dropout(dropout_rate)
        self.classifier = nn.Linear(dim, num_classes)
        table = sinusoids(max_sequence_length or DEFAULT_STEPS, dim) if use_positional_encoding else None
        self.register_buffer("pos_encoding", table)

    def head(self, x: Tensor, padding_mask: Tensor | None) -> Tensor:
        """Logits of (B, N, D)."""
        if self.pos_encoding is not None:
            steps = x.shape[1]
            known = steps <= self.pos_encoding.shape[1]
            table = self.pos_encoding[:, :steps] if known else sinusoids(steps, x.shape[2]).to(x)
            x = x + table
        for attention, norm in zip(self.attention_layers, self.layer_norms, strict=True):
            mixed, _ = attention(x, x, x, key_padding_mask=padding_mask, need_weights=False)
            x = self.dropout(norm(x + mixed))
        return self.classifier(self.dropout(masked_mean(x, padding_mask)))


class TransformerProbe(Probe):
    """A transformer encoder, norms after the sums; then the mean over time.

    Args:
        inputs: See `Probe`.
        num_classes: Number of logits.
        num_heads: Attention heads; must divide the width of the input.
        attention_dim: Width inside the feed-forward parts.
        num_layers: Layers.
        dropout_rate: Dropout.
        use_positional_encoding: Add learned positions.
        max_sequence_length: Most steps that learned positions have room for; 1000 if None.
        **options: `base_model` and `freeze_backbone` of `Probe`.

    Raises:
        ConfigError: `num_heads` does not divide the width.

    Source:
        Vaswani et al. (2017), https://arxiv.org/abs/1706.03762.
    """

    probe_type = "transformer"
    kind = "sequence"

    def __init__(
        self,
        inputs: LayerMix,
        num_classes: int,
        *,
        num_heads: int = 8,
        attention_dim: int = 768,
        num_layers: int = 4,
        dropout_rate: float = 0.1,
        use_positional_encoding: bool = False,
        max_sequence_length: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(inputs, num_classes, **options)
        dim = inputs.dim
        check_heads(num_heads, dim)
        positions = learned_positions(dim, max_sequence_length) if use_positional_encoding else None
        self.pos_encoding = positions
        layer = nn.TransformerEncoderLayer(dim, num_heads, attention_dim, dropout_rate, batch_first=True)
        # Nested tensors would cut the batch to its longest clip, which the mask then no longer fits.
        self.transformer = nn.TransformerEncoder(layer, num_layers, enable_nested_tensor=False)
        self.dropout = nn.Dropout(dropout_rate)
        self.classifier = nn.Linear(dim, num_classes)

    def head(self, x: Tensor, padding_mask: Tensor | None) -> Tensor:
        """Logits of (B, N, D)."""
        if self.pos_encoding is not None:
            x = add_learned(x, self.pos_encoding)
        x = self.transformer(x, src_key_padding_mask=padding_mask)
        return self.classifier(self.dropout(masked_mean(x, padding_mask)))


class AttentionPoolingProbe(Probe):
    """Learned queries that choose which steps of a sequence count, and a linear map.

    Each query gives every step a share by its scalar product with it, so that the shares add up to one. The mean
    over queries weighs the steps. That costs `num_heads` vectors on top of a linear probe: for a call of half a
    second in a clip of ten, much of what attention gives at a hundredth of its parameters.

    Args:
        inputs: See `Probe`.
        num_classes: Number of logits.
        num_heads: Learned queries.
        dropout_rate: Dropout before the classifier.
        **options: `base_model` and `freeze_backbone` of `Probe`.

    Source:
        Ilse et al. (2018), https://arxiv.org/abs/1802.04712 (attention as pooling).

    Example:
        >>> probe = AttentionPoolingProbe(LayerMix(("x",), (8,), kind="sequence"), 3, num_heads=2)
        >>> probe(torch.zeros(2, 5, 8)).shape, sum(p.numel() for p in probe.parameters())
        (torch.Size([2, 3]), 43)
    """

    probe_type = "attention_pooling"
    kind = "sequence"

    def __init__(
        self,
        inputs: LayerMix,
        num_classes: int,
        *,
        num_heads: int = 4,
        dropout_rate: float = 0.1,
        **options: Any,
    ) -> None:
        super().__init__(inputs, num_classes, **options)
        # Small, so that training starts near the plain mean; not zero, or all queries would learn the same.
        self.queries = nn.Parameter(0.02 * torch.randn(num_heads, inputs.dim))
        self.dropout = nn.Dropout(dropout_rate)
        self.classifier = nn.Linear(inputs.dim, num_classes)

    def head(self, x: Tensor, padding_mask: Tensor | None) -> Tensor:
        """Logits of (B, N, D)."""
        shares = self.attention(x, padding_mask).mean(1, keepdim=True)
        return self.classifier(self.dropout((shares @ x).squeeze(1)))

    def attention(self, x: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """Share of each step of (B, N, D) for each query, (B, queries, N)."""
        scores = self.queries @ x.transpose(1, 2) * x.shape[-1] ** -0.5
        if padding_mask is not None:
            scores = scores.masked_fill(padding_mask.unsqueeze(1), float("-inf"))
        return scores.softmax(-1)


def check_heads(num_heads: int, dim: int) -> None:
    """Make sure that heads of equal width fill the input.

    Raises:
        ConfigError: They do not; the message says which numbers do.
    """
    if dim % num_heads:
        fitting = [n for n in range(1, min(dim, 64) + 1) if dim % n == 0]
        raise ConfigError(
            f"num_heads={num_heads} does not divide the {dim} numbers of a step. Choose one of "
            f"{', '.join(map(str, fitting))}."
        )
