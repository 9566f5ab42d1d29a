"""Unpooled features of a network together with what their axes mean, so that pooling is written once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from avex._core.errors import ConfigError

Aggregation = Literal["mean", "max", "cls_token", "none"]
PaddingRule = Literal["masked", "leaks", "none"]  # `ModelBase.padding_rule`


@dataclass(frozen=True)
class TokenLayout:
    """Meaning of the axes of a feature tensor.

    Attributes:
        kind: `tokens` (B, prefix + T*F, C), `map` (B, C, F, T) or `vector` (B, C).
        num_prefix_tokens: CLS or register tokens in front of the others.
        freq_bins: Frequency bands per time step (F).
        order: `time` if the bands of one time step lie next to each other, `freq` if the steps of a band do.
        frame_rate: Time steps per second, if the features have a time axis.
    """

    kind: Literal["tokens", "map", "vector"] = "tokens"
    num_prefix_tokens: int = 0
    freq_bins: int = 1
    order: Literal["time", "freq"] = "time"
    frame_rate: float | None = None


@dataclass(frozen=True)
class Features:
    """A network's features.

    Attributes:
        values: The tensor, laid out as `layout` says.
        layout: Meaning of its axes.
        padding_mask: (B, T*F) for tokens or (B, T) for maps, bool, True where all input was padding; or None.

    Example:
        >>> features = Features(torch.ones(2, 8, 4), TokenLayout("tokens"))
        >>> features.pooled().shape
        torch.Size([2, 4])
    """

    values: Tensor
    layout: TokenLayout
    padding_mask: Tensor | None = None

    def pooled(self, aggregation: Aggregation = "mean") -> Tensor:
        """Reduce to one vector per clip; padding and prefix tokens do not take part in mean and max.

        Args:
            aggregation: `mean`, `max`, `cls_token`, or `none` for the tensor as it is.

        Returns:
            (B, C), or `values` for `none`.

        Raises:
            ConfigError: (a `ValueError`) `cls_token` for features without one, or an unknown aggregation.
        """
        if aggregation == "none":
            return self.values
        if aggregation == "cls_token":
            if self.layout.kind != "tokens" or self.layout.num_prefix_tokens == 0:
                raise ConfigError(
                    f"aggregation='cls_token' needs a model with a CLS token; these features are "
                    f"{self.layout.kind} without one. Use 'mean' or 'max'."
                )
            return self.values[:, 0]
        if aggregation not in ("mean", "max"):
            raise ConfigError(f"Unknown aggregation '{aggregation}'. Choose mean, max, cls_token or none.")
        if self.layout.kind == "vector":
            return self.values
        tokens = self._tokens()
        return _masked_pool(tokens, self._mask_for(tokens), aggregation)

    def sequence(self) -> Tensor:
        """Return one row per time step: (B, T, F*C), the bands of a step side by side.

        Raises:
            ValueError: The features have no time axis.
        """
        layout = self.layout
        if layout.kind == "vector":
            return self.values.unsqueeze(1)
        if layout.kind == "map":
            return self.values.permute(0, 3, 2, 1).flatten(2)
        return _bands_last(self.values[:, layout.num_prefix_tokens :], layout).flatten(2)

    def sequence_mask(self) -> Tensor | None:
        """Padding of the steps of `sequence()`, (B, T) bool: a step is padding if all its bands are."""
        mask = self.padding_mask
        if mask is None or self.layout.kind == "vector":
            return None
        if self.layout.kind == "map" or self.layout.freq_bins == 1:
            return mask
        return _bands_last(mask, self.layout).all(-1)

    def tokens(self) -> Tensor:
        """Return one row per token, what heads for sequences read: (B, N, C).

        Tokens come without prefix tokens and ordered by time, the bands of a step one after the other. Maps give
        one row per time step, (B, T, F*C), as in `sequence()`, and vectors a single row.
        """
        layout = self.layout
        if layout.kind != "tokens":
            return self.sequence()
        tokens = self.values[:, layout.num_prefix_tokens :]
        if layout.order == "time" or layout.freq_bins == 1:
            return tokens
        return _bands_last(tokens, layout).flatten(1, 2)

    def tokens_mask(self) -> Tensor | None:
        """Padding of the rows of `tokens()`, (B, N) bool, or None."""
        mask, layout = self.padding_mask, self.layout
        if mask is None or layout.kind == "vector":
            return None
        if layout.kind == "map" or layout.order == "time" or layout.freq_bins == 1:
            return mask
        return _bands_last(mask, layout).flatten(1)

    def frame_times(self) -> Tensor:
        """Start of each time step in seconds, (T,).

        Raises:
            ValueError: The layout states no frame rate.
        """
        if self.layout.frame_rate is None:
            raise ValueError("These features have no frame rate.")
        return torch.arange(self.sequence().shape[1]) / self.layout.frame_rate

    def _tokens(self) -> Tensor:
        if self.layout.kind == "map":
            return self.values.flatten(2).transpose(1, 2)
        return self.values[:, self.layout.num_prefix_tokens :]

    def _mask_for(self, tokens: Tensor) -> Tensor | None:
        mask = self.padding_mask
        if mask is None:
            return None
        if self.layout.kind == "map":
            mask = mask.repeat(1, self.values.shape[2])
        if mask.shape != tokens.shape[:2]:
            raise ValueError(
                f"padding mask {tuple(mask.shape)} does not fit tokens {tuple(tokens.shape[:2])}."
            )
        return mask


def _bands_last(tokens: Tensor, layout: TokenLayout) -> Tensor:
    """Tokens (B, T*F, ...) as (B, T, F, ...), whichever way they are ordered."""
    count, bins = tokens.shape[1], layout.freq_bins
    if count % bins:
        raise ValueError(f"{count} tokens do not divide into {bins} frequency bands.")
    if layout.order == "freq":
        return tokens.unflatten(1, (bins, count // bins)).transpose(1, 2)
    return tokens.unflatten(1, (count // bins, bins))


def _masked_pool(tokens: Tensor, mask: Tensor | None, aggregation: str) -> Tensor:
    if mask is None:
        return tokens.mean(1) if aggregation == "mean" else tokens.amax(1)
    keep = ~mask.unsqueeze(-1)
    # A clip that is padding throughout has nothing to leave out: all its tokens count.
    keep = keep | mask.all(1)[:, None, None]
    if aggregation == "mean":
        return tokens.masked_fill(~keep, 0.0).sum(1) / keep.sum(1)
    return tokens.masked_fill(~keep, float("-inf")).amax(1)
