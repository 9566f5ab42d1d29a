"""What the matrix products of a transformer cost on this machine: the bound that its speed is measured against."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Product:
    """`count` products of (batch, m, k) and (batch, k, n)."""

    m: int
    k: int
    n: int
    batch: int = 1
    count: int = 1

    @property
    def flops(self) -> float:
        return 2.0 * self.m * self.k * self.n * self.batch * self.count

    def operation(self, dtype: torch.dtype) -> Callable[[], None]:
        """The product, on operands that are there already."""
        if self.batch == 1:
            a, weight = torch.randn(self.m, self.k, dtype=dtype), torch.randn(self.n, self.k, dtype=dtype)
            return lambda: [torch.nn.functional.linear(a, weight) for _ in range(self.count)] and None
        left = torch.randn(self.batch, self.m, self.k, dtype=dtype)
        right = torch.randn(self.batch, self.k, self.n, dtype=dtype)
        out = torch.empty(self.batch, self.m, self.n, dtype=dtype)
        return lambda: [torch.bmm(left, right, out=out) for _ in range(self.count)] and None


def encoder_products(
    clips: int, tokens: int, dim: int, hidden: int, heads: int, layers: int
) -> list[Product]:
    """The products of a transformer encoder."""
    rows, size = clips * tokens, dim // heads
    return [
        Product(rows, dim, dim, count=4 * layers),
        Product(rows, dim, hidden, count=layers),
        Product(rows, hidden, dim, count=layers),
        Product(tokens, size, tokens, batch=clips * heads, count=layers),
        Product(tokens, tokens, size, batch=clips * heads, count=layers),
    ]


def position_products(clips: int, tokens: int, dim: int, taps: int, groups: int) -> list[Product]:
    """The convolutional position embedding as one product per group."""
    return [Product(clips * tokens, dim // groups * taps, dim // groups, batch=groups)]


class PlainBlocks(torch.nn.Module):
    """The same layers as plain PyTorch: fused attention without any bias, norms, GELU, residuals."""

    def __init__(self, dim: int, hidden: int, heads: int, layers: int) -> None:
        super().__init__()
        self.heads = heads
        self.layers = torch.nn.ModuleList(
            torch.nn.ModuleDict(
                {
                    "qkv": torch.nn.Linear(dim, 3 * dim),
                    "out": torch.nn.Linear(dim, dim),
                    "norm1": torch.nn.LayerNorm(dim),
                    "fc1": torch.nn.Linear(dim, hidden),
                    "fc2": torch.nn.Linear(hidden, dim),
                    "norm2": torch.nn.LayerNorm(dim),
                }
            )
            for _ in range(layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            q, k, v = layer["qkv"](x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
            mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v)
            x = layer["norm1"](x + layer["out"](mixed.transpose(1, 2).flatten(2)))
            x = layer["norm2"](x + layer["fc2"](torch.nn.functional.gelu(layer["fc1"](x))))
        return x


def interleaved(operations: Sequence[Callable[[], object]], repeats: int, clock: str) -> list[float]:
    """Shortest time of each operation in seconds, taken in turns so that all meet the same weather.

    `clock`: `wall`, or `cpu` for processor time, which other programs on the machine disturb less (use it with
    one thread: waiting threads count).
    """
    now = time.perf_counter if clock == "wall" else time.process_time
    best = [float("inf")] * len(operations)
    for repeat in range(repeats + 1):
        for i, operation in enumerate(operations):
            start = now()
            operation()
            if repeat:  # the first round warms up
                best[i] = min(best[i], now() - start)
    return best
