"""The ResNet network, with the module names of the published weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from avex.models.resnet.config import ResNetConfig
from avex.nn.autocast import autocast_disabled
from avex.nn.checkpointing import run_checkpointed
from avex.nn.convolution import ConvNormAct, FoldableConv2d, conv_norm, merge_equal_channels


class Residual(nn.Module):
    """What both kinds of blocks have in common.

    Attributes:
        downsample: Brings the input to the shape of the output; None where it has it.
        checkpointing: Compute the inside again in the backward pass instead of keeping it.
    """

    downsample: nn.Module | None
    checkpointing = False

    def run(self, x: Tensor) -> Tensor:
        """The block itself; `forward` decides whether its inside is kept for the backward pass."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H / stride, W / stride)."""
        return run_checkpointed(self.run, x, self) if self.checkpointing else self.run(x)

    def _shortcut(self, x: Tensor) -> Tensor:
        return x if self.downsample is None else self.downsample(x)


class BasicBlock(Residual):
    """Two 3x3 convolutions and a shortcut.

    Args:
        in_channels: Channels of the input.
        width: Channels inside and of the output.
        stride: Step of the first convolution.

    Example:
        >>> BasicBlock(4, 8, stride=2)(torch.zeros(1, 4, 6, 6)).shape
        torch.Size([1, 8, 3, 3])
    """

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = _conv(in_channels, width, 3, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv(width, width, 3)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.downsample = _downsampling(in_channels, width * self.expansion, stride)

    def run(self, x: Tensor) -> Tensor:
        """The block itself; `forward` decides whether its inside is kept for the backward pass."""
        y = conv_norm(x, self.conv1, self.bn1, self.relu)
        return conv_norm(y, self.conv2, self.bn2, self.relu, add=self._shortcut(x))


class Bottleneck(Residual):
    """1x1, 3x3 and 1x1 convolutions and a shortcut; four times as wide outside as inside.

    Args:
        in_channels: Channels of the input.
        width: Channels inside; the output has four times as many.
        stride: Step of the 3x3 convolution.

    Example:
        >>> Bottleneck(16, 4)(torch.zeros(1, 16, 6, 6)).shape
        torch.Size([1, 16, 6, 6])
    """

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = _conv(in_channels, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv(width, width, 3, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = _conv(width, width * self.expansion, 1)
        self.bn3 = nn.BatchNorm2d(width * self.expansion)
        self.relu = nn.ReLU()
        self.downsample = _downsampling(in_channels, width * self.expansion, stride)

    def run(self, x: Tensor) -> Tensor:
        """The block itself; `forward` decides whether its inside is kept for the backward pass."""
        y = conv_norm(x, self.conv1, self.bn1, self.relu)
        y = conv_norm(y, self.conv2, self.bn2, self.relu)
        return conv_norm(y, self.conv3, self.bn3, self.relu, add=self._shortcut(x))


class ResNet(nn.Module):
    """The convolutional part of a ResNet: everything before pooling and classifier.

    Args:
        config: Its sizes.

    Example:
        >>> ResNet(ResNetConfig.named("resnet18")).eval()(torch.zeros(1, 1, 64, 64)).shape
        torch.Size([1, 512, 2, 2])
    """

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        self.conv1 = _conv(3, config.width, 7, stride=2)
        self.bn1 = nn.BatchNorm2d(config.width)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        block = Bottleneck if config.bottleneck else BasicBlock
        channels = config.width
        for index, count in enumerate(config.blocks):
            width = config.width * 2**index
            blocks: list[nn.Module] = []
            for number in range(count):
                blocks.append(block(channels, width, stride=2 if index > 0 and number == 0 else 1))
                channels = width * config.expansion
            self.add_module(f"layer{index + 1}", nn.Sequential(*blocks))
        self.layer_names = [f"layer{index + 1}" for index in range(len(config.blocks))]

    def block_names(self) -> list[str]:
        """Names of the module that feeds the first block, and of every block, in order."""
        layers = ((name, self.get_submodule(name)) for name in self.layer_names)
        return ["maxpool", *(f"{name}.{i}" for name, layer in layers for i, _ in enumerate(layer.children()))]

    def forward(self, x: Tensor) -> Tensor:
        """Map an image (B, 1 or 3, F, T) to (B, embedding_dim, F / 32, T / 32), sizes rounded up.

        One channel stands for three equal ones, and so do three that share their memory.
        """
        x = merge_equal_channels(x).contiguous(memory_format=torch.channels_last)
        with autocast_disabled(x.device):  # the picture in bfloat16 would have steps of 0.4 percent
            x = conv_norm(x.to(self.conv1.weight.dtype), self.conv1, self.bn1, self.relu)
        x = self.maxpool(x)
        for name in self.layer_names:
            x = self.get_submodule(name)(x)
        return x

    def enable_gradient_checkpointing(self) -> None:
        """Keep only what enters a block for the backward pass, and compute its inside again."""
        for module in self.modules():
            if isinstance(module, Residual):
                module.checkpointing = True


def _conv(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> FoldableConv2d:
    return FoldableConv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, bias=False)


def _downsampling(in_channels: int, out_channels: int, stride: int) -> ConvNormAct | None:
    if stride == 1 and in_channels == out_channels:
        return None
    return ConvNormAct(in_channels, out_channels, 1, stride)
