"""When a network must take its plain path: one torch operation after the other, each module really called.

Faster paths give the same values, but nobody could look inside: no gradients, compilers, exporters or hooks.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad


def is_hooked(module: nn.Module) -> bool:
    """Tell whether someone listens to a module's calls, so that it must really be called."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )


def is_followed(tensors: tuple[Tensor | None, ...]) -> bool:
    """Tell whether gradients, a compiler, an exporter or a transformation follow what is done to tensors.

    Example:
        >>> with torch.no_grad():
        ...     is_followed((torch.zeros(1, requires_grad=True),))
        False
    """
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors):
        return True
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        # No public names for these two: `torch.func`, and a level of forward-mode differentiation.
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
    )


def is_intercepted() -> bool:
    """Tell whether a dispatch mode counts or rewrites operators: such modes know those with public names."""
    return bool(torch._C._len_torch_dispatch_stack())
