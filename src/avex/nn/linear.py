"""Linear maps of transformers, on a CPU through oneDNN, with a GELU in the same pass.

On x86 processors torch computes `nn.Linear` in float32 with MKL, which keeps its AVX-512 kernels for processors of
its own maker; oneDNN uses them on all. It also adds the bias and applies the GELU while a result is still in
registers. Together that is 10 to 25 % of a transformer's time (`bench/bench_encoders.py`).
"""

from __future__ import annotations

import platform

import torch
from torch import Tensor, nn
from torch.nn import functional

from avex.nn.autocast import compute_dtype
from avex.nn.plain_path import is_followed, is_hooked, is_intercepted

_PLAIN_TENSORS = (Tensor, nn.Parameter)
# Multiplications from which on the preparation of oneDNN, some 10 microseconds, does not matter.
_FEWEST_PRODUCTS = 1 << 23


class Linear(nn.Linear):
    """`nn.Linear` whose weights start Xavier-uniform and whose bias starts at zero, as usual in transformers.

    Example:
        >>> Linear(3, 4)(torch.zeros(2, 3)).shape
        torch.Size([2, 4])
    """

    def reset_parameters(self) -> None:
        """Draw new weights, once: large networks are drawn only to be overwritten by a checkpoint."""
        nn.init.xavier_uniform_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        return linear(input, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute `torch.nn.functional.linear`, by the fastest way there is.

    Args:
        x: (..., in).
        weight: (out, in).
        bias: (out,), or None.

    Returns:
        (..., out).
    """
    if (ready := _for_onednn(x, weight, bias)) is None:
        return functional.linear(x, weight, bias)
    return _onednn(ready, weight, bias, "none", "")


def linear_gelu(layer: nn.Module, x: Tensor) -> Tensor:
    """Compute `gelu(layer(x))` with the exact (erf) GELU, in one pass where that is possible.

    A layer that is hooked, or is no `Linear` (any more), is called.

    Example:
        >>> linear_gelu(Linear(3, 4), torch.zeros(2, 3)).shape
        torch.Size([2, 4])
    """
    if type(layer) is Linear and not is_hooked(layer):
        ready = _for_onednn(x, layer.weight, layer.bias)
        if ready is not None:
            return _onednn(ready, layer.weight, layer.bias, "gelu", "none")
    return functional.gelu(layer(x))


def _for_onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor | None:
    """`x` as oneDNN wants it, or None where torch should do it."""
    if not _ONEDNN or x.device.type != "cpu" or x.numel() * weight.shape[0] < _FEWEST_PRODUCTS:
        return None
    dtype = compute_dtype(x.device, x.dtype)
    tensors = (x, weight, bias)
    if any(t is not None and (t.dtype != dtype or type(t) not in _PLAIN_TENSORS) for t in tensors[1:]):
        return None
    if dtype not in _ONEDNN or type(x) not in _PLAIN_TENSORS or is_followed(tensors) or is_intercepted():
        return None
    return x.to(dtype)


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str, algorithm: str) -> Tensor:
    # The operator that torch's own compiler puts in the place of a linear map.
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, activation, [], algorithm)


def _onednn_dtypes() -> frozenset[torch.dtype]:
    """Element types for which oneDNN is the faster way here: none outside x86 processors with AVX-512."""
    if platform.machine().lower() not in ("x86_64", "amd64") or not torch.backends.mkldnn.is_available():
        return frozenset()
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return frozenset()
    capability = torch.backends.cpu.get_cpu_capability()
    return frozenset({torch.float32, torch.bfloat16} if capability.startswith("AVX512") else ())


_ONEDNN = _onednn_dtypes()
