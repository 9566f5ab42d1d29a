"""The time that a network's products alone would take: the bound that its speed is measured against."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from avex.embedding.throughput.products import Product, Shape
from avex.nn.linear import linear

# Each way is tried so often at least, and short ones for so long.
_TRIALS, _TRIAL_SECONDS = 5, 0.02

Operation = Callable[[], object]


@dataclass(frozen=True)
class BoundPart:
    """All products of one shape.

    Attributes:
        product: Its shapes and element type.
        count: How often the network computes it.
        way: The way of computing it that was the fastest here.
        seconds: Time of one.
        share: Part of the bound's time, 0 to 1.
    """

    product: Product
    count: int
    way: str
    seconds: float
    share: float


class LowerBound:
    """The products of a forward pass on operands that are there already, each in the fastest way known.

    There are several ways to compute each: operands of matrix products can be stored by rows or by columns,
    convolutions can have their channels first or last, attention can be one fused kernel or two products with
    nothing in between. Each is tried, and the fastest counts. Operands of the same role share memory; weights of
    their own for each product change the bound of BEATs and ATST by less than 2 %.

    Args:
        products: What to compute, in order; see `record_products`.
        device: Where.

    Example:
        >>> bound = LowerBound([Product("product", ((1, 2, 3), (1, 3, 4)), torch.float32)], torch.device("cpu"))
        >>> bound.run()
        >>> bound.parts[0].count
        1
    """

    def __init__(self, products: Sequence[Product], device: torch.device) -> None:
        scratch = _Scratch(device)
        counts = Counter(products)
        # Largest first, so that the shared memory is allocated once.
        unique = sorted(counts, key=lambda p: -sum(map(_size, p.shapes)))
        chosen: dict[Product, tuple[Operation, str, float]] = {}
        with torch.inference_mode():
            for product in unique:
                chosen[product] = _fastest(_WAYS[product.kind](product, scratch), device)
        self._sequence = [chosen[product][0] for product in products]
        total = sum(chosen[product][2] * count for product, count in counts.items())
        parts = [
            BoundPart(product, count, way, seconds, seconds * count / total)
            for product, count in counts.items()
            for _, way, seconds in [chosen[product]]
        ]
        self.parts = sorted(parts, key=lambda part: -part.share)
        self.flops = sum(product.flops for product in products)

    @torch.inference_mode()
    def run(self) -> None:
        """Compute all products once."""
        for operation in self._sequence:
            operation()


class _Scratch:
    """Memory that operands of one role and element type share."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._buffers: dict[tuple[str, torch.dtype], Tensor] = {}

    def __call__(self, role: str, shape: Shape, dtype: torch.dtype) -> Tensor:
        buffer = self._buffers.get((role, dtype))
        if buffer is None or buffer.numel() < _size(shape):
            buffer = torch.randn(_size(shape), device=self._device).to(dtype)
            self._buffers[role, dtype] = buffer
        return buffer[: _size(shape)].view(shape)


def _fastest(ways: dict[str, Operation], device: torch.device) -> tuple[Operation, str, float]:
    best = dict.fromkeys(ways, float("inf"))
    trials, stop = 0, time.perf_counter() + _TRIAL_SECONDS * len(ways)
    while trials < _TRIALS or time.perf_counter() < stop:
        for way, operation in ways.items():
            best[way] = min(best[way], _seconds(operation, device))
        trials += 1
    way = min(best, key=best.__getitem__)
    return ways[way], way, best[way]


def _seconds(operation: Operation, device: torch.device) -> float:
    synchronize(device)
    started = time.perf_counter()
    operation()
    synchronize(device)
    return time.perf_counter() - started


def synchronize(device: torch.device) -> None:
    """Wait until everything that was given to a device is computed."""
    if device.type in ("cuda", "mps"):
        getattr(torch, device.type).synchronize()


def _product_ways(product: Product, scratch: _Scratch) -> dict[str, Operation]:
    (batch, rows, inner), (_, _, columns) = product.shapes
    if batch == 1:
        return _matrix_ways(rows, inner, columns, product.dtype, scratch)
    left = scratch("left", (batch, rows, inner), product.dtype)
    by_rows = scratch("right", (batch, inner, columns), product.dtype)
    by_columns = scratch("right", (batch, columns, inner), product.dtype).mT
    out = scratch("out", (batch, rows, columns), product.dtype)
    return {
        "by rows": lambda: torch.bmm(left, by_rows, out=out),
        "by columns": lambda: torch.bmm(left, by_columns, out=out),
    }


def _matrix_ways(
    rows: int, inner: int, columns: int, dtype: torch.dtype, scratch: _Scratch
) -> dict[str, Operation]:
    left = scratch("left", (rows, inner), dtype)
    by_rows = scratch("right", (inner, columns), dtype)
    weight = scratch("right", (columns, inner), dtype)
    out = scratch("out", (rows, columns), dtype)
    return {
        "by rows": lambda: torch.mm(left, by_rows, out=out),
        "by columns": lambda: torch.mm(left, weight.t(), out=out),
        "linear": lambda: F.linear(left, weight),
        "fused linear": lambda: linear(left, weight),
    }


def _attention_ways(product: Product, scratch: _Scratch) -> dict[str, Operation]:
    query, key, value = (
        scratch(role, shape, product.dtype)
        for role, shape in zip(("query", "left", "right"), product.shapes, strict=True)
    )
    batch, heads, queries, _ = query.shape
    keys, size = value.shape[2:]
    flat_query, flat_key, flat_value = (t.flatten(0, 1) for t in (query, key, value))
    scores = scratch("scores", (batch * heads, queries, keys), product.dtype)
    out = scratch("out", (batch * heads, queries, size), product.dtype)

    def two_products() -> None:
        torch.bmm(flat_query, flat_key.mT, out=scores)
        torch.bmm(scores, flat_value, out=out)

    return {
        "fused": lambda: F.scaled_dot_product_attention(query, key, value),
        "two products": two_products,
    }


def _convolution_ways(product: Product, scratch: _Scratch) -> dict[str, Operation]:
    image, kernels = (
        scratch(role, shape, product.dtype)
        for role, shape in zip(("left", "right"), product.shapes, strict=True)
    )
    stride, padding, dilation, transposed, extra, groups = product.settings

    def convolve(x: Tensor, weight: Tensor, lead: tuple[int, ...] = ()) -> Operation:
        # In front of a length, an axis of 1 that a convolution over pictures can have.
        ones, zeros = (1,) * len(lead), (0,) * len(lead)
        settings = (ones + stride, zeros + padding, ones + dilation, transposed, zeros + extra, groups)
        return lambda: torch.convolution(x, weight, None, *settings)

    ways = {"channels first": convolve(image, kernels)}
    if image.ndim == 4:
        ways["channels last"] = convolve(_channels_last(image), _channels_last(kernels))
    elif image.ndim == 3:
        picture, weight = _channels_last(image.unsqueeze(2)), _channels_last(kernels.unsqueeze(2))
        ways["channels last"] = convolve(picture, weight, lead=(1,))
    if groups == 1 and not transposed and set(product.shapes[1][2:]) == {1}:
        rows = image.shape[0] * _size(product.output_size)
        matrices = _matrix_ways(rows, kernels.shape[1], kernels.shape[0], product.dtype, scratch)
        ways |= {f"matrices {way}": operation for way, operation in matrices.items()}
    return ways


def _channels_last(x: Tensor) -> Tensor:
    """The same memory as (B, C, H, W) with the channels last; the values do not matter."""
    batch, channels, *places = x.shape
    return x.view(batch, *places, channels).permute(0, 3, 1, 2)


def _size(shape: Shape) -> int:
    size = 1
    for length in shape:
        size *= length
    return size


_WAYS: dict[str, Callable[[Product, _Scratch], dict[str, Operation]]] = {
    "product": _product_ways,
    "attention": _attention_ways,
    "convolution": _convolution_ways,
}
