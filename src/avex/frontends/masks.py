"""Padding masks (True = padding) from samples to frames to patches, and crops that keep them in step."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

WindowSelection = Literal["random", "center", "start"]


def frame_padding_mask(
    mask: Tensor, frame_length: int, hop_length: int, *, rule: Literal["all", "any"] = "all"
) -> Tensor:
    """Mask of overlapping frames.

    Args:
        mask: (B, S) bool, True where the waveform is padding.
        frame_length: Samples of a frame.
        hop_length: Samples from one frame to the next.
        rule: `all`: a frame is padding if all its samples are. `any`: if one is; the other frames are then just
            those that the clip would give without its padding.

    Returns:
        (B, 1 + (S - frame_length) // hop_length) bool.

    Example:
        >>> mask = torch.tensor([[False, False, False, True, True, True]])
        >>> frame_padding_mask(mask, 2, 2).tolist()
        [[False, False, True]]
    """
    frames = mask.unfold(-1, frame_length, hop_length)
    return frames.all(-1) if rule == "all" else frames.any(-1)


def group_padding_mask(mask: Tensor, num_groups: int) -> Tensor:
    """Cut a mask into equal groups; a group is padding if all of it is.

    What does not fill the groups is dropped at the end. This is the rule of BEATs, from samples to frames and
    again from frames to tokens; groups are as long as the sequence allows, not as long as a frame.

    Args:
        mask: (B, N) bool.
        num_groups: Groups, at most N.

    Returns:
        (B, num_groups) bool.

    Raises:
        ValueError: Not 2-D, or more groups than values.
    """
    _check_2d(mask, "mask", "(B, N)")
    if not 0 < num_groups <= mask.shape[1]:
        raise ValueError(f"A mask of {mask.shape[1]} values cannot be cut into {num_groups} groups.")
    size = mask.shape[1] // num_groups
    return mask[:, : num_groups * size].reshape(mask.shape[0], num_groups, size).all(-1)


def waveform_to_frame_mask(mask: Tensor, *, hop_length: int) -> Tensor:
    """Mask of frames that lie side by side; a frame is padding if all its samples are.

    Args:
        mask: (B, S) bool, True where the waveform is padding.
        hop_length: Samples of a frame; what does not fill the last frame is dropped.

    Returns:
        (B, S // hop_length) bool.

    Raises:
        ValueError: Not 2-D, or `hop_length` below 1.

    Example:
        >>> waveform_to_frame_mask(torch.tensor([[False, True, True, True]]), hop_length=2).tolist()
        [[False, True]]
    """
    _check_2d(mask, "mask", "(B, samples)")
    if hop_length < 1:
        raise ValueError(f"hop_length must be at least 1, not {hop_length}.")
    frames = mask.shape[1] // hop_length
    return mask[:, : frames * hop_length].reshape(mask.shape[0], frames, hop_length).all(-1)


def frame_mask_to_patch_mask(frame_mask: Tensor, *, patch_size_time: int, n_freq_bins: int) -> Tensor:
    """Mask of square patches, flattened time first with the bands of one time step side by side.

    Args:
        frame_mask: (B, T) bool.
        patch_size_time: Frames, and bins, that a patch spans.
        n_freq_bins: Bins of the spectrogram; each time step has `n_freq_bins // patch_size_time` patches.

    Returns:
        (B, T // patch_size_time * bands) bool, True where all frames of a patch are padding.

    Raises:
        ValueError: Not 2-D, or T is not a multiple of `patch_size_time`.
    """
    _check_2d(frame_mask, "frame_mask", "(B, frames)")
    batch, frames = frame_mask.shape
    if patch_size_time < 1 or frames % patch_size_time:
        raise ValueError(
            f"{frames} frames do not divide into patches of {patch_size_time}. "
            "Crop or pad with sync_crop_or_pad_time first."
        )
    steps = frame_mask.reshape(batch, frames // patch_size_time, patch_size_time).all(-1)
    return steps.repeat_interleave(n_freq_bins // patch_size_time, dim=1)


def sync_crop_or_pad_time(
    spec: Tensor, frame_mask: Tensor | None, target_len: int
) -> tuple[Tensor, Tensor | None]:
    """Bring a spectrogram and its mask to `target_len` frames: centre crop, or zeros at the end.

    Args:
        spec: (B, T, F).
        frame_mask: (B, T) bool, or None.
        target_len: Frames wanted.

    Returns:
        (B, target_len, F), and (B, target_len) with True for added frames (None if none was given).
    """
    missing = target_len - spec.shape[1]
    if missing >= 0:
        padded = F.pad(spec, (0, 0, 0, missing))
        return padded, None if frame_mask is None else F.pad(frame_mask, (0, missing), value=True)
    start = -missing // 2
    kept = slice(start, start + target_len)
    return spec[:, kept], None if frame_mask is None else frame_mask[:, kept]


def pad_or_window(
    wav: Tensor,
    target_len: int,
    window_selection: WindowSelection = "random",
    invert: bool = True,
    *,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Bring a waveform to `target_len` samples: a window of it, or zeros at the end.

    Args:
        wav: (..., S).
        target_len: Samples wanted.
        window_selection: Which part of a longer waveform: `random`, `center` or `start`.
        invert: True for a mask that is True on padding, False for one that is True on audio.
        generator: Source of randomness of `random`; None for torch's own.

    Returns:
        (..., target_len), and the mask (target_len,), bool.

    Raises:
        ValueError: Unknown `window_selection`.

    Example:
        >>> pad_or_window(torch.arange(3.0), 4)[1].tolist()
        [False, False, False, True]
    """
    surplus = wav.shape[-1] - target_len
    if window_selection == "random":
        start = int(torch.randint(0, max(surplus, 0) + 1, (1,), generator=generator))
    elif window_selection == "center":
        start = max(surplus, 0) // 2
    elif window_selection == "start":
        start = 0
    else:
        raise ValueError(f"Unknown window_selection '{window_selection}'. Choose random, center or start.")
    windowed = F.pad(wav[..., start : start + target_len], (0, max(-surplus, 0)))
    padding = torch.arange(target_len, device=wav.device) >= wav.shape[-1]
    return windowed, padding if invert else ~padding


def _check_2d(mask: Tensor, name: str, shape: str) -> None:
    if mask.ndim != 2:
        raise ValueError(f"'{name}' must have shape {shape}; this one is {tuple(mask.shape)}.")
