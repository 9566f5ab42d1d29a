"""Networks as one would write them without thinking of speed, to compare with."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from avex.models.base_model import ModelBase
from avex.nn import convolution


class PlainBlocks(nn.Module):
    """Transformer layers in plain PyTorch: fused attention without any bias, norms, GELU, residuals."""

    def __init__(self, dim: int, hidden: int, heads: int, layers: int) -> None:
        super().__init__()
        self.heads = heads
        self.layers = nn.ModuleList(
            nn.ModuleDict(
                {
                    "qkv": nn.Linear(dim, 3 * dim),
                    "out": nn.Linear(dim, dim),
                    "norm1": nn.LayerNorm(dim),
                    "fc1": nn.Linear(dim, hidden),
                    "fc2": nn.Linear(hidden, dim),
                    "norm2": nn.LayerNorm(dim),
                }
            )
            for _ in range(layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            q, k, v = layer["qkv"](x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
            mixed = nn.functional.scaled_dot_product_attention(q, k, v)
            x = layer["norm1"](x + layer["out"](mixed.transpose(1, 2).flatten(2)))
            x = layer["norm2"](x + layer["fc2"](nn.functional.gelu(layer["fc1"](x))))
        return x


def eager_backbone(model: ModelBase, image: Tensor) -> Callable[[], object]:
    """The same convolutional network module by module: convolution, batch norm, activation.

    It sees what networks of this kind usually see: an image of three channels, channels first.
    """
    # Its parts in order; the network itself would put the channels last.
    eager = nn.Sequential(*copy.deepcopy(model.backbone).children())
    for module in eager.modules():
        if isinstance(module, (nn.SiLU, nn.ReLU)):
            module.inplace = True
    image = image.expand(-1, 3, -1, -1).contiguous()

    def run() -> None:
        with torch.inference_mode(), _unfolded():
            eager(image)

    return run


@contextlib.contextmanager
def _unfolded() -> Iterator[None]:
    """Let every convolution take the plain path."""
    original = convolution.fold
    convolution.fold = lambda conv, norm, x: None
    try:
        yield
    finally:
        convolution.fold = original
