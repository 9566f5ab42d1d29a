"""A teacher whose weights follow those of a network as an exponential moving average."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from avex._core.errors import ConfigError


class EmaTeacher(nn.Module):
    """A copy of a network that only `update` changes.

    It gets no gradients, stays in eval mode whatever its owner is set to, and averages in float32, because steps of
    1e-5 of a weight are lost in half precision. Its weights are part of the state dict, so that training goes on
    where it stopped.

    Args:
        network: What to follow; it is copied.

    Source:
        Tarvainen and Valpola (2017), https://arxiv.org/abs/1703.01780.

    Example:
        >>> student = nn.Linear(2, 2)
        >>> teacher = EmaTeacher(student)
        >>> teacher.update(student, decay=0.999)
        >>> any(p.requires_grad for p in teacher.parameters())
        False
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(network)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> EmaTeacher:
        """Stay in eval mode: targets do not depend on dropout."""
        return super().train(False)

    @torch.no_grad()
    def update(self, network: nn.Module, decay: float) -> None:
        """Move every weight: `decay` of the old value and `1 - decay` of the network's; buffers are copied.

        Args:
            network: The followed network, of the same architecture.
            decay: Between 0 (copy) and 1 (stay).

        Raises:
            ConfigError: `decay` is out of range.
        """
        if not 0 <= decay <= 1:
            raise ConfigError(f"The decay of a moving average must lie in [0, 1], not {decay}.")
        for own, other in zip(self.network.parameters(), network.parameters(), strict=True):
            own.lerp_(other.detach().to(own), 1.0 - decay)
        for kept, seen in zip(self.network.buffers(), network.buffers(), strict=True):
            if kept.shape == seen.shape:  # caches of positions grow with what was seen
                kept.copy_(seen)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> EmaTeacher:
        super()._apply(fn, recurse)
        for parameter in self.network.parameters():
            if parameter.is_floating_point() and parameter.dtype != torch.float32:
                parameter.data = parameter.detach().float()
        return self

    def forward(self, *args: object, **kwargs: object) -> object:
        """Run the teacher without gradients."""
        with torch.no_grad():
            return self.network(*args, **kwargs)


def annealed_decay(step: int, start: float, end: float, steps: int) -> float:
    """Decay that rises linearly from `start` at step 0 to `end` at `steps`, and stays there.

    Example:
        >>> round(annealed_decay(50, 0.9, 1.0, 100), 3)
        0.95
    """
    if step >= steps:
        return end
    return start + (end - start) * step / steps
