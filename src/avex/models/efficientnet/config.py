"""Sizes of the EfficientNets."""

from __future__ import annotations

from dataclasses import dataclass

from avex._core.errors import ConfigError, did_you_mean


@dataclass(frozen=True)
class Stage:
    """A row of blocks of one kind.

    Attributes:
        expansion: How much wider the inside of a block is than its input.
        kernel_size: Side of the depthwise kernels.
        stride: Step of the first block; the others have 1.
        channels: Channels of the output.
        blocks: Number of blocks.
    """

    expansion: int
    kernel_size: int
    stride: int
    channels: int
    blocks: int


_WIDTHS = (  # expansion, kernel size, stride, channels
    (1, 3, 1, 16),
    (6, 3, 2, 24),
    (6, 5, 2, 40),
    (6, 3, 2, 80),
    (6, 5, 1, 112),
    (6, 5, 2, 192),
    (6, 3, 1, 320),
)


def _stages(*blocks: int) -> tuple[Stage, ...]:
    return tuple(Stage(*width, count) for width, count in zip(_WIDTHS, blocks, strict=True))


@dataclass(frozen=True)
class EfficientNetConfig:
    """Sizes of one EfficientNet.

    Attributes:
        stages: The rows of blocks between the first and the last convolution.
        stem_channels: Channels of the first convolution.
        embedding_dim: Channels of the last convolution.
        dropout: Share of the embedding that is dropped before the classifier in training.
        stochastic_depth: Chance of the last block to be skipped for a clip in training; the first has none.

    Source:
        Tan and Le (2019), https://arxiv.org/abs/1905.11946.

    Example:
        >>> EfficientNetConfig.named("b1").stages[-1].blocks
        2
    """

    stages: tuple[Stage, ...]
    stem_channels: int = 32
    embedding_dim: int = 1280
    dropout: float = 0.2
    stochastic_depth: float = 0.2

    @classmethod
    def named(cls, variant: str) -> EfficientNetConfig:
        """Return the sizes of a published variant.

        Raises:
            ConfigError: There is no such variant.
        """
        if variant not in VARIANTS:
            raise ConfigError(
                f"Unknown EfficientNet variant '{variant}'.{did_you_mean(variant, VARIANTS)} "
                f"Choose {' or '.join(repr(name) for name in VARIANTS)}."
            )
        return VARIANTS[variant]


VARIANTS = {
    "b0": EfficientNetConfig(_stages(1, 2, 2, 3, 3, 4, 1)),
    "b1": EfficientNetConfig(_stages(2, 3, 3, 4, 4, 5, 2)),
}
