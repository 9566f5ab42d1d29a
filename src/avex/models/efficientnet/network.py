"""The EfficientNet network, with the module names of the published weights."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avex.models.efficientnet.config import EfficientNetConfig, Stage
from avex.nn.checkpointing import run_checkpointed
from avex.nn.convolution import (
    ConvNormAct,
    FoldableConv2d,
    Folded,
    PictureConv,
    merge_equal_channels,
)
from avex.nn.plain_path import is_hooked

# The wide inside of a block is computed for as many clips at once as nearly keep it within a processor's cache,
# which also bounds the memory of large batches. In numbers of float32 values (16 MB).
_CACHED_VALUES = 4_000_000


class SqueezeExcitation(nn.Module):
    """Scale every channel by a number between 0 and 1 that depends on the mean of all channels.

    Args:
        channels: Channels of the input.
        squeezed: Length of the vector in between.

    Source:
        Hu et al. (2018), https://arxiv.org/abs/1709.01507.
    """

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.fc1 = FoldableConv2d(channels, squeezed, 1)
        self.fc2 = FoldableConv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Scale (B, C, H, W)."""
        scale = self.fc2(F.silu(self.fc1(x.mean((2, 3), keepdim=True))))
        return x * torch.sigmoid(scale)

    def scale(self, x: Tensor) -> Tensor:
        """Return the factors (B, C) for (B, C, H, W)."""
        squeezed = F.linear(x.mean((2, 3)), self.fc1.weight.flatten(1), self.fc1.bias)
        return torch.sigmoid(F.linear(F.silu(squeezed), self.fc2.weight.flatten(1), self.fc2.bias))


class MBConv(nn.Module):
    """Inverted bottleneck: widen, filter each channel, weigh the channels, narrow, add the input.

    Args:
        in_channels: Channels of the input.
        stage: Sizes of the block.
        stride: Step of the depthwise convolution.
        drop_chance: Chance that a clip skips the block in training.

    Example:
        >>> MBConv(8, Stage(6, 3, 1, 8, 1), stride=1).eval()(torch.zeros(2, 8, 4, 4)).shape
        torch.Size([2, 8, 4, 4])
    """

    def __init__(self, in_channels: int, stage: Stage, stride: int, drop_chance: float = 0.0) -> None:
        super().__init__()
        wide = in_channels * stage.expansion
        parts: list[nn.Module] = []
        if stage.expansion != 1:
            parts.append(ConvNormAct(in_channels, wide, 1, activation=nn.SiLU()))
        parts.append(ConvNormAct(wide, wide, stage.kernel_size, stride, groups=wide, activation=nn.SiLU()))
        parts.append(SqueezeExcitation(wide, max(1, in_channels // 4)))
        parts.append(ConvNormAct(wide, stage.channels, 1))
        self.block = nn.Sequential(*parts)
        self.wide_channels = wide
        self.has_shortcut = stride == 1 and in_channels == stage.channels
        self.drop_chance = drop_chance
        self.checkpointing = False

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H / stride, W / stride)."""
        folded = self._fold(x)
        if folded is None:
            y = run_checkpointed(self.block, x, self.block) if self.checkpointing else self.block(x)
            return _drop_clips(y, self.drop_chance, self.training) + x if self.has_shortcut else y
        clips = len(x)
        if x.device.type == "cpu":
            clips = max(1, _CACHED_VALUES // max(1, self.wide_channels * x.shape[2] * x.shape[3]))
        if clips >= len(x):
            return self._run_folded(x, folded)
        return torch.cat([self._run_folded(part, folded) for part in x.split(clips)])

    def _fold(self, x: Tensor) -> _FoldedBlock | None:
        """Return the parts with their folded copies, or None if one of them has to take the plain path."""
        *wide, gate, narrow = self.block._modules.values()
        if not isinstance(gate, SqueezeExcitation) or not isinstance(narrow, ConvNormAct):
            return None  # someone put a module of their own there
        if any(is_hooked(part) for part in (self.block, *wide, gate, gate.fc1, gate.fc2, narrow) if part):
            return None
        convolutions: list[tuple[ConvNormAct, Folded]] = []
        for part in wide:
            if not isinstance(part, ConvNormAct) or (folded := part.folded(x)) is None:
                return None
            convolutions.append((part, folded))
        last = narrow.folded(x)
        return None if last is None else _FoldedBlock(convolutions, gate, last)

    def _run_folded(self, x: Tensor, folded: _FoldedBlock) -> Tensor:
        y = x
        for part, copy in folded.wide:
            y = part.run(y, copy)
        # Weighing the channels and narrowing them is one product of matrices per clip: the factors go to the
        # small kernel instead of the large image.
        weights = folded.narrow.weight.flatten(1) * folded.gate.scale(y)[:, None, :]
        batch, channels, height, width = y.shape
        pixels = y.permute(0, 2, 3, 1).reshape(batch, height * width, channels)
        y = torch.baddbmm(folded.narrow.bias, pixels, weights.transpose(1, 2))
        y = y.reshape(batch, height, width, -1).permute(0, 3, 1, 2)
        return y.add_(x) if self.has_shortcut else y


class _FoldedBlock(NamedTuple):
    wide: list[tuple[ConvNormAct, Folded]]
    gate: SqueezeExcitation
    narrow: Folded


class EfficientNet(nn.Module):
    """The convolutional part of an EfficientNet: everything before pooling and classifier.

    Args:
        config: Its sizes.

    Attributes:
        features: First convolution, stages of blocks, last convolution; named as in published weights.

    Example:
        >>> EfficientNet(EfficientNetConfig.named("b0")).eval()(torch.zeros(1, 1, 64, 64)).shape
        torch.Size([1, 1280, 2, 2])
    """

    def __init__(self, config: EfficientNetConfig) -> None:
        super().__init__()
        parts: list[nn.Module] = [PictureConv(3, config.stem_channels, 3, stride=2, activation=nn.SiLU())]
        channels, number = config.stem_channels, 0
        total = sum(stage.blocks for stage in config.stages)
        for stage in config.stages:
            blocks = []
            for index in range(stage.blocks):
                chance = config.stochastic_depth * number / total
                blocks.append(MBConv(channels, stage, stage.stride if index == 0 else 1, chance))
                channels, number = stage.channels, number + 1
            parts.append(nn.Sequential(*blocks))
        parts.append(ConvNormAct(channels, config.embedding_dim, 1, activation=nn.SiLU()))
        self.features = nn.Sequential(*parts)

    def block_names(self) -> list[str]:
        """Names of the first convolution, every block and the last convolution, in order."""
        first, *stages, last = self.features.named_children()
        blocks = [f"{stage}.{block}" for stage, part in stages for block, _ in part.named_children()]
        return [f"features.{name}" for name in (first[0], *blocks, last[0])]

    def forward(self, x: Tensor) -> Tensor:
        """Map an image (B, 1 or 3, F, T) to (B, embedding_dim, F / 32, T / 32), sizes rounded up.

        One channel stands for three equal ones, and so do three that share their memory.
        """
        return self.features(merge_equal_channels(x).contiguous(memory_format=torch.channels_last))

    def enable_gradient_checkpointing(self) -> None:
        """Keep only what enters a block for the backward pass, and compute its inside again."""
        for module in self.modules():
            if isinstance(module, MBConv):
                module.checkpointing = True


def _drop_clips(x: Tensor, chance: float, training: bool) -> Tensor:
    """Set whole clips of (B, ...) to zero at random in training, and make up for it in the others."""
    if not training or chance == 0.0:
        return x
    keep = x.new_empty((len(x), 1, 1, 1)).bernoulli_(1.0 - chance)
    return x * keep.div_(1.0 - chance)
