"""From the embeddings of one or more layers to the one tensor that a head reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from avex._core.errors import ConfigError
from avex.configs.probe import InputProcessing, ProbeAggregation
from avex.models.features import Features

HeadInput = Literal["vector", "sequence"]


@dataclass(frozen=True)
class LayerMix:
    """Which layers a probe reads, and how they become its head's input.

    Each layer is reduced to vectors (B, D) or kept as a sequence (B, N, D). Several are put side by side, or, with
    `aggregation="none"`, brought to one width by linear maps where they differ, to the shortest sequence by linear
    interpolation, and added up with softmax weights.

    A sequence has a row for each token without CLS, and for maps (B, C, F, T) a row of F * C numbers for each time
    step, band by band as in published probes. No length is ever part of it, except with `flatten`.

    Attributes:
        names: The layers.
        dims: Width of each.
        kind: What the head reads: `vector` (B, D) or `sequence` (B, N, D).
        aggregation: Pooling over time; `none` and `concat` take the mean where the head reads vectors.
        processing: `flatten` puts all numbers of a layer in one row; `none` wants vectors to come as vectors.

    Raises:
        ConfigError: No layers, or widths that are not positive.

    Example:
        >>> mix = LayerMix(("layer_6", "layer_12"), (768, 768), aggregation="none")
        >>> mix.dim, mix.is_weighted
        (768, True)
        >>> LayerMix(("layer_6", "layer_12"), (768, 768)).dim
        1536
    """

    names: tuple[str, ...]
    dims: tuple[int, ...]
    kind: HeadInput = "vector"
    aggregation: ProbeAggregation = "mean"
    processing: InputProcessing = "pooled"

    def __post_init__(self) -> None:
        if not self.names or len(self.names) != len(self.dims) or min(self.dims) < 1:
            raise ConfigError(
                f"A probe needs at least one layer, and a positive width for each, not layers {list(self.names)} "
                f"with widths {list(self.dims)}."
            )

    @property
    def is_weighted(self) -> bool:
        """Whether layers are added up with learned weights."""
        return len(self.names) > 1 and self.aggregation == "none"

    @property
    def dim(self) -> int:
        """Width of what the head reads."""
        return self._common_dim() if self.is_weighted else sum(self.dims)

    def _common_dim(self) -> int:
        # The rule of the published probes: what most layers have, else the widest.
        dim, count = Counter(self.dims).most_common(1)[0]
        return dim if 2 * count > len(self.dims) else max(self.dims)

    def make_projectors(self) -> nn.ModuleList | None:
        """A linear map for each layer of another width than `dim`, or None if there is no such layer."""
        if not self.is_weighted or set(self.dims) == {self.dim}:
            return None
        return nn.ModuleList(
            nn.Identity() if dim == self.dim else nn.Linear(dim, self.dim) for dim in self.dims
        )

    def mix(
        self,
        layers: Sequence[Features],
        weights: Tensor | None = None,
        projectors: nn.ModuleList | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Make the head's input.

        Args:
            layers: Features of each layer.
            weights: (L,) logits of the layers' weights, if they are weighted.
            projectors: What `make_projectors` returned.

        Returns:
            (B, dim) or (B, N, dim), and the padding mask (B, N) of the latter, or None.

        Raises:
            ValueError: A layer has another width or another form than the probe was built for.
        """
        read = [
            self._read(name, dim, features)
            for name, dim, features in zip(self.names, self.dims, layers, strict=True)
        ]
        if len(read) == 1:
            return read[0]
        values, masks = [value for value, _ in read], [mask for _, mask in read]
        if self.is_weighted and projectors is not None:
            values = [project(value) for project, value in zip(projectors, values, strict=True)]
        mask: Tensor | None = None
        if self.kind == "sequence":
            values, mask = _align(values, masks)
        if not self.is_weighted:
            return torch.cat(values, dim=-1), mask
        assert weights is not None
        shares = weights.softmax(0)
        total = shares[0] * values[0]
        for share, value in zip(shares[1:], values[1:], strict=True):
            total = total + share * value
        return total, mask

    def _read(self, name: str, dim: int, features: Features) -> tuple[Tensor, Tensor | None]:
        mask = None
        if self.kind == "sequence":
            values, mask = features.tokens(), features.tokens_mask()
        else:
            values = self._vectors(name, features)
        if values.shape[-1] != dim:
            hint = (
                " Flattened clips must all have the length that the probe was built for."
                if self.processing == "flatten"
                else ""
            )
            raise ValueError(
                f"Layer '{name}' gives vectors of {values.shape[-1]} numbers; the probe was built for {dim}.{hint}"
            )
        return values, mask

    def _vectors(self, name: str, features: Features) -> Tensor:
        if self.processing == "flatten":
            return features.values.flatten(1)
        if self.processing == "none" and self.aggregation == "none" and features.values.ndim != 2:
            raise ValueError(
                f"Layer '{name}' gives {tuple(features.values.shape)}, but input_processing='none' takes vectors "
                "(B, D) as they are. Use input_processing='pooled'."
            )
        if features.layout.kind == "vector":
            return features.values
        if self.aggregation == "none" or self.aggregation == "concat":
            return features.pooled("mean")
        return features.pooled(self.aggregation)


def _align(values: list[Tensor], masks: list[Tensor | None]) -> tuple[list[Tensor], Tensor | None]:
    """Bring sequences to the length of the shortest; a step is padding if it is in any of them."""
    steps = min(value.shape[1] for value in values)
    pairs = [_resample(value, mask, steps) for value, mask in zip(values, masks, strict=True)]
    padding: Tensor | None = None
    for _, mask in pairs:
        if mask is not None:
            padding = mask if padding is None else padding | mask
    return [value for value, _ in pairs], padding


def _resample(value: Tensor, mask: Tensor | None, steps: int) -> tuple[Tensor, Tensor | None]:
    """Another number of steps; padding does not bleed into its neighbours."""
    if value.shape[1] == steps:
        return value, mask
    if mask is None:
        return _interpolate(value, steps), None
    keep = (~mask).to(value.dtype).unsqueeze(-1)
    share = _interpolate(keep, steps)
    mixed = _interpolate(value.masked_fill(mask.unsqueeze(-1), 0.0), steps)
    return mixed / share.clamp_min(1e-6), share.squeeze(-1) == 0


def _interpolate(value: Tensor, steps: int) -> Tensor:
    return functional.interpolate(value.transpose(1, 2), steps, mode="linear").transpose(1, 2)
