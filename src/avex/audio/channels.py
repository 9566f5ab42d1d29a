"""Choose or mix the channels of a recording. Channels are counted from 1, as in Raven and SoX."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np

from avex._core.errors import AudioError, ConfigError

Channel: TypeAlias = Literal["mean", "each"] | int

MIX = 0
"""Number that stands for the mean of all channels where a channel number is stored."""


def parse_channel(value: object) -> Channel:
    """Read a channel choice from a configuration or a command line.

    Args:
        value: `"mean"`, `"each"`, or a channel number from 1 (an int or its digits).

    Raises:
        ConfigError: Anything else, 0 and negative numbers included.

    Example:
        >>> parse_channel("2"), parse_channel("mean")
        (2, 'mean')
    """
    if value == "mean":
        return "mean"
    if value == "each":
        return "each"
    if isinstance(value, str) and value.strip().isdecimal():
        value = int(value)
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool) and value >= 1:
        return int(value)
    hint = " Channels are counted from 1." if value in (0, "0") else ""
    raise ConfigError(f"channel is {value!r}; expected 'mean', 'each' or a channel number from 1.{hint}")


def channel_numbers(channel: Channel, channels: int) -> list[int]:
    """Return the number stored with each channel of the result.

    Args:
        channel: A choice as `parse_channel` accepts it.
        channels: Number of channels of the recording.

    Returns:
        `[0]` for the mean, `[N]` for channel N, `[1, ..., channels]` for each.

    Raises:
        AudioError: The recording has no such channel (cause `unsupported`).
        ConfigError: `channel` is not a valid choice.

    Example:
        >>> channel_numbers("each", 2)
        [1, 2]
    """
    channel = parse_channel(channel)
    if channel == "mean":
        return [MIX]
    if channel == "each":
        return list(range(1, channels + 1))
    if channel > channels:
        raise AudioError(
            f"Channel {channel} was asked for, but the recording has {channels} "
            f"channel{'s' if channels > 1 else ''}. Channels are counted from 1; 'mean' and 'each' fit any number.",
            cause="unsupported",
        )
    return [channel]


def select_channels(block: np.ndarray, channel: Channel) -> np.ndarray:
    """Apply a channel choice to a block.

    Args:
        block: (frames, channels) floating point.
        channel: A choice as `parse_channel` accepts it.

    Returns:
        (frames, 1) or, for `"each"`, (frames, channels); float32, C-contiguous. The mean is taken in float64.

    Raises:
        AudioError: The recording has no such channel (cause `unsupported`).
        ConfigError: `channel` is not a valid choice.

    Example:
        >>> select_channels(np.array([[1.0, 3.0]], np.float32), "mean")
        array([[2.]], dtype=float32)
    """
    numbers = channel_numbers(channel, block.shape[1])
    if block.shape[1] == 1 or len(numbers) > 1:
        return np.ascontiguousarray(block, np.float32)
    if numbers == [MIX]:
        return block.mean(axis=1, dtype=np.float64, keepdims=True).astype(np.float32)
    return np.ascontiguousarray(block[:, numbers[0] - 1 : numbers[0]], np.float32)
