"""Operations as matrix products, so that a network with its front end can be written as a plain ONNX graph.

ONNX knows no complex numbers, and few runtimes compute its Fourier transforms well. While `ExportableOps` is on, a
transform of real frames is a product with the matrix of cosines and sines instead, and fused attention is two
products and a softmax. Gradients stay switched on, with which models take the path without loops over pieces and
without work in place. Nothing of a model is changed, and outside the block everything is as usual.

A product of float32 frames with that matrix rounds less than torch's float32 transform does (log-mel values of
recordings: 1e-4 to 9e-4 off at most, against 2e-4 to 2e-3; both measured against float64). What an exported graph
differs by is mostly the rounding of the transform that it replaces.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from avex._core.errors import ConfigError


class Spectrum:
    """The Fourier transform of real frames, as far as front ends use one: real part, imaginary part, magnitude.

    Args:
        frames: (..., L), L at most `n_fft`; shorter frames count as zero-padded.
        n_fft: Length of the transform.
        transposed: Bins come before the frames, as `torch.stft` gives them.
    """

    def __init__(self, frames: Tensor, n_fft: int, transposed: bool = False) -> None:
        self._frames = frames[..., :n_fft]
        self._n_fft = n_fft
        self._transposed = transposed

    @property
    def real(self) -> Tensor:
        """(..., n_fft // 2 + 1), or (..., n_fft // 2 + 1, frames) if transposed."""
        return self._product(np.cos)

    @property
    def imag(self) -> Tensor:
        """The same shape as `real`."""
        return -self._product(np.sin)

    def abs(self) -> Tensor:
        """The magnitude."""
        return (self.real.square() + self.imag.square()).sqrt()

    def __abs__(self) -> Tensor:
        return self.abs()

    def _product(self, wave: Callable[[np.ndarray], np.ndarray]) -> Tensor:
        """Frames times a matrix (L, bins).

        NumPy makes it, so that it is stored in the graph as it is: computed by the graph it would be as exact as
        the runtime's cosines, and BirdNET, for one, hears the difference in silence.
        """
        time = np.arange(int(self._frames.shape[-1]))
        # The product of integers is taken modulo the period before it becomes an angle, which keeps it exact.
        steps = time[:, None] * np.arange(self._n_fft // 2 + 1) % self._n_fft
        matrix = torch.from_numpy(wave(steps * (2 * np.pi / self._n_fft))).to(self._frames.dtype)
        product = self._frames @ matrix.to(self._frames.device)
        return product.transpose(-1, -2) if self._transposed else product


class ExportableOps(TorchFunctionMode):
    """Context in which Fourier transforms and fused attention are written out as real matrix products.

    Raises:
        ConfigError: A transform with settings that cannot be written out.

    Example:
        >>> x = torch.tensor([1.0, 0.0, 0.0, 0.0])
        >>> with ExportableOps():
        ...     torch.fft.rfft(x).real
        tensor([1., 1., 1.])
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call `func` or what stands for it."""
        return _WRITTEN_OUT.get(func, func)(*args, **(kwargs or {}))


def _rfft(input: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None) -> Spectrum:
    if dim not in (-1, input.ndim - 1) or norm not in (None, "backward"):
        raise _unsupported("torch.fft.rfft", "the last axis, without norm")
    return Spectrum(input, int(input.shape[-1]) if n is None else n)


def _stft(
    input: Tensor,
    n_fft: int,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: Tensor | None = None,
    center: bool = True,
    pad_mode: str = "reflect",
    normalized: bool = False,
    onesided: bool | None = None,
    return_complex: bool | None = None,
    align_to_window: bool | None = None,
) -> Spectrum:
    if normalized or onesided is False or return_complex is False or align_to_window:
        raise _unsupported("torch.stft", "a one-sided complex result that is not normalised")
    length = n_fft if win_length is None else win_length
    taps = input.new_ones(length) if window is None else window
    if length < n_fft:
        before = (n_fft - length) // 2
        taps = functional.pad(taps, (before, n_fft - length - before))
    if center:
        edge = n_fft // 2
        input = functional.pad(input.unsqueeze(-2), (edge, edge), mode=pad_mode).squeeze(-2)
    frames = input.unfold(-1, n_fft, n_fft // 4 if hop_length is None else hop_length)
    return Spectrum(frames * taps, n_fft, transposed=True)


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    if dropout_p or is_causal or enable_gqa:
        raise _unsupported("scaled_dot_product_attention", "attention without dropout, causality or grouping")
    scores = query * (query.shape[-1] ** -0.5 if scale is None else scale) @ key.transpose(-1, -2)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, -math.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask
    return scores.softmax(-1) @ value


def _unfold(input: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """Windows by index; the exporter's own way of cutting them needs sizes that are known beforehand."""
    dimension %= input.ndim
    count = (input.shape[dimension] - size) // step + 1
    index = torch.arange(count, device=input.device)[:, None] * step + torch.arange(size, device=input.device)
    return input.movedim(dimension, -1)[..., index].movedim(-2, dimension)


def _keep_gradients_on(mode: bool) -> None:
    """What `torch.no_grad()` would call inside a model: nothing."""


_WRITTEN_OUT: dict[Any, Callable[..., Any]] = {
    torch._C._set_grad_enabled: _keep_gradients_on,
    Tensor.unfold: _unfold,
    torch.fft.rfft: _rfft,
    torch.stft: _stft,
    functional.scaled_dot_product_attention: _attention,
}


def _unsupported(function: str, possible: str) -> ConfigError:
    return ConfigError(
        f"The model calls {function} in a way that cannot be written into an ONNX graph. Possible is: {possible}."
    )
