"""Attention whose scores carry a relative position bias that every query scales by itself.

The bias of BEATs, `gate[b, h, i] * table[bucket(j - i), h]`, differs for each clip, head and pair of tokens: a
float of (B, H, T, T) per layer if it were written out. Two observations keep it small:

- Without the gate it depends on `j - i` alone. With keys and values in reverse order, element (i, j) becomes
  `row[i + j]`: a view of 2 T - 1 numbers with overlapping rows, which is never stored.
- Attention is independent for each clip, head and query. A scratch buffer that fits into the processor's cache
  takes the product of gate and view for a few of them at a time.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from avex.nn.attention import biased_products
from avex.nn.autocast import autocast_disabled

# Bytes of the scratch buffer: on a CPU about what the cache of each core takes, elsewhere what keeps it busy.
_SCRATCH_PER_CORE = 2 << 20
_SCRATCH_DEVICE = 256 << 20


class RelativePositionTable(nn.Module):
    """A learned bias for each attention head and distance, distances being put into buckets.

    Half of the buckets serve each direction. Of those, half hold one distance each, the others ever wider,
    logarithmically spaced ranges up to `max_distance`.

    Args:
        num_buckets: Number of buckets.
        max_distance: Distance from which on all share the last bucket.
        num_heads: Number of attention heads.

    Source:
        Raffel et al. (2020), https://arxiv.org/abs/1910.10683, section 2.1.

    Example:
        >>> RelativePositionTable(32, 64, num_heads=4)(10).shape
        torch.Size([4, 19])
    """

    _buckets: Tensor

    def __init__(self, num_buckets: int, max_distance: int, num_heads: int) -> None:
        super().__init__()
        self.num_buckets = num_buckets
        self.max_distance = max_distance
        self.weight = nn.Parameter(torch.empty(num_buckets, num_heads))
        self.register_buffer("_buckets", torch.empty(0, dtype=torch.long), persistent=False)
        nn.init.xavier_normal_(self.weight)

    def forward(self, num_tokens: int) -> Tensor:
        """The bias of all distances that occur among a number of tokens.

        Returns:
            (H, 2 T - 1): item `x` is for a key that stands `T - 1 - x` places behind its query.
        """
        return functional.embedding(self._buckets_for(num_tokens), self.weight).t().contiguous()

    def _buckets_for(self, num_tokens: int) -> Tensor:
        buckets = self._buckets
        longest = (buckets.shape[0] + 1) // 2
        if num_tokens > longest:
            longest = max(512, num_tokens)
            # Made outside inference mode, because a training step may come later and use the same buffer.
            with torch.inference_mode(False):
                distances = torch.arange(longest - 1, -longest, -1)
                buckets = relative_buckets(distances, self.num_buckets, self.max_distance)
                buckets = buckets.to(self.weight.device)
            self._buckets = buckets
        return buckets[longest - num_tokens : longest + num_tokens - 1]


def relative_buckets(distances: Tensor, num_buckets: int, max_distance: int) -> Tensor:
    """Bucket of each distance.

    Args:
        distances: Place of the key minus place of the query, integers.
        num_buckets: Number of buckets of both directions together.
        max_distance: Distance from which on all share the last bucket.

    Returns:
        Integers of the same shape; keys behind the query have the upper half.

    Example:
        >>> relative_buckets(torch.tensor([0, -1, 1, 2000]), 320, 800).tolist()
        [0, 1, 161, 319]
    """
    half = num_buckets // 2
    exact = half // 2
    size = distances.abs()
    # The rounding of float32 logarithms is part of the definition: it decides at the edges of buckets.
    ratio = torch.log(size.clamp(min=1).float() / exact) / math.log(max_distance / exact)
    wide = (exact + (ratio * (half - exact)).long()).clamp(max=half - 1)
    return torch.where(size < exact, size, wide) + (distances > 0) * half


def biased_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    rows: Tensor,
    gate: Tensor | None = None,
    padding: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """Attention with scores `query . key / sqrt(D) + gate * bias`.

    Args:
        query: (B, H, T, D).
        key: (B, H, T, D).
        value: (B, H, T, D).
        rows: (H, 2 T - 1), from `RelativePositionTable`.
        gate: (B, H, T), or None for a bias that is not scaled.
        padding: (B, T) bool, True for keys that nobody may look at; at least one per clip must be False.
        dropout: Rate on the attention weights.

    Returns:
        (B, T, H, D).
    """
    tokens = query.shape[2]
    key, value = key.flip(2), value.flip(2)
    padding = None if padding is None else padding.flip(1)
    bias = rows.unfold(1, tokens, 1)
    if gate is None:
        gate = rows.new_ones(()).expand(query.shape[:3])
    with autocast_disabled(query.device):  # it would round the bias
        return _attend(query, key, value, bias, gate.unsqueeze(-1), padding, dropout)


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor,
    gate: Tensor,
    padding: Tensor | None,
    dropout: float,
) -> Tensor:
    """`biased_attention` with keys, values and padding in reverse order: bias (H, T, T), gate (B, H, T, 1)."""
    if dropout or (torch.is_grad_enabled() and any(x.requires_grad for x in (query, key, value, bias, gate))):
        # Autograd keeps the bias of the whole batch anyway.
        mask = _hide((gate * bias).to(query.dtype), padding)
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
        return mixed.transpose(1, 2)
    return _in_parts(query, key, value, bias, gate, padding)


def _in_parts(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor, gate: Tensor, padding: Tensor | None
) -> Tensor:
    batch, heads, tokens, _ = query.shape
    on_cpu = query.device.type == "cpu"
    # The CPU kernel takes a float32 bias for lower-precision queries; else it wants one element type, and for
    # float64 queries it misreads any other without a word.
    dtype = torch.promote_types(query.dtype, torch.float32) if on_cpu else query.dtype
    # With a bias, that kernel is slower than two products and a softmax, which in bfloat16 want fewer scores at a
    # time.
    by_products = on_cpu and query.dtype in (torch.float32, torch.bfloat16)
    per_core = _SCRATCH_PER_CORE // 2 if query.dtype == torch.bfloat16 else _SCRATCH_PER_CORE
    budget = per_core * torch.get_num_threads() if on_cpu else _SCRATCH_DEVICE
    clips, some_heads, steps = _part_sizes(batch, heads, tokens, budget)
    scratch = torch.empty(clips * some_heads * steps * tokens, dtype=dtype, device=query.device)
    mixed = query.new_empty(batch, tokens, heads, query.shape[3])
    for b in _slices(batch, clips):
        hidden = None if padding is None else padding[b]
        for h in _slices(heads, some_heads):
            for t in _slices(tokens, steps):
                scale = gate[b, h, t]
                mask = scratch[: scale.numel() * tokens].view(*scale.shape[:3], tokens)
                torch.mul(scale, bias[h, t], out=mask)
                mask = _hide(mask, hidden)
                part = (
                    biased_products(query[b, h, t], key[b, h], value[b, h], mask)
                    if by_products
                    else functional.scaled_dot_product_attention(
                        query[b, h, t], key[b, h], value[b, h], attn_mask=mask
                    )
                )
                mixed[b, t, h] = part.transpose(1, 2)
    return mixed


def _hide(mask: Tensor, padding: Tensor | None) -> Tensor:
    if padding is None:
        return mask
    hidden = padding[:, None, None, :]
    return mask.masked_fill(hidden, -math.inf) if mask.requires_grad else mask.masked_fill_(hidden, -math.inf)


def _part_sizes(batch: int, heads: int, tokens: int, budget: int) -> tuple[int, int, int]:
    """How many clips, heads and queries to take at a time so that their float32 bias fits into `budget` bytes."""
    row = 4 * tokens
    steps = min(tokens, max(1, budget // row))
    if steps < tokens:
        return 1, 1, steps
    some_heads = min(heads, max(1, budget // (row * tokens)))
    if some_heads < heads:
        return 1, some_heads, tokens
    return min(batch, max(1, budget // (row * tokens * heads))), heads, tokens


def _slices(length: int, step: int) -> list[slice]:
    return [slice(start, min(start + step, length)) for start in range(0, length, step)]
