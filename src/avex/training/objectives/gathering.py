"""Tensors of all processes, with gradients."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor

from avex._core.errors import ConfigError


def world() -> tuple[int, int]:
    """Number of this process and number of processes; (0, 1) where training is not distributed."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def gather_with_gradient(x: Tensor) -> Tensor:
    """Rows of all processes, those of the first process first.

    Gradients flow back to the process that a row came from, summed over all processes that used it. With the mean
    over processes that data parallelism takes of every gradient, a loss that is a mean over all rows gets the
    gradients that it has in one process.

    Args:
        x: (B, ...) of the same shape in every process.

    Returns:
        (processes * B, ...).

    Raises:
        ConfigError: Processes have batches of different sizes.

    Example:
        >>> gather_with_gradient(torch.ones(2, 3)).shape
        torch.Size([2, 3])
    """
    if world()[1] == 1:
        return x
    sizes = [torch.zeros(1, dtype=torch.long, device=x.device) for _ in range(world()[1])]
    dist.all_gather(sizes, torch.tensor([len(x)], device=x.device))
    counts = [int(size) for size in sizes]
    if len(set(counts)) > 1:
        raise ConfigError(
            f"The processes have batches of {', '.join(map(str, counts))} clips; a contrastive loss needs "
            "equal ones. Drop the last, incomplete batch."
        )
    return cast(Tensor, _Gather.apply(x))


def sum_over_processes(x: Tensor) -> Tensor:
    """The sum of a tensor over all processes, without gradients."""
    if world()[1] > 1:
        x = x.detach().clone()
        dist.all_reduce(x)
    return x


def copy_of_first(x: Tensor) -> Tensor:
    """The tensor of the first process, in all of them."""
    if world()[1] > 1:
        x = x.detach().clone()
        dist.broadcast(x, src=0)
    return x


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x) for _ in range(world()[1])]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        rank, size = world()
        gradient = gradients[0].contiguous()
        dist.all_reduce(gradient)
        return gradient.chunk(size)[rank]
