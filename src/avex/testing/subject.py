"""What the rules of models work with: a model, waveforms for it, and how far results may differ."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from avex.configs import ModelCard
from avex.models.base_model import ModelBase

# Same arithmetic on the same numbers: what remains is the order in which a library sums.
SAME = 1e-5


@dataclass(frozen=True)
class Subject:
    """A model under test.

    Attributes:
        model: The model.
        samples: Length of the clips to test with.
        rtol: How far a clip's embedding may change with its neighbours, relative to its root mean square.
        card: The card it came from, if it did.
    """

    model: ModelBase
    samples: int
    rtol: float
    card: ModelCard | None = None

    def clips(self, count: int, samples: int | None = None, seed: int = 0) -> Tensor:
        """(count, samples) noise with a tone in each, of different pitch and level; the same on every call."""
        length = samples or self.samples
        generator = torch.Generator().manual_seed(seed)
        noise = 0.05 * torch.randn(count, length, generator=generator)
        pitch = 200.0 * (1 + torch.arange(count) + 0.5 * seed).unsqueeze(1)
        time = torch.arange(length) / self.model.sample_rate
        level = 0.4 / (1 + torch.arange(count).unsqueeze(1))
        return (noise + level * torch.sin(2 * math.pi * pitch * time)).to(self.model.device)

    def embed(self, x: Tensor, **options: Any) -> Tensor:
        """The model's embedding, without gradients."""
        with torch.no_grad():
            return self.model.embed(x, **options)

    def output(self, x: Tensor) -> Tensor:
        """What `forward` returns, without gradients."""
        with torch.no_grad():
            return self.model(x)


def difference(actual: Tensor, expected: Tensor) -> float:
    """Largest difference of a row's values, relative to the row's root mean square; infinite for other shapes.

    Example:
        >>> difference(torch.tensor([[1.0, 1.5]]), torch.tensor([[1.0, 1.0]]))
        0.5
    """
    if actual.shape != expected.shape or not actual.isfinite().all() or not expected.isfinite().all():
        return math.inf
    if actual.numel() == 0:
        return 0.0
    actual, expected = actual.double().flatten(1), expected.double().flatten(1)
    scale = expected.square().mean(1).sqrt()
    # A row of zeros has no scale of its own.
    return float(((actual - expected).abs().amax(1) / torch.where(scale > 0, scale, 1.0)).max())


def flags(model: nn.Module) -> dict[str, bool]:
    """Whether each module is in training mode."""
    return {name: module.training for name, module in model.named_modules()}


def snapshot(model: nn.Module) -> list[Tensor]:
    """Copies of all parameters and buffers."""
    return [tensor.detach().clone() for tensor in itertools.chain(model.parameters(), model.buffers())]


@contextlib.contextmanager
def preserved(model: nn.Module) -> Iterator[None]:
    """Bring parameters, buffers, gradients, modes and the random state back after the block."""
    tensors = list(itertools.chain(model.parameters(), model.buffers()))
    saved, modes = snapshot(model), flags(model)
    gradients = [parameter.grad for parameter in model.parameters()]
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            with torch.no_grad():
                for tensor, value in zip(tensors, saved, strict=True):
                    tensor.copy_(value)
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter.grad = gradient
            for name, module in model.named_modules():
                module.training = modes.get(name, module.training)
