"""Which tokens masked pre-training hides, and moving tokens between the visible few and the whole sequence.

Masks are bool, True where a token is hidden. They are drawn on the CPU, from torch's generator or from one that is
given, so that a seed gives the same masks on every device.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from avex._core.errors import ConfigError


def random_mask(batch: int, length: int, ratio: float, *, generator: torch.Generator | None = None) -> Tensor:
    """Hide a share of the tokens of each clip, drawn without regard to their places.

    Args:
        batch: Clips.
        length: Tokens of a clip, at least 2.
        ratio: Share that is hidden, between 0 and 1; at least one token is hidden and one is visible.
        generator: Source of randomness; None for torch's own.

    Returns:
        (B, N) bool, with the same number of True in each row.

    Raises:
        ConfigError: `ratio` is not between 0 and 1, or there are not two tokens.

    Source:
        He et al. (2022), https://arxiv.org/abs/2111.06377, section 3.

    Example:
        >>> random_mask(2, 8, 0.75).sum(1).tolist()
        [6, 6]
    """
    _check_share("ratio", ratio)
    _check_length(length)
    hidden = min(max(round(length * ratio), 1), length - 1)
    ranks = torch.rand(batch, length, generator=generator).argsort(1).argsort(1)
    return ranks < hidden


def inverse_block_mask(
    batch: int,
    grid: tuple[int, int],
    keep: float = 0.2,
    block: int = 5,
    adjust: float = 0.07,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Keep a share of a grid of tokens in square blocks, and hide the rest.

    Blocks are laid around random centres, where they may overlap and hang over the edge; then single tokens are
    added or taken away at random until every clip keeps the same number.

    Args:
        batch: Clips.
        grid: Rows and columns.
        keep: Share that stays visible, between 0 and 1; at least one token does, and one is hidden.
        block: Side of a block.
        adjust: Added to `keep` where the number of blocks is computed, because blocks overlap.
        generator: Source of randomness; None for torch's own.

    Returns:
        (B, rows * columns) bool, row by row, with the same number of True in each clip.

    Raises:
        ConfigError: A share or size out of range.

    Source:
        Baevski et al. (2022), https://arxiv.org/abs/2212.07525 (data2vec 2.0); the sizes are those of Chen et al.
        (2024), https://arxiv.org/abs/2401.03497.

    Example:
        >>> (~inverse_block_mask(2, (64, 8))).sum(1).tolist()
        [102, 102]
    """
    _check_share("keep", keep)
    if block < 1:
        raise ConfigError(f"The side of a block must be at least 1, not {block}.")
    rows, columns = grid
    length = rows * columns
    _check_length(length)
    kept = min(max(int(length * keep), 1), length - 1)
    blocks = max(1, int(length * (keep + adjust) / block**2))
    centres = torch.randint(length, (batch, blocks), generator=generator)
    spots = torch.zeros(batch, length).scatter_(1, centres, 1.0).view(batch, 1, rows, columns)
    # A block of even side reaches one further to the end than to the start.
    before, after = (block - 1) // 2, block // 2
    padded = functional.pad(spots, (after, before, after, before))
    inside = functional.max_pool2d(padded, block, stride=1).flatten(1)
    # Tokens of blocks come first, in random order; cutting the order off leaves the wanted number.
    order = inside + torch.rand(batch, length, generator=generator)
    ranks = order.argsort(1, descending=True).argsort(1)
    return ranks >= kept


def span_mask(
    batch: int,
    length: int,
    probability: float = 0.08,
    span: int = 10,
    min_spans: int = 2,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Hide spans of frames; they may overlap and are cut off at the end.

    Args:
        batch: Clips.
        length: Frames of a clip, at least 2.
        probability: Share of frames at which a span starts, between 0 and 1.
        span: Frames of a span.
        min_spans: Fewest spans of a clip.
        generator: Source of randomness; None for torch's own.

    Returns:
        (B, T) bool. At least one frame of each clip is hidden and one is visible.

    Raises:
        ConfigError: A probability or size out of range.

    Source:
        Hsu et al. (2021), https://arxiv.org/abs/2106.07447; Baevski et al. (2020),
        https://arxiv.org/abs/2006.11477.

    Example:
        >>> span_mask(2, 100).shape
        torch.Size([2, 100])
    """
    _check_share("probability", probability)
    _check_length(length)
    if span < 1 or min_spans < 1:
        raise ConfigError(f"span={span} and min_spans={min_spans} must be at least 1.")
    starts_wanted = min(max(round(length * probability), min_spans), length)
    order = torch.rand(batch, length, generator=generator)
    starts = (order.argsort(1).argsort(1) < starts_wanted).float().unsqueeze(1)
    mask = functional.max_pool1d(functional.pad(starts, (span - 1, 0)), span, stride=1).squeeze(1) > 0
    # Spans may cover a short clip; the frame with the largest number drawn then stays visible.
    full = mask.all(1, keepdim=True)
    last = order == order.amax(1, keepdim=True)
    return mask & ~(full & last)


def visible_places(mask: Tensor) -> Tensor:
    """Places of the tokens that a mask leaves visible, in order.

    Args:
        mask: (B, N) bool with the same number of False in each row.

    Returns:
        (B, K) int64.

    Raises:
        ValueError: Rows differ in how many tokens they leave visible.

    Example:
        >>> visible_places(torch.tensor([[True, False, False]])).tolist()
        [[1, 2]]
    """
    visible = (~mask).sum(1)
    if not bool((visible == visible[:1]).all()):
        raise ValueError(f"Clips of one batch must keep the same number of tokens, not {visible.tolist()}.")
    return (~mask).nonzero()[:, 1].view(len(mask), -1)


def gather_tokens(tokens: Tensor, places: Tensor) -> Tensor:
    """Take tokens (B, N, C) at places (B, K): (B, K, C)."""
    return tokens.gather(1, places.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


def scatter_tokens(visible: Tensor, places: Tensor, fill: Tensor) -> Tensor:
    """Put tokens (B, K, C) at places (B, K) of a sequence of fillings (B, N, C)."""
    # Under autocast the two may have different element types.
    fill = fill.to(visible.dtype)
    return fill.scatter(1, places.unsqueeze(-1).expand(-1, -1, visible.shape[-1]), visible)


def _check_share(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise ConfigError(f"'{name}' is a share and must lie between 0 and 1, not {value}.")


def _check_length(length: int) -> None:
    if length < 2:
        raise ConfigError(
            f"A clip of {length} tokens cannot be split into hidden and visible ones: give longer clips."
        )
