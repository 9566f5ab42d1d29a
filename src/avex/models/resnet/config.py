"""Sizes of the ResNets."""

from __future__ import annotations

from dataclasses import dataclass

from avex._core.errors import ConfigError, did_you_mean


@dataclass(frozen=True)
class ResNetConfig:
    """Sizes of one ResNet.

    Attributes:
        blocks: Number of blocks in each of the four layers.
        bottleneck: Blocks of 1x1, 3x3 and 1x1 convolutions, four times as wide outside; else of two 3x3.
        width: Channels of the first convolution and inside the first layer; each layer doubles them.

    Source:
        He et al. (2016), https://arxiv.org/abs/1512.03385; the bottleneck's stride is in its 3x3 convolution.

    Example:
        >>> ResNetConfig.named("resnet50").embedding_dim
        2048
    """

    blocks: tuple[int, ...]
    bottleneck: bool
    width: int = 64

    @property
    def expansion(self) -> int:
        """Channels of a block's output per channel inside it."""
        return 4 if self.bottleneck else 1

    @property
    def embedding_dim(self) -> int:
        """Channels of the last layer."""
        return self.width * 2 ** (len(self.blocks) - 1) * self.expansion

    @classmethod
    def named(cls, variant: str) -> ResNetConfig:
        """Return the sizes of a published variant.

        Raises:
            ConfigError: There is no such variant.
        """
        if variant not in VARIANTS:
            raise ConfigError(
                f"Unknown ResNet variant '{variant}'.{did_you_mean(variant, VARIANTS)} "
                f"Choose {', '.join(VARIANTS)}."
            )
        return VARIANTS[variant]


VARIANTS = {
    "resnet18": ResNetConfig((2, 2, 2, 2), bottleneck=False),
    "resnet34": ResNetConfig((3, 4, 6, 3), bottleneck=False),
    "resnet50": ResNetConfig((3, 4, 6, 3), bottleneck=True),
    "resnet101": ResNetConfig((3, 4, 23, 3), bottleneck=True),
    "resnet152": ResNetConfig((3, 8, 36, 3), bottleneck=True),
}
