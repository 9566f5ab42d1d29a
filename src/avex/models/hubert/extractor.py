"""The convolutions of HuBERT, from raw samples to 50 vectors per second.

The first of them is normalised over the whole clip. Because it is linear, mean and variance of what it puts out
follow from mean and covariance of the few samples under its kernel; norm and convolution become one map, and
nothing after it looks further than its kernel. So the convolutions can go through a clip piece by piece, in memory
that stays in the processor's cache, and give what they give for the whole clip.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from avex.models.compiled import is_exporting
from avex.models.hubert.config import HubertConfig
from avex.nn.autocast import autocast_disabled
from avex.nn.plain_path import is_hooked

# Frames that the convolutions make at a time on a CPU: 2 s of audio, 13 MB after the first one.
_PIECE = 100


class NormalisedConv(nn.Module):
    """Convolution over raw samples followed by a norm of each channel over the clip.

    Args:
        channels: Channels.
        kernel: Samples under the kernel.
        stride: Samples from one output to the next.
        bias: Whether the convolution has a bias; it would change nothing, the norm takes it away.

    Attributes:
        keeps_float32: Rounding kernels or samples would be heard as noise in every channel.
    """

    keeps_float32 = True

    def __init__(self, channels: int, kernel: int, stride: int, bias: bool) -> None:
        super().__init__()
        self.conv = _conv(1, channels, kernel, stride, bias)
        self.layer_norm = nn.GroupNorm(channels, channels)

    def fold(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        """Kernels and biases that include the norm, (B, C, K) and (B, C, 1), for clips (B, S)."""
        norm, weight = self.layer_norm, self.conv.weight.squeeze(1)
        with autocast_disabled(waveform.device):
            # In float64, because the variance may be small beside the values; these are small matrices.
            windows = self._windows(waveform).double()
            mean = windows.mean(1, keepdim=True)
            centred = windows - mean
            covariance = centred.transpose(1, 2) @ centred / windows.shape[1]
            kernel = weight.double()
            variance = ((kernel @ covariance) * kernel).sum(-1).clamp(min=0.0)
            scale = norm.weight.double() * (variance + norm.eps).rsqrt()
            shift = norm.bias.double() - scale * (mean @ kernel.t()).squeeze(1)
            return (scale.unsqueeze(-1) * kernel).to(weight.dtype), shift.unsqueeze(-1).to(weight.dtype)

    def forward(self, waveform: Tensor, kernel: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
        """(B, S) to (B, C, T), by folded kernels if there are any; these also fit pieces of clips."""
        with autocast_disabled(waveform.device):
            if kernel is None or shift is None:
                return self.layer_norm(self.conv(waveform.unsqueeze(1)))
            return torch.baddbmm(shift, kernel, self._windows(waveform).transpose(1, 2))

    def _windows(self, waveform: Tensor) -> Tensor:
        return waveform.unfold(1, self.conv.kernel_size[0], self.conv.stride[0])


class PlainConv(nn.Module):
    """A convolution without norm."""

    def __init__(self, inputs: int, channels: int, kernel: int, stride: int, bias: bool) -> None:
        super().__init__()
        self.conv = _conv(inputs, channels, kernel, stride, bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) to (B, C, T')."""
        return self.conv(x)


class FeatureExtractor(nn.Module):
    """Seven strided convolutions with GELU between them.

    Args:
        config: Sizes and settings.
    """

    def __init__(self, config: HubertConfig) -> None:
        super().__init__()
        first, *others = config.extractor_conv_layer_config
        bias, inputs = config.extractor_conv_bias, first[0]
        self.config = config
        self.conv_layers = nn.ModuleList([NormalisedConv(*first, bias)])
        for channels, kernel, stride in others:
            self.conv_layers.append(PlainConv(inputs, channels, kernel, stride, bias))
            inputs = channels

    def forward(self, waveform: Tensor) -> Tensor:
        """(B, S) to (B, T, C)."""
        # Apple's GPUs have no float64, and not every runtime of graphs multiplies in it.
        if waveform.device.type == "mps" or is_exporting():
            return self._convolve(waveform).transpose(1, 2)
        kernel, shift = cast(NormalisedConv, self.conv_layers[0]).fold(waveform)
        if waveform.device.type != "cpu" or torch.is_grad_enabled() or self._is_watched():
            return self._convolve(waveform, kernel, shift).transpose(1, 2)
        clips = []
        for i in range(len(waveform)):
            clip = slice(i, i + 1)
            pieces = [self._convolve(x, kernel[clip], shift[clip]) for x in self._pieces(waveform[clip])]
            clips.append(torch.cat(pieces, dim=2))
        return torch.cat(clips).transpose(1, 2)

    def _is_watched(self) -> bool:
        """Whether somebody reads what a convolution puts out: it must then see whole batches and stay as it is."""
        return any(map(is_hooked, self.conv_layers.modules()))

    def _pieces(self, waveform: Tensor) -> Iterator[Tensor]:
        """The samples that each run of frames sees; neighbours overlap by what a frame sees beyond its hop."""
        config = self.config
        frames = config.num_frames(waveform.shape[1])
        for start in range(0, frames, _PIECE):
            stop = min(start + _PIECE, frames)
            yield waveform[:, start * config.hop_length : (stop - 1) * config.hop_length + config.min_samples]

    def _convolve(
        self, waveform: Tensor, kernel: Tensor | None = None, shift: Tensor | None = None
    ) -> Tensor:
        first, *others = self.conv_layers
        # In place where nobody needs the input again: these are the largest tensors of the network.
        keep = torch.is_grad_enabled() or self._is_watched()
        gelu = functional.gelu if keep else torch.ops.aten.gelu_
        x = gelu(first(waveform, kernel, shift))
        for layer in others:
            x = gelu(layer(x))
        return x


def _conv(inputs: int, channels: int, kernel: int, stride: int, bias: bool) -> nn.Conv1d:
    conv = nn.Conv1d(inputs, channels, kernel, stride=stride, bias=bias)
    nn.init.kaiming_normal_(conv.weight)
    return conv
