"""The convolutional network of BirdNET v2.4 (Kahl et al. 2021), in PyTorch.

An EfficientNet-like stack of inverted bottlenecks with squeeze-and-excitation and SiLU. The published file has its
batch norms folded into the convolutions, except one in front of the last convolution; so has this network. All
maps are (B, C, F, T) in channels-last memory.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from avex.models.birdnet.config import BirdNetConfig, StageConfig
from avex.models.compiled import is_exporting
from avex.nn.plain_path import is_followed, is_hooked

# On a CPU the stem and the first stage, whose maps are the largest, compute so many windows at once: their maps
# then stay in the cache, and memory stays small. Later stages are better off with the whole batch.
_EARLY_STAGES, _EARLY_WINDOWS = 1, 2


def _silu(x: Tensor) -> Tensor:
    # In place where no gradient needs the input: half the memory traffic of the most frequent operation.
    return functional.silu(x, inplace=not x.requires_grad)


def _is_private(y: Tensor, *sources: nn.Module) -> bool:
    """Whether nobody else sees what modules give. Overwritten, it crosses the memory half as often."""
    own = all(type(source) in (ConvSilu, nn.Conv2d, SqueezeExcite, nn.Identity) for source in sources)
    return own and not any(map(is_hooked, sources)) and not is_followed((y,))


def _relu(y: Tensor, *sources: nn.Module) -> Tensor:
    """ReLU of what modules gave, or of a tensor that was made on the spot."""
    return y.relu_() if _is_private(y, *sources) else y.relu()


def _maximum_and_mean(x: Tensor) -> Tensor:
    """Maxima of each two time steps, then their means: (B, C, F, T) to (B, 2 C, F, T / 2)."""
    x = x[..., : x.shape[-1] // 2 * 2]
    even, odd = x[..., ::2], x[..., 1::2]
    if is_followed((x,)):
        return torch.cat([torch.maximum(even, odd), (even + odd) / 2], dim=1)
    batch, channels, *places = even.shape
    both = torch.empty(
        (batch, 2 * channels, *places), dtype=x.dtype, device=x.device, memory_format=torch.channels_last
    )
    maxima, means = both.chunk(2, dim=1)
    torch.maximum(even, odd, out=maxima)
    torch.add(even, odd, out=means).div_(2)
    return both


class ConvSilu(nn.Conv2d):
    """A convolution followed by SiLU, as one module: what a hook reads is never overwritten by a later step."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, F, T) to (B, out, F', T')."""
        return _silu(super().forward(x))


class SqueezeExcite(nn.Module):
    """Scale each channel by a gate between 0 and 1 that is computed from the means of all channels."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.reduce = nn.Linear(channels, squeezed, bias=False)
        self.expand = nn.Linear(squeezed, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, F, T), scaled."""
        return x * self.gate(x)

    def gate(self, x: Tensor) -> Tensor:
        """Factors (B, C, 1, 1) for (B, C, F, T)."""
        squeezed = self.reduce(x.mean((2, 3)))
        # The remainder of a short array is rounded otherwise than what fills vector registers, so that a clip's
        # result would depend on its place in the batch. In float64 that is far below the last digit. ONNX
        # Runtime 1.23 makes one operation of this, which it then does not have in float64.
        exact = squeezed if is_exporting() else squeezed.double()
        squeezed = functional.silu(exact).to(squeezed.dtype)
        return self.expand(squeezed).sigmoid()[:, :, None, None]


class Block(nn.Module):
    """Inverted bottleneck: widen, convolve each channel, gate, narrow; with a shortcut if sizes allow it."""

    def __init__(self, in_channels: int, stage: StageConfig, stride: int) -> None:
        super().__init__()
        self.has_shortcut = stride == 1 and in_channels == stage.channels
        self.expand = ConvSilu(in_channels, stage.hidden, kernel_size=1)
        self.depthwise = ConvSilu(
            stage.hidden, stage.hidden, kernel_size=3, stride=stride, padding=1, groups=stage.hidden
        )
        self.squeeze = SqueezeExcite(stage.hidden, stage.squeeze) if stage.squeeze else nn.Identity()
        self.project = nn.Conv2d(stage.hidden, stage.channels, kernel_size=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, F, T) to (B, C', F', T')."""
        y = self.depthwise(self.expand(x))
        in_place, squeeze = _is_private(y, self.depthwise, self.squeeze, self.project), self.squeeze
        y = y.mul_(squeeze.gate(y)) if in_place and type(squeeze) is SqueezeExcite else squeeze(y)
        y = self.project(y)
        if not self.has_shortcut:
            return y
        return y.add_(x) if in_place else y + x


class Stem(nn.Module):
    """First convolution, then maximum and mean of each two time steps, mixed by a 1x1 convolution."""

    kernel, stride = (4, 8), 2

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, self.kernel, self.stride)
        self.reduce = nn.Conv2d(2 * channels, channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 2, F, T) to (B, C, F / 2, T / 4)."""
        (top, bottom), (left, right) = (
            _same_padding(size, kernel, self.stride)
            for size, kernel in zip(x.shape[2:], self.kernel, strict=True)
        )
        x = _relu(self.conv(functional.pad(x, (left, right, top, bottom))), self.conv)
        return self.reduce(_maximum_and_mean(x))


class Head(nn.Module):
    """The remaining batch norm as a scale and an offset, ReLU, a 3x3 convolution, ReLU."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(in_channels))
        self.offset = nn.Parameter(torch.zeros(in_channels))
        self.conv = nn.Conv2d(in_channels, channels, kernel_size=3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, F, T) to (B, embedding_dim, F - 2, T - 2)."""
        x = _relu(torch.addcmul(self.offset[:, None, None], x, self.scale[:, None, None]))
        return _relu(self.conv(x), self.conv)


class BirdNetBackbone(nn.Module):
    """Two spectrograms to a map of embedding channels, whose mean is the embedding.

    Args:
        config: Sizes.

    Attributes:
        gradient_checkpointing: Compute blocks again in the backward pass instead of keeping their maps.

    Example:
        >>> BirdNetBackbone(BirdNetConfig())(torch.zeros(1, 2, 96, 511)).shape
        torch.Size([1, 1024, 1, 6])
    """

    def __init__(self, config: BirdNetConfig) -> None:
        super().__init__()
        self.gradient_checkpointing = False
        self.stem = Stem(len(config.spectrograms), config.stem_channels)
        stages: list[nn.Module] = []
        channels = config.stem_channels
        for stage in config.stages:
            inputs = [channels, *[stage.channels] * (stage.blocks - 1)]
            stages.append(
                nn.Sequential(*(Block(size, stage, stride=1 if i else 2) for i, size in enumerate(inputs)))
            )
            channels = stage.channels
        self.stages = nn.Sequential(*stages)
        self.head = Head(channels, config.embedding_dim)

    def forward(self, spectrograms: Tensor) -> Tensor:
        """(B, 2, mels, frames) to (B, embedding_dim, F', T')."""
        early, late = self.stages[:_EARLY_STAGES], self.stages[_EARLY_STAGES:]
        parts = spectrograms.split(_EARLY_WINDOWS) if self._may_split(spectrograms) else [spectrograms]
        maps = [
            self._run(early, self.stem(part.contiguous(memory_format=torch.channels_last))) for part in parts
        ]
        x = maps[0] if len(maps) == 1 else torch.cat(maps)
        return self.head(self._run(late, x))

    def _run(self, stages: nn.Module, x: Tensor) -> Tensor:
        for block in [block for stage in stages.children() for block in stage.children()]:
            if self.gradient_checkpointing and self.training:
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
        return x

    def _may_split(self, x: Tensor) -> bool:
        """Whether nobody sees the difference: no gradients, compilers, or hooks that want the whole batch."""
        if x.device.type != "cpu" or torch.is_grad_enabled() or torch.compiler.is_compiling():
            return False
        early = [self.stem, self.stages[:_EARLY_STAGES]]
        return not any(is_hooked(module) for part in early for module in part.modules())

    def layer_names(self) -> list[str]:
        """Names of the modules whose outputs are the layers, in order."""
        return ["stem", *self._blocks(), "head"]

    def _blocks(self) -> dict[str, nn.Module]:
        return {
            f"stages.{i}.{j}": block
            for i, stage in self.stages.named_children()
            for j, block in stage.named_children()
        }


def _same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros before and after an axis so that ceil(size / stride) steps fit; the odd one goes behind."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2
