"""Vector quantisation with codes that follow the vectors."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from avex.training.objectives.gathering import copy_of_first, sum_over_processes
from avex.training.objectives.kmeans import fit_kmeans

# A code is given away when its use falls below this share of even use: after 230 steps without any.
_UNUSED = 0.1


class Quantiser(nn.Module):
    """Replaces vectors by the nearest of a set of codes, which follow them as a moving average.

    Vectors and codes have length 1. Codes start from k-means of the first batch; one that nobody used for long
    moves to a vector of the batch. Gradients pass as if nothing had been replaced.

    Args:
        codes: Number of codes.
        dim: Length of a vector.
        decay: Of the moving average.

    Source:
        van den Oord et al. (2017), https://arxiv.org/abs/1711.00937, appendix A.1.

    Example:
        >>> quantiser = Quantiser(4, 2)
        >>> quantised, labels, distance = quantiser(torch.randn(1, 16, 2))
        >>> labels.shape
        torch.Size([1, 16])
    """

    vectors: Tensor
    counts: Tensor
    started: Tensor

    def __init__(self, codes: int, dim: int, decay: float = 0.99) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("vectors", functional.normalize(torch.randn(codes, dim), dim=-1))
        self.register_buffer("counts", torch.ones(codes))
        self.register_buffer("started", torch.tensor(False))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Quantise.

        Args:
            x: (..., D).

        Returns:
            The codes (..., D) of length 1, their numbers (...), and the mean squared distance that pulls `x`
            towards them.
        """
        unit = functional.normalize(x.float(), dim=-1)
        flat = unit.detach().flatten(0, -2)
        if self.training and not bool(self.started):
            self._start(flat)
        labels = functional.linear(flat, self.vectors).argmax(-1)
        codes = functional.embedding(labels, self.vectors).view_as(unit)
        if self.training:
            self._follow(flat, labels)
        distance = (unit - codes).square().sum(-1).mean()
        return unit + (codes - unit).detach(), labels.view(unit.shape[:-1]), distance

    def _start(self, flat: Tensor) -> None:
        count = len(self.vectors)
        # A batch may have fewer vectors than there are codes; the rest stays random.
        found = functional.normalize(fit_kmeans(flat, min(count, len(flat)), iterations=10), dim=-1)
        self.vectors[: len(found)] = found
        self.vectors.copy_(copy_of_first(self.vectors))
        self.started.fill_(True)

    @torch.no_grad()
    def _follow(self, flat: Tensor, labels: Tensor) -> None:
        used = sum_over_processes(torch.bincount(labels, minlength=len(self.vectors)).to(flat))
        sums = sum_over_processes(torch.zeros_like(self.vectors).index_add_(0, labels, flat))
        # In units of even use of all codes.
        self.counts.lerp_(used * len(used) / used.sum(), 1.0 - self.decay)
        means = functional.normalize(sums, dim=-1)
        moved = functional.normalize(self.vectors.lerp(means, 1.0 - self.decay), dim=-1)
        self.vectors.copy_(torch.where(used.unsqueeze(1) > 0, moved, self.vectors))
        unused = self.counts < _UNUSED
        if bool(unused.any()):
            others = torch.randint(len(flat), (int(unused.sum()),))
            self.vectors[unused] = copy_of_first(flat[others.to(flat.device)])
            self.counts[unused] = 1.0
