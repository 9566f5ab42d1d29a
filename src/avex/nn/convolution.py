"""Convolution followed by batch norm and an activation, folded into one convolution for inference.

In eval mode batch norm is a fixed scale and shift per channel, which a convolution can do by itself. Folding
happens on the fly: parameters, buffers and the state dict stay as published, and the folded copy is thrown
away as soon as any of them changes. Training, gradients, hooks on the parts, compilers and exporters get the
plain path.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avex.nn.autocast import autocast_disabled, compute_dtype
from avex.nn.plain_path import is_followed, is_hooked
from avex.nn.witness import Witness

_PLAIN_TENSORS = (Tensor, nn.Parameter)


class Folded(NamedTuple):
    """A convolution with the batch norm after it inside.

    Attributes:
        weight: (out, in / groups, kh, kw) kernels, channels last; with one input channel if the image has one.
        bias: (out,) shift.
    """

    weight: Tensor
    bias: Tensor


class _Cache(NamedTuple):
    """A folded copy, in which form, and what shows whether it still holds."""

    form: tuple[torch.dtype, bool, float]
    witness: Witness
    folded: Folded


class FoldableConv2d(nn.Conv2d):
    """`nn.Conv2d` that can take up the batch norm that follows it.

    An image with one channel stands for one whose channels are all the same: networks made for colour are fed
    spectrograms that way, without two copies of them.

    Changes of parameters through `load_state_dict`, optimisers, `torch.no_grad()` code, `.to()` and assignment
    are noticed, and of whole parameters through `.data` as well (see `avex.nn.witness`). A write of single values
    through `.data` is noticed from the next `train()` on.

    Attributes:
        keeps_float32: The folded copy is made and kept in the low precision; from rounded weights it would be
            rounded twice.
    """

    keeps_float32 = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._cache: _Cache | None = None

    def reset_parameters(self) -> None:
        """Draw new kernels for the activations that follow, as He et al. (2015) do, by the size of the output."""
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        """Convolve (B, C or 1, H, W)."""
        if input.shape[1] == 1 < self.in_channels and input.ndim == 4:
            input = input.expand(-1, self.in_channels, -1, -1)
        return super().forward(input)

    def train(self, mode: bool = True) -> FoldableConv2d:
        """Set the mode; training forgets the folded copy."""
        if mode:
            self._cache = None
        return super().train(mode)

    def _apply(self, *args: Any, **kwargs: Any) -> FoldableConv2d:
        self._cache = None
        return super()._apply(*args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": None}

    def folded(self, norm: nn.BatchNorm2d, x: Tensor) -> Folded | None:
        """Return this convolution and `norm` as one, ready for `x`; None where only the plain path is right."""
        if norm.training or is_hooked(self) or is_hooked(norm):
            return None
        own, scale, statistics = self._parameters, norm._parameters, norm._buffers
        mean, variance = statistics["running_mean"], statistics["running_var"]
        given = (own["weight"], own["bias"], scale["weight"], scale["bias"], mean, variance)
        tensors = tuple(t for t in given if t is not None)
        if mean is None or _needs_plain_path(x, tensors):
            self._cache = None  # a step of training may follow
            return None
        merge = x.shape[1] == 1 < self.in_channels
        form = (compute_dtype(x.device, self.weight.dtype), merge, norm.eps)
        cache = self._cache  # another thread may change it meanwhile
        if cache is None or form != cache.form or not cache.witness.agrees(*tensors):
            cache = self._cache = _Cache(form, Witness(*tensors), self._fold(norm, form[0], merge))
        return cache.folded

    def _fold(self, norm: nn.BatchNorm2d, dtype: torch.dtype, merge: bool) -> Folded:
        # Inside inference_mode the copy would be an inference tensor, of no use outside it.
        with torch.inference_mode(False), torch.no_grad(), autocast_disabled(self.weight.device):
            assert norm.running_mean is not None
            assert norm.running_var is not None
            wide = torch.promote_types(norm.running_var.dtype, torch.float32)
            scale = torch.rsqrt(norm.running_var.to(wide) + norm.eps)
            scale = scale if norm.weight is None else scale * norm.weight
            mean = norm.running_mean if self.bias is None else norm.running_mean - self.bias
            bias = -mean * scale if norm.bias is None else norm.bias - mean * scale
            weight = self.weight * scale[:, None, None, None]
            weight = weight.sum(1, keepdim=True) if merge else weight
            return Folded(
                weight.to(dtype).contiguous(memory_format=torch.channels_last), bias.to(dtype).contiguous()
            )


class ConvNormAct(nn.Sequential):
    """Convolution without bias, batch norm and an activation, named `0`, `1` and `2`.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Side of the kernel; the padding keeps the size at stride 1.
        stride: Step of the kernel.
        groups: Groups of channels that see only themselves; `in_channels` for a depthwise convolution.
        activation: What follows the batch norm; None for nothing.

    Example:
        >>> ConvNormAct(3, 8, 3, stride=2).eval()(torch.zeros(1, 3, 9, 9)).shape
        torch.Size([1, 8, 5, 5])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        groups: int = 1,
        activation: nn.Module | None = None,
    ) -> None:
        conv = FoldableConv2d(
            in_channels, out_channels, kernel_size, stride, kernel_size // 2, groups=groups, bias=False
        )
        norm = nn.BatchNorm2d(out_channels)
        super().__init__(*((conv, norm) if activation is None else (conv, norm, activation)))

    def folded(self, x: Tensor) -> Folded | None:
        """Return the convolution with the batch norm inside, or None where only the plain path is right."""
        return fold(self._modules["0"], self._modules["1"], x)

    def forward(self, input: Tensor) -> Tensor:
        """Convolve, normalise and activate (B, C, H, W)."""
        folded = self.folded(input)
        return super().forward(input) if folded is None else self.run(input, folded)

    def run(self, x: Tensor, folded: Folded) -> Tensor:
        """Convolve (B, C, H, W) with a folded copy and activate."""
        return _activate(_convolve(x, self._modules["0"], folded), self._modules.get("2"))


def conv_norm(
    x: Tensor,
    conv: nn.Module,
    norm: nn.Module,
    activation: nn.Module | None = None,
    add: Tensor | None = None,
) -> Tensor:
    """Return `activation(norm(conv(x)) + add)`, folded where that is right.

    Args:
        x: (B, C, H, W) input.
        conv: The convolution.
        norm: The batch norm that follows it.
        activation: What comes last, or None.
        add: Shortcut to add before the activation, of the shape of the output.
    """
    folded = fold(conv, norm, x)
    if folded is not None:
        y = _convolve(x, conv, folded)
        return _activate(y if add is None else y.add_(add), activation)
    y = norm(conv(x))
    y = y if add is None else y + add
    return y if activation is None else activation(y)


def fold(conv: nn.Module | None, norm: nn.Module | None, x: Tensor) -> Folded | None:
    """Return a convolution and the batch norm after it as one, or None where only the plain path is right."""
    if type(conv) is not FoldableConv2d or type(norm) is not nn.BatchNorm2d:
        return None  # someone put a module of their own there
    return conv.folded(norm, x)


def _convolve(x: Tensor, conv: nn.Module | None, folded: Folded) -> Tensor:
    assert isinstance(conv, nn.Conv2d)
    return F.conv2d(x, folded.weight, folded.bias, conv.stride, conv.padding, conv.dilation, conv.groups)


def _activate(x: Tensor, activation: nn.Module | None) -> Tensor:
    """Apply an activation to the fresh output of a convolution: in place, nobody else has seen it."""
    if activation is None:
        return x
    if type(activation) is nn.SiLU and not is_hooked(activation):
        return F.silu(x, inplace=True)
    if type(activation) is nn.ReLU and not is_hooked(activation):
        return F.relu(x, inplace=True)
    return activation(x)


class PictureConv(ConvNormAct):
    """The convolution that reads a picture: in its own precision, also where autocast would round.

    A spectrogram between 0 and 1 in bfloat16 has steps of 0.4 percent, which deep networks enlarge; this one
    layer costs little.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Convolve, normalise and activate (B, C, H, W)."""
        with autocast_disabled(input.device):
            return super().forward(input.to(cast(Tensor, self[0].weight).dtype))


def merge_equal_channels(x: Tensor) -> Tensor:
    """Return (B, 1, H, W) for an image whose channels share their memory (`expand`), else the image."""
    return x[:, :1] if x.ndim == 4 and x.shape[1] > 1 and x.stride(1) == 0 else x


def _needs_plain_path(x: Tensor, tensors: tuple[Tensor, ...]) -> bool:
    if is_followed((x, *tensors)):
        return True
    # Only plain tensors that count their changes can be followed: no fake, sharded or inference tensors.
    return any(type(tensor) not in _PLAIN_TENSORS or tensor.is_inference() for tensor in tensors)
