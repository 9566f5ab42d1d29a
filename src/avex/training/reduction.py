"""Values of all processes together."""

from __future__ import annotations

from typing import Any

from torch import Tensor, distributed


def is_distributed() -> bool:
    """Whether several processes train together."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def mean_over_processes(values: Tensor) -> Tensor:
    """Mean of a tensor over all processes; itself if there is one."""
    if not is_distributed():
        return values
    total = values.detach().clone()
    distributed.all_reduce(total)
    return total / distributed.get_world_size()


def gather_objects(value: Any) -> list[Any]:
    """The values of all processes, in order of their ranks."""
    if not is_distributed():
        return [value]
    values: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return values
