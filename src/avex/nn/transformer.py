"""Blocks of the vision transformers that read spectrograms: attention, MLP, block, stack, patches.

Sub-modules carry the names that published checkpoints use (`attn.qkv`, `mlp.fc1`, `norm1`, ...). Nothing here
works in place, so that a tensor read from a layer while the network runs is what that layer put out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from avex.nn.attention import attend
from avex.nn.linear import Linear, linear, linear_gelu

NormOrder = Literal["pre", "post"]


class Attention(nn.Module):
    """Multi-head self-attention with one projection for query, key and value.

    Args:
        dim: Length of a token.
        num_heads: Number of heads; divides `dim`.
        qkv_bias: Whether the projection of query, key and value has a bias.
        span: Tokens attend only within consecutive spans of this length, the last one being shorter; None
            for all tokens. Memory then grows with the number of spans, not with its square.

    Source:
        Vaswani et al. (2017), https://arxiv.org/abs/1706.03762.

    Example:
        >>> Attention(8, num_heads=2)(torch.zeros(1, 5, 8)).shape
        torch.Size([1, 5, 8])
    """

    def __init__(self, dim: int, num_heads: int, *, qkv_bias: bool = True, span: int | None = None) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"{num_heads} heads do not divide tokens of length {dim}.")
        self.num_heads = num_heads
        self.span = span
        self.qkv = Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = Linear(dim, dim)

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """Mix tokens.

        Args:
            x: (B, N, C).
            keep: (B, N) bool, False for tokens that no token may look at; None keeps all.

        Returns:
            (B, N, C).
        """
        batch, tokens, dim = x.shape
        qkv = self.qkv(x).view(batch, tokens, 3, self.num_heads, dim // self.num_heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        if self.span is None or tokens <= self.span:
            mixed = attend(query, key, value, keep)
        else:
            parts = [slice(start, start + self.span) for start in range(0, tokens, self.span)]
            mixed = torch.cat([self._attend_part(query, key, value, keep, part) for part in parts], dim=2)
        return self.proj(mixed.transpose(1, 2).reshape(batch, tokens, dim))

    @staticmethod
    def _attend_part(query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None, part: slice) -> Tensor:
        kept = None if keep is None else keep[:, part]
        return attend(query[:, :, part], key[:, :, part], value[:, :, part], kept)


class Mlp(nn.Module):
    """Two linear maps with an exact (erf) GELU between them.

    Args:
        dim: Length of a token.
        hidden_dim: Length in between.
    """

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = Linear(dim, hidden_dim)
        self.fc2 = Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) to (B, N, C)."""
        return self.fc2(linear_gelu(self.fc1, x))


class DropPath(nn.Module):
    """Stochastic depth: in training, leave out a residual branch for some clips of the batch.

    Args:
        rate: Probability that a clip's branch is left out.

    Source:
        Huang et al. (2016), https://arxiv.org/abs/1603.09382.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Scale what remains so that its expectation does not change; the identity outside training."""
        if not self.training or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        drawn = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(keep)
        return x * drawn / keep if keep > 0 else x * drawn

    def extra_repr(self) -> str:
        """The rate, for `print(model)`."""
        return f"rate={self.rate:g}"


class Block(nn.Module):
    """One transformer block.

    Args:
        dim: Length of a token.
        num_heads: Number of attention heads.
        hidden_dim: Length inside the MLP.
        norm: `pre` normalises what enters a branch, `post` the sum after it.
        eps: Epsilon of the layer norms.
        qkv_bias: See `Attention`.
        span: See `Attention`.
        drop_path: Rate of stochastic depth of both branches.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        hidden_dim: int,
        *,
        norm: NormOrder = "pre",
        eps: float = 1e-6,
        qkv_bias: bool = True,
        span: int | None = None,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm_order = norm
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = Attention(dim, num_heads, qkv_bias=qkv_bias, span=span)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = Mlp(dim, hidden_dim)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """(B, N, C) to (B, N, C); `keep` as in `Attention.forward`."""
        if self.norm_order == "pre":
            x = x + self.drop_path(self.attn(self.norm1(x), keep))
            return x + self.drop_path(self.mlp(self.norm2(x)))
        x = self.norm1(x + self.drop_path(self.attn(x, keep)))
        return self.norm2(x + self.drop_path(self.mlp(x)))


class BlockStack(nn.ModuleList):
    """Blocks one after the other, optionally recomputed in the backward pass to save memory.

    Attributes:
        gradient_checkpointing: In training, keep only the inputs of the blocks and compute the rest again.

    Example:
        >>> stack = BlockStack([Block(8, num_heads=2, hidden_dim=16) for _ in range(3)])
        >>> stack(torch.zeros(1, 5, 8)).shape
        torch.Size([1, 5, 8])
    """

    gradient_checkpointing: bool = False

    def outputs(self, x: Tensor, keep: Tensor | None = None) -> Iterator[Tensor]:
        """Yield the output of every block, (B, N, C) each."""
        recompute = self.gradient_checkpointing and self.training and torch.is_grad_enabled()
        for block in self:
            x = checkpoint(block, x, keep, use_reentrant=False) if recompute else block(x, keep)
            yield x

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """Return the output of the last block."""
        for output in self.outputs(x, keep):
            x = output
        return x


class PatchProjection(nn.Conv2d):
    """The convolution of `PatchEmbed`, computed as one matrix product, which takes a CPU half the time."""

    def forward(self, image: Tensor) -> Tensor:
        """(B, T, F) to (B, N, C)."""
        batch, rows, columns = image.shape
        size = self.kernel_size[0]
        high, wide = rows // size, columns // size
        image = image[:, : high * size, : wide * size].to(self.weight.dtype)
        grid = image.reshape(batch, high, size, wide, size)
        patches = grid.transpose(2, 3).reshape(batch, high * wide, size * size)
        return linear(patches, self.weight.flatten(1), self.bias)


class PatchEmbed(nn.Module):
    """Cut a spectrogram into square patches that do not overlap and map each to a token.

    The map is a linear one, and starts like one (Xavier-uniform), as masked pre-training needs it: a convolution's
    own start makes the tokens of a small network faint beside their positions.

    Args:
        dim: Length of a token.
        patch_size: Side of a patch.

    Source:
        He et al. (2022), https://arxiv.org/abs/2111.06377, appendix A.1.

    Example:
        >>> PatchEmbed(8, patch_size=16)(torch.zeros(1, 64, 128)).shape
        torch.Size([1, 32, 8])
    """

    def __init__(self, dim: int, patch_size: int = 16) -> None:
        super().__init__()
        self.proj = PatchProjection(1, dim, kernel_size=patch_size, stride=patch_size)
        bound = math.sqrt(6.0 / (dim + patch_size**2))
        nn.init.uniform_(self.proj.weight, -bound, bound)

    def forward(self, image: Tensor) -> Tensor:
        """Tokens of a spectrogram.

        Args:
            image: (B, T, F); frames and bins that fill no patch are left out.

        Returns:
            (B, T // p * F // p, C), the patches of one time step side by side.
        """
        return self.proj(image)


def drop_path_rates(rate: float, depth: int) -> list[float]:
    """Rates that rise linearly from 0 at the first block to `rate` at the last.

    Example:
        >>> drop_path_rates(0.1, 3)
        [0.0, 0.05, 0.1]
    """
    return [rate * index / max(depth - 1, 1) for index in range(depth)]
