"""`FrontEnd`: what every way from a waveform to a network's input has in common."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from avex._core.errors import ConfigError
from avex.nn.autocast import autocast_disabled


class FrontEnd(nn.Module):
    """Turns waveforms into the input of a network.

    A subclass sets the three facts below in its constructor and defines `num_frames` and `compute`. Inputs are
    checked and cast here, and autocast is off while `compute` runs: logarithms of power spectra span more than
    half precision can hold.

    Args:
        sample_rate: Rate at which audio must be delivered, in Hz.
        hop_length: Delivered samples from one frame to the next.
        min_samples: Fewest samples a clip may have.

    Attributes:
        sample_rate: See above.
        hop_length: See above.
        min_samples: See above.

    Example:
        >>> class Blocks(FrontEnd):
        ...     def num_frames(self, num_samples):
        ...         return num_samples // self.hop_length
        ...     def compute(self, waveform, padding_mask):
        ...         return waveform.unfold(-1, self.hop_length, self.hop_length), None
        >>> Blocks(sample_rate=16000, hop_length=160, min_samples=160)(torch.zeros(2, 1600))[0].shape
        torch.Size([2, 10, 160])
    """

    def __init__(self, *, sample_rate: int, hop_length: int, min_samples: int = 1) -> None:
        super().__init__()
        self.sample_rate = sample_rate
        self.hop_length = hop_length
        self.min_samples = min_samples

    @property
    def frame_rate(self) -> float:
        """Frames per second of delivered audio."""
        return self.sample_rate / self.hop_length

    def num_frames(self, num_samples: int) -> int:
        """Frames that a clip of `num_samples` gives, those added to reach a fixed length included."""
        raise NotImplementedError

    def compute(self, waveform: Tensor, padding_mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """What `forward` returns, for a float32 waveform and a mask that were checked."""
        raise NotImplementedError

    def forward(self, waveform: Tensor, padding_mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Compute the network's input.

        Args:
            waveform: (B, S) floating point, at `sample_rate`; computed in float32.
            padding_mask: (B, S) bool, True where the waveform is padding, or None.

        Returns:
            The input, float32, and its frame mask (B, frames), bool, True where a frame is padding; None where
            no mask was given, or where the published front end knows none.

        Raises:
            ValueError: Wrong shape, or a clip shorter than `min_samples`.
            TypeError: The waveform is not floating point, or the mask is not bool.
        """
        check_waveform(waveform, self.min_samples)
        if padding_mask is not None:
            check_padding_mask(padding_mask, waveform)
        with autocast_disabled(waveform.device):
            return self.compute(waveform.float(), padding_mask)

    def extra_repr(self) -> str:
        """Show the facts in `repr`."""
        return f"sample_rate={self.sample_rate}, hop_length={self.hop_length}"


class Constant(nn.Module):
    """A float32 tensor that moves with its module but never changes its precision.

    `module.half()` and `module.to(torch.bfloat16)` convert buffers as well; a filter bank rounded to eight bits
    would be another front end. It is not part of a state dict, because it follows from the settings.

    Args:
        value: The tensor; it is copied.

    Example:
        >>> Constant(torch.ones(2)).half().value.dtype
        torch.float32
    """

    value: Tensor

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.register_buffer("value", value.detach().to(torch.float32, copy=True), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Constant:
        before = self.value
        super()._apply(fn, recurse)
        if self.value.dtype != before.dtype:
            self.value = before.to(self.value.device)
        return self


def check_tensor(waveform: object) -> None:
    """Check that waveforms are a tensor.

    Raises:
        TypeError: They are something else.
    """
    if not isinstance(waveform, Tensor):
        raise TypeError(
            f"Waveforms are a torch tensor of shape (batch, samples); this is a {type(waveform).__name__}. "
            "Convert it first, an array with torch.from_numpy(array)."
        )


def check_waveform(waveform: Tensor, min_samples: int = 1) -> None:
    """Check shape, type and length of a batch of waveforms.

    Raises:
        ValueError: Not (B, S).
        ConfigError: (a `ValueError`) S < `min_samples`: the window is too short for this network.
        TypeError: No tensor, or not floating point.
    """
    check_tensor(waveform)
    if waveform.ndim != 2:
        raise ValueError(
            f"A front end takes waveforms of shape (batch, samples); this one is {tuple(waveform.shape)}. "
            "Add a batch axis with waveform.unsqueeze(0), or take one channel."
        )
    if not waveform.is_floating_point():
        raise TypeError(
            f"A front end takes floating-point waveforms in [-1, 1]; this one is {waveform.dtype}. "
            "Convert integer samples first, for int16 with waveform.float() / 32768."
        )
    if waveform.shape[-1] < min_samples:
        raise ConfigError(
            f"A clip of {waveform.shape[-1]} samples is too short: this front end needs at least {min_samples}. "
            "Pad the clip, or drop it."
        )


def check_padding_mask(padding_mask: Tensor, waveform: Tensor) -> None:
    """Check that a mask is bool and fits its waveforms.

    Raises:
        ValueError: Another shape than the waveforms.
        TypeError: Not bool.
    """
    if padding_mask.dtype != torch.bool:
        raise TypeError(
            f"A padding mask is bool, True where the waveform is padding; this one is {padding_mask.dtype}."
        )
    if padding_mask.shape != waveform.shape:
        raise ValueError(
            f"Padding mask {tuple(padding_mask.shape)} does not fit waveforms {tuple(waveform.shape)}: "
            "it needs one value per sample."
        )
