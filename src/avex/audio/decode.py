"""Decode recordings block by block; memory does not depend on their length."""

from __future__ import annotations

import math
from collections.abc import Iterator
from types import TracebackType

import numpy as np

from avex._core.errors import AudioError, ConfigError, TruncatedAudioError
from avex.audio._files import PathLike, quoted
from avex.audio._reader import AudioInfo, open_reader
from avex.audio.channels import Channel, parse_channel, select_channels
from avex.audio.resample import Method, make_resampler


class AudioStream:
    """A recording, or a stretch of it, as a stream of blocks.

    A context manager; iterate over `blocks()` once. An object serves one thread at a time.

    Args:
        path: Any file name.
        start_s: Where to start, seconds; rounded to the nearest frame.
        end_s: Where to end, seconds; None or beyond the end means the end.
        block_s: Longest block, seconds.

    Attributes:
        info: Header of the whole recording.
        frames_read: Frames delivered so far.

    Raises:
        AudioError: See `avex.audio.info`; also with cause `no_samples` when `start_s` is not before the end.
        ConfigError: The stretch is empty or negative, or `block_s` is not positive.

    Example:
        >>> with AudioStream("dawn.wav", end_s=60) as stream:  # doctest: +SKIP
        ...     peak = max(abs(block).max() for block in stream.blocks())
    """

    def __init__(
        self, path: PathLike, *, start_s: float = 0.0, end_s: float | None = None, block_s: float = 30.0
    ) -> None:
        _check_stretch(start_s, end_s, block_s)
        self._path = path
        self._reader = open_reader(path)
        self.info: AudioInfo = self._reader.info
        self.frames_read = 0
        rate = self.info.sample_rate
        self._start = round(start_s * rate)
        self._stop = self._last_frame(end_s)
        self._block_frames = max(1, int(block_s * rate))
        if self._start >= self._stop:
            self.close()
            raise AudioError(
                f"{quoted(path)} lasts {self._reader.announced / rate:.3f} s and has no samples between start_s = "
                f"{start_s} and end_s = {end_s}. Choose a stretch inside the recording.",
                cause="no_samples",
            )

    def _last_frame(self, end_s: float | None) -> int:
        """Return the frame to stop before; a length that is only estimated sets no limit."""
        limit = self._reader.announced if self._reader.exact else 2**62
        return limit if end_s is None else min(limit, round(end_s * self.info.sample_rate))

    def __enter__(self) -> AudioStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the file; iterating further is an error."""
        self._reader.close()

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield blocks (frames, channels), float32, C-contiguous; integers are scaled to -1..1.

        Raises:
            TruncatedAudioError: The recording ended early; after everything that decodes was yielded.
            AudioError: No frame could be decoded, or reading failed on the way (cause `decode_error`).
        """
        if self._start:
            self._reader.seek(self._start)
        while (wanted := min(self._block_frames, self._stop - self._start - self.frames_read)) > 0:
            block = self._reader.read(wanted)
            self.frames_read += len(block)
            if len(block):
                yield block
            if len(block) < wanted:
                break
        self._check_end()

    def _check_end(self) -> None:
        """Raise if the recording ended before its header said, or before the file itself."""
        position = self._start + self.frames_read
        announced = self._reader.announced
        missing = min(self._stop, announced) - position
        at_end = missing > 0 or position >= announced
        complaint = self._reader.complaint() if at_end else None
        if complaint is None and missing <= self._reader.tolerance:
            return
        rate = self.info.sample_rate
        reason = f": {complaint}" if complaint is not None else ""
        if not position:
            raise AudioError(
                f"{quoted(self._path)} announces {announced / rate:.3f} s, but none of it decodes{reason}.",
                cause="decode_error",
            )
        raise TruncatedAudioError(
            f"{quoted(self._path)} was cut off: decoded {position / rate:.3f} s of {announced / rate:.3f} s "
            f"announced{reason}. What decoded was delivered; copy the file again if you can."
        )


def read(
    path: PathLike,
    *,
    start_s: float = 0.0,
    end_s: float | None = None,
    channel: Channel = "mean",
    sample_rate: int | None = None,
    resampler: Method | str = "soxr_hq",
) -> tuple[np.ndarray, int]:
    """Read a recording, or a stretch of it, into memory.

    Args:
        path: Any file name.
        start_s: Where to start, seconds.
        end_s: Where to end, seconds; None means the end.
        channel: `"mean"`, `"each"` or a channel number from 1.
        sample_rate: Rate wanted, Hz; None keeps the recording's.
        resampler: `"soxr_hq"` or `"kaiser_best"`; see `make_resampler`.

    Returns:
        The samples, float32, (n,) or for `channel="each"` (n, channels), and their sample rate in Hz.

    Raises:
        AudioError: See `AudioStream`; a recording that was cut off raises `TruncatedAudioError`.
        ConfigError: An argument is out of range.

    Example:
        >>> samples, rate = read("dawn.wav", sample_rate=16000)  # doctest: +SKIP
    """
    channel = parse_channel(channel)
    parts: list[np.ndarray] = []
    with AudioStream(path, start_s=start_s, end_s=end_s) as stream:
        rate = stream.info.sample_rate
        target = rate if sample_rate is None else sample_rate
        width = stream.info.channels if channel == "each" else 1
        changer = make_resampler(rate, target, width, resampler)
        parts.extend(changer.push(select_channels(block, channel)) for block in stream.blocks())
        parts.append(changer.flush())
    samples = np.concatenate(parts)
    return (samples if channel == "each" else samples[:, 0]), target


def _check_stretch(start_s: float, end_s: float | None, block_s: float) -> None:
    if not (math.isfinite(start_s) and start_s >= 0):
        raise ConfigError(f"start_s is {start_s!r}; expected 0 or more seconds.")
    if end_s is not None and not end_s > start_s:
        raise ConfigError(f"end_s is {end_s!r}; expected more than start_s ({start_s!r}).")
    if not (math.isfinite(block_s) and block_s > 0):
        raise ConfigError(f"block_s is {block_s!r}; expected a positive number of seconds.")
