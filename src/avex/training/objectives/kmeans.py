"""k-means in torch."""

from __future__ import annotations

import torch
from torch import Tensor

from avex._core.errors import ConfigError

_AT_ONCE = 1 << 24  # distances that are held at a time


def fit_kmeans(
    points: Tensor, clusters: int, *, iterations: int = 50, generator: torch.Generator | None = None
) -> Tensor:
    """Find centres by k-means++ and Lloyd's iterations.

    A centre that no point is closest to moves to the point that is worst served.

    Args:
        points: (N, D).
        clusters: Number of centres, at most N.
        iterations: Most iterations; fewer if no point changes its centre.
        generator: Source of randomness, on the CPU; None for torch's own.

    Returns:
        (clusters, D) float32.

    Raises:
        ConfigError: Fewer points than centres.

    Source:
        Arthur and Vassilvitskii (2007), https://dl.acm.org/doi/10.5555/1283383.1283494.

    Example:
        >>> points = torch.tensor([[0.0], [0.1], [5.0], [5.1]])
        >>> fit_kmeans(points, 2).sort(0).values.round(decimals=2).flatten().tolist()
        [0.05000000074505806, 5.050000190734863]
    """
    if len(points) < clusters:
        raise ConfigError(
            f"{len(points)} frames cannot be put into {clusters} clusters: give more audio, or ask for fewer."
        )
    points = points.float()
    centres = _spread(points, clusters, generator)
    before: Tensor | None = None
    for _ in range(iterations):
        codes, distances = nearest(points, centres)
        if before is not None and torch.equal(codes, before):
            break
        before = codes
        sums = torch.zeros_like(centres).index_add_(0, codes, points)
        counts = torch.bincount(codes, minlength=clusters)
        empty = counts == 0
        centres = sums / counts.clamp(min=1).unsqueeze(1)
        if bool(empty.any()):
            centres[empty] = points[distances.topk(int(empty.sum())).indices]
    return centres


def nearest(points: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Number of each point's closest centre, (N,) int64, and the squared distance to it, (N,).

    Example:
        >>> nearest(torch.tensor([[1.0]]), torch.tensor([[0.0], [3.0]]))
        (tensor([0]), tensor([1.]))
    """
    squares = centres.square().sum(1)
    codes, distances = [], []
    for part in points.float().split(max(1, _AT_ONCE // len(centres))):
        all_distances = torch.addmm(squares, part, centres.t(), alpha=-2.0)
        shortest = all_distances.min(1)
        codes.append(shortest.indices)
        distances.append((shortest.values + part.square().sum(1)).clamp(min=0.0))
    return torch.cat(codes), torch.cat(distances)


def _spread(points: Tensor, clusters: int, generator: torch.Generator | None) -> Tensor:
    """First centres: each is drawn with a probability that grows with the squared distance to those before."""
    chosen = [int(torch.randint(len(points), (1,), generator=generator))]
    distances = (points - points[chosen[0]]).square().sum(1)
    for _ in range(clusters - 1):
        total = distances.cpu().double().cumsum(0)  # not every device has float64
        if float(total[-1]) > 0:
            drawn = torch.rand(1, generator=generator, dtype=torch.float64) * total[-1]
            place = int(torch.searchsorted(total, drawn).clamp(max=len(points) - 1))
        else:  # all that is left are copies of centres
            place = int(torch.randint(len(points), (1,), generator=generator))
        chosen.append(place)
        distances = torch.minimum(distances, (points - points[place]).square().sum(1))
    return points[chosen].clone()
