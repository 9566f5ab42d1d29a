"""Gradient checkpointing that leaves the statistics of batch norm as they would be without it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def run_checkpointed(function: Callable[[Tensor], Tensor], x: Tensor, module: nn.Module) -> Tensor:
    """Run a function without keeping its inner tensors; the backward pass computes them again.

    Results and gradients are those of `function(x)`, and so are the running statistics of batch norms, which
    count the forward pass only. Without gradients it is just a call.

    Args:
        function: What to run.
        x: Its input.
        module: The module whose batch norms it runs.
    """
    if not torch.is_grad_enabled():
        return function(x)

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return contextlib.nullcontext(), frozen_statistics(module)

    return checkpoint(function, x, use_reentrant=False, context_fn=contexts)


@contextlib.contextmanager
def frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Let batch norms run in training mode without updating their running statistics."""
    norms = [
        m for m in module.modules() if isinstance(m, _BatchNorm) and m.training and m.track_running_stats
    ]
    momenta = [norm.momentum for norm in norms]
    counts = [
        None if norm.num_batches_tracked is None else norm.num_batches_tracked.clone() for norm in norms
    ]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum, count in zip(norms, momenta, counts, strict=True):
            norm.momentum = momentum
            if norm.num_batches_tracked is not None and count is not None:
                norm.num_batches_tracked.copy_(count)
