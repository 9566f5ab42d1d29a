"""Positions by convolution: a wide grouped convolution over time whose output is added to the tokens."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from avex.nn.autocast import compute_dtype
from avex.nn.plain_path import is_followed, is_intercepted
from avex.nn.spectral_convolution import convolve, kernel_spectrum
from avex.nn.witness import Witness

# Shorter kernels are convolved directly.
_FEWEST_TAPS = 32
_PLAIN_TENSORS = (Tensor, nn.Parameter)

# What checkpoints call `weight_g` and `weight_v`, by the version of PyTorch's weight norm that wrote them.
WEIGHT_NORM_NAMES = {
    "legacy": ("weight_g", "weight_v"),
    "parametrized": ("parametrizations.weight.original0", "parametrizations.weight.original1"),
}


class _Kept(NamedTuple):
    """What was computed from the parameters, in which form, and what shows whether it still holds."""

    form: tuple[str, torch.dtype]
    value: Tensor
    witness: Witness


class ConvPositionEmbedding(nn.Module):
    """Relative positions as wav2vec 2.0, HuBERT and BEATs encode them.

    The kernel is weight-normed: each tap is a direction (`weight_v`) times a length (`weight_g`). Both are
    parameters, so that training moves them as it did in the original; on a CPU the product is kept while they do
    not change (see `avex.nn.witness`) and no gradient is wanted.

    Args:
        dim: Length of a token.
        kernel_size: Taps along time.
        groups: Groups of channels that do not mix; divides `dim`.

    Source:
        Baevski et al. (2020), https://arxiv.org/abs/2006.11477, section 2.

    Example:
        >>> ConvPositionEmbedding(8, kernel_size=4, groups=2)(torch.zeros(1, 5, 8)).shape
        torch.Size([1, 5, 8])
    """

    def __init__(self, dim: int, kernel_size: int = 128, groups: int = 16) -> None:
        super().__init__()
        if dim % groups:
            raise ValueError(f"{groups} groups do not divide tokens of length {dim}.")
        self.groups = groups
        self.weight_g = nn.Parameter(torch.empty(1, 1, kernel_size))
        self.weight_v = nn.Parameter(torch.empty(dim, dim // groups, kernel_size))
        self.bias = nn.Parameter(torch.empty(dim))
        self._kept: _Kept | None = None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw a kernel whose output has about the size of its input, with a bias of zero."""
        dim, _, taps = self.weight_v.shape
        nn.init.normal_(self.weight_v, std=math.sqrt(4 / (taps * dim)))
        # The length that such a tap has on average; no tap is more than a few per mille off.
        nn.init.constant_(self.weight_g, math.sqrt(4 * dim / (taps * self.groups)))
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Positions for tokens.

        Args:
            x: (B, T, C).

        Returns:
            (B, T, C), to be added to `x`.
        """
        steps, taps = x.shape[1], self.weight_v.shape[2]
        padding = taps // 2
        if self._by_spectrum(x):
            kept = self._keep("spectrum", torch.float32)
            out = convolve(x, kept, self.groups, padding).add_(self.bias)
            out = out.to(compute_dtype(x.device, self.weight_v.dtype))
        elif x.device.type == "cpu":
            # (B, T, C) is what oneDNN calls channels-last: nothing has to be transposed, and grouped
            # convolutions of that layout run near the processor's peak, the others at 60 % of it.
            image = x.transpose(1, 2).unsqueeze(2)
            out = functional.conv2d(
                image, self._kernel(), self.bias, padding=(0, padding), groups=self.groups
            )
            out = out.squeeze(2).transpose(1, 2)
        else:
            kernel = self._kernel().squeeze(2)
            out = functional.conv1d(
                x.transpose(1, 2), kernel, self.bias, padding=padding, groups=self.groups
            ).transpose(1, 2)
        # An even kernel gives one step too many.
        return functional.gelu(out[:, :steps])

    def _by_spectrum(self, x: Tensor) -> bool:
        """Whether to convolve by Fourier transforms."""
        taps = self.weight_v.shape[2]
        if taps < _FEWEST_TAPS or x.shape[1] < taps // 2 or x.device.type != "cpu":
            return False
        if torch.float64 in (x.dtype, self.weight_v.dtype) or is_followed((x, self.bias)) or is_intercepted():
            return False
        return self._may_keep()

    def _may_keep(self) -> bool:
        """Whether what is made from the parameters holds until they change, and a change would be seen.

        Elsewhere than on a CPU the kernel is made in no time, and to look for changes would take longer.
        """
        parameters = (self.weight_g, self.weight_v)
        if is_followed(parameters):
            return False
        return all(
            p.device.type == "cpu" and type(p) in _PLAIN_TENSORS and not p.is_inference() for p in parameters
        )

    def _kernel(self) -> Tensor:
        """The kernel, (C, C / groups, 1, taps), channels-last."""
        g, v = self.weight_g, self.weight_v
        # Under autocast it would be converted in every call.
        return self._keep("kernel", compute_dtype(v.device, v.dtype)) if self._may_keep() else _compose(g, v)

    def _keep(self, kind: Literal["kernel", "spectrum"], dtype: torch.dtype) -> Tensor:
        """The kernel or its spectrum, made anew if a parameter is not what it was."""
        g, v = self.weight_g, self.weight_v
        kept = self._kept  # another thread may change it meanwhile
        if kept is None or kept.form != (kind, dtype) or not kept.witness.agrees(g, v):
            with torch.inference_mode(False), torch.no_grad():
                witness = Witness(g, v)  # before they are read: another thread may change them
                kernel = _compose(g.detach(), v.detach()).to(dtype)
                made = kernel if kind == "kernel" else kernel_spectrum(kernel.squeeze(2), self.groups)
                kept = self._kept = _Kept((kind, dtype), made, witness)
        return kept.value

    def train(self, mode: bool = True) -> ConvPositionEmbedding:
        """Set training mode and forget the kept kernel."""
        self._kept = None
        return super().train(mode)

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        self._kept = None  # the parameters get another device or element type
        return super()._apply(*args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": None}

    def extra_repr(self) -> str:
        """Sizes, for `print(model)`."""
        dim, _, taps = self.weight_v.shape
        return f"{dim}, kernel_size={taps}, groups={self.groups}"


def _length(v: Tensor) -> Tensor:
    """Euclidean length of every tap, (1, 1, K)."""
    return v.square().sum((0, 1), keepdim=True).sqrt()


def _compose(g: Tensor, v: Tensor) -> Tensor:
    kernel = v * (g / _length(v))
    return kernel.unsqueeze(2).contiguous(memory_format=torch.channels_last)
