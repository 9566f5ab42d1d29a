"""Which matrix products, convolutions and attentions a forward pass consists of."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

Kind = Literal["product", "attention", "convolution"]
Shape = tuple[int, ...]

_FEWEST_COLUMNS = 8


@dataclass(frozen=True)
class Product:
    """One operation that multiplies matrices, without its bias, mask and what comes after it.

    Attributes:
        kind: `product`: (batch, m, k) by (batch, k, n). `attention`: queries (B, H, N, D) on keys (B, H, M, D)
            and values (B, H, M, E). `convolution`: an input (B, C, ...) and kernels (C', C / groups, ...).
        shapes: Shapes of those operands.
        dtype: Element type of the operands.
        settings: Of a convolution: stride, padding, dilation, whether transposed, output padding, groups.

    Example:
        >>> Product("product", ((1, 2, 3), (1, 3, 4)), torch.float32).flops
        48
    """

    kind: Kind
    shapes: tuple[Shape, ...]
    dtype: torch.dtype
    settings: tuple[Any, ...] = ()

    @property
    def flops(self) -> int:
        """Floating-point operations; a multiplication and an addition are two."""
        if self.kind == "product":
            (batch, rows, inner), (_, _, columns) = self.shapes
            return 2 * batch * rows * inner * columns
        if self.kind == "attention":
            (batch, heads, queries, size), (_, _, keys, _), (_, _, _, out) = self.shapes
            return 2 * batch * heads * queries * keys * (size + out)
        image, kernels = self.shapes
        transposed = self.settings[3]
        places = image[2:] if transposed else self.output_size
        return 2 * image[0] * math.prod(places) * math.prod(kernels)

    @property
    def output_size(self) -> Shape:
        """Height and width (or length) that a convolution gives."""
        stride, padding, dilation, transposed, extra, _ = self.settings
        image, kernels = self.shapes
        axes = zip(image[2:], kernels[2:], stride, padding, dilation, extra, strict=True)
        if transposed:
            return tuple((n - 1) * s - 2 * p + d * (k - 1) + e + 1 for n, k, s, p, d, e in axes)
        return tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d, _ in axes)

    @property
    def label(self) -> str:
        """The operation in a few words, for tables."""
        sizes = [
            " x ".join(map(str, shape[shape[0] == 1 and self.kind == "product" :])) for shape in self.shapes
        ]
        if self.kind == "attention":
            return f"attention {sizes[0]}, {self.shapes[1][2]} keys"
        text = f"{self.kind} {sizes[0]} by {sizes[1]}"
        if self.kind == "convolution" and self.settings[5] != 1:
            text += f", {self.settings[5]} groups"
        return text


@torch.no_grad()
def record_products(run: Callable[[], object], skip: Sequence[nn.Module] = ()) -> list[Product]:
    """Run a forward pass and list its products in their order.

    Whatever a network is written with ends in a few of torch's operators (`mm`, `addmm`, `bmm`, `baddbmm`,
    `linear`, `convolution`, the fused attentions); those are noted with the shapes and element types that really
    occur. Recurrent layers are not taken apart: their products are missing.

    Args:
        run: Does the pass; in inference mode, under `torch.no_grad` or as it likes.
        skip: Modules whose products are not the network's, such as a front end.

    Example:
        >>> layer = nn.Linear(3, 4)
        >>> [product.shapes for product in record_products(lambda: layer(torch.zeros(2, 3)))]
        [((1, 2, 3), (1, 3, 4))]
    """
    recorder = _Recorder()
    fast_path = torch.backends.mha.get_fastpath_enabled()
    # torch's own encoder layer is one operator otherwise, with its products out of sight.
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with _paused_in(skip, recorder), recorder:
            run()
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
    return recorder.found


def network_products(products: Iterable[Product]) -> list[Product]:
    """Those of recorded products that belong to the bound of a network.

    Two kinds do not: products in float64, which are statistics of a norm, and those that give a row of a few
    numbers, which weigh or gate something else.
    """
    return [
        product
        for product in products
        if product.dtype != torch.float64
        and (product.kind != "product" or product.shapes[1][2] >= _FEWEST_COLUMNS)
    ]


@contextmanager
def _paused_in(modules: Sequence[nn.Module], recorder: _Recorder) -> Iterator[None]:
    def pause(*_: object) -> None:
        recorder.paused += 1

    def resume(*_: object) -> None:
        recorder.paused -= 1

    handles = [module.register_forward_pre_hook(pause) for module in modules]
    handles += [module.register_forward_hook(resume) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Recorder(TorchDispatchMode):
    """Notes every product that passes torch's dispatcher."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Product] = []
        self.paused = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        read = _READERS.get(func.overloadpacket._qualified_op_name)
        if read is not None:
            if not self.paused:
                self.found.append(read(*args, **kwargs))
            return func(*args, **kwargs)
        # In inference mode composite operators arrive whole (`matmul`, `conv2d`, `einsum`, ...).
        if func.has_kernel_for_dispatch_key(torch._C.DispatchKey.CompositeImplicitAutograd):
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        return func(*args, **kwargs)


def _product(left: Tensor, right: Tensor) -> Product:
    """(..., m, k) by (..., k, n), of 2 or 3 axes."""
    left, right = (t if t.ndim == 3 else t.unsqueeze(0) for t in (left, right))
    return Product("product", (tuple(left.shape), tuple(right.shape)), left.dtype)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Product:
    rows = x.numel() // x.shape[-1] if x.numel() else 0
    return Product("product", ((1, rows, x.shape[-1]), (1, x.shape[-1], weight.shape[0])), x.dtype)


def _attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> Product:
    shapes = tuple(tuple(t.shape) for t in (query, key, value))
    return Product("attention", tuple((1,) * (4 - len(s)) + s for s in shapes), query.dtype)


def _convolution(x: Tensor, weight: Tensor, bias: Tensor | None, *settings: Any) -> Product:
    stride, padding, dilation, transposed, extra, groups = settings
    axes = weight.ndim - 2
    tuples = [tuple(v) * (axes if len(v) == 1 else 1) for v in (stride, padding, dilation, extra)]
    image = tuple(x.shape) if x.ndim == weight.ndim else (1, *x.shape)
    return Product(
        "convolution", (image, tuple(weight.shape)), x.dtype, (*tuples[:3], transposed, tuples[3], groups)
    )


_READERS: dict[str, Callable[..., Product]] = {
    **dict.fromkeys(("aten::mm", "aten::bmm"), lambda left, right, **_: _product(left, right)),
    **dict.fromkeys(
        ("aten::addmm", "aten::addmm_", "aten::baddbmm", "aten::baddbmm_"),
        lambda _, left, right, **__: _product(left, right),
    ),
    "aten::linear": _linear,
    "aten::convolution": _convolution,
    "aten::scaled_dot_product_attention": _attention,
    **dict.fromkeys(
        (
            "aten::_scaled_dot_product_flash_attention",
            "aten::_scaled_dot_product_flash_attention_for_cpu",
            "aten::_scaled_dot_product_efficient_attention",
            "aten::_scaled_dot_product_cudnn_attention",
            "aten::_scaled_dot_product_fused_attention_overrideable",
        ),
        _attention,
    ),
}
