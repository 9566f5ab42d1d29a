"""Cut recordings into windows on an integer sample grid.

Windows start at multiples of the hop, in samples at the model's rate. Times follow as `start / sample_rate`, so
they do not drift however long the recording is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.lib.stride_tricks import as_strided

from avex._core.errors import ConfigError

Tail = Literal["pad", "drop", "shift"]


@dataclass(frozen=True, slots=True)
class Window:
    """One window: samples `start` to `stop` (half open) of the recording; shorter than the window where it ends."""

    start: int
    stop: int


@dataclass(frozen=True)
class WindowBatch:
    """Windows cut from a stream.

    Attributes:
        samples: (m, channels, window) float32, C-contiguous, zeros after the end of the recording.
        start: (m,) int64, first sample of each window.
        valid: (m,) int64, samples of each window that are not padding.
    """

    samples: np.ndarray
    start: np.ndarray
    valid: np.ndarray

    def __len__(self) -> int:
        return len(self.start)


@dataclass(frozen=True)
class Windower:
    """How recordings are cut into windows.

    Windows start at multiples of the hop as long as they fit. What the last of them leaves uncovered is the tail:

    - `pad`: one more window at the next multiple of the hop, padded with zeros;
    - `shift`: one more window, moved back so that it ends with the recording;
    - `drop`: nothing.

    A tail of fewer than `min_tail_seconds` uncovered samples is left out. With a hop longer than the window,
    samples in the gaps are skipped on purpose and make no tail. A recording shorter than one window gives a single
    padded window, unless the tail is dropped.

    Attributes:
        seconds: Length of a window.
        hop_seconds: Distance between window starts; None means `seconds`. May be longer than a window.
        tail: `"pad"`, `"drop"` or `"shift"`.
        min_tail_seconds: Shortest tail worth a window.

    Raises:
        ConfigError: A length is not positive and finite, or the tail rule is unknown.

    Example:
        >>> Windower(seconds=3.0).plan(num_samples=70, sample_rate=10)
        [Window(start=0, stop=30), Window(start=30, stop=60), Window(start=60, stop=70)]
    """

    seconds: float
    hop_seconds: float | None = None
    tail: Tail = "pad"
    min_tail_seconds: float = 0.0

    def __post_init__(self) -> None:
        hop = self.seconds if self.hop_seconds is None else self.hop_seconds
        for name, value in (("seconds", self.seconds), ("hop_seconds", hop)):
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{name} is {value!r}; expected a positive number of seconds.")
        if not (math.isfinite(self.min_tail_seconds) and self.min_tail_seconds >= 0):
            raise ConfigError(f"min_tail_seconds is {self.min_tail_seconds!r}; expected 0 or more seconds.")
        if self.tail not in get_args(Tail):
            raise ConfigError(
                f"tail is {self.tail!r}; expected one of {', '.join(map(repr, get_args(Tail)))}."
            )

    def window_samples(self, sample_rate: int) -> int:
        """Return the length of a window in samples, rounded to the nearest.

        Raises:
            ConfigError: It is less than one sample.
        """
        return _samples("seconds", self.seconds, sample_rate)

    def hop_samples(self, sample_rate: int) -> int:
        """Return the distance between window starts in samples, rounded to the nearest.

        Raises:
            ConfigError: It is less than one sample.
        """
        return _samples(
            "hop_seconds", self.seconds if self.hop_seconds is None else self.hop_seconds, sample_rate
        )

    def plan(self, num_samples: int, sample_rate: int) -> list[Window]:
        """Return the windows of a recording of `num_samples` at `sample_rate` Hz, by start."""
        window, hop = self.window_samples(sample_rate), self.hop_samples(sample_rate)
        full = _full_windows(num_samples, window, hop)
        plan = [Window(i * hop, i * hop + window) for i in range(full)]
        last = self._tail_window(num_samples, sample_rate)
        return plan if last is None else [*plan, last]

    def stream(self, sample_rate: int, channels: int = 1) -> WindowStream:
        """Start cutting one recording that arrives in blocks of (frames, channels)."""
        return WindowStream(self, sample_rate, channels)

    def _tail_window(self, num_samples: int, sample_rate: int) -> Window | None:
        """Return the window after the full ones, if there is one."""
        window, hop = self.window_samples(sample_rate), self.hop_samples(sample_rate)
        full = _full_windows(num_samples, window, hop)
        if self.tail == "drop" or num_samples < 1:
            return None
        if full == 0:
            return Window(0, num_samples)
        start = full * hop
        # With overlap the last full window reaches beyond the next start; with gaps it ends before.
        uncovered = num_samples - max(start, start - hop + window)
        if uncovered < max(1, round(self.min_tail_seconds * sample_rate)):
            return None
        return Window(num_samples - window if self.tail == "shift" else start, num_samples)


class WindowStream:
    """Cuts one recording that arrives in blocks; gives exactly the windows of `Windower.plan`.

    Holds at most one window and one block (or hop) of samples. Made by `Windower.stream`.

    Example:
        >>> stream = Windower(seconds=1.0).stream(sample_rate=4)
        >>> len(stream.push(np.ones((6, 1), np.float32))), len(stream.finish())
        (1, 1)
    """

    def __init__(self, windower: Windower, sample_rate: int, channels: int = 1) -> None:
        if channels < 1:
            raise ConfigError(f"channels is {channels!r}; expected a positive integer.")
        self._windower = windower
        self._sample_rate = sample_rate
        self._window = windower.window_samples(sample_rate)
        self._hop = windower.hop_samples(sample_rate)
        self._buffer = np.empty((channels, 2 * self._window), np.float32)
        self._first = 0  # index in the recording of the first sample held
        self._received = 0
        self._emitted = 0
        self._finished = False

    def push(self, block: np.ndarray) -> WindowBatch:
        """Take a block and return the full windows that it completes.

        Args:
            block: (frames, channels) float32; any number of frames.

        Raises:
            ConfigError: The block has another shape, or the stream was finished.
        """
        if self._finished:
            raise ConfigError("This window stream was finished already; make a new one for every recording.")
        if block.ndim != 2 or block.shape[1] != len(self._buffer):
            raise ConfigError(f"A block has shape {block.shape}; expected (frames, {len(self._buffer)}).")
        self._append(block)
        full = _full_windows(self._received, self._window, self._hop)
        starts = np.arange(self._emitted, full, dtype=np.int64) * self._hop
        self._emitted = full
        return WindowBatch(self._cut(starts), starts, np.full(len(starts), self._window, np.int64))

    def finish(self) -> WindowBatch:
        """End the recording and return its tail window, if there is one."""
        self._finished = True
        tail = self._windower._tail_window(self._received, self._sample_rate)
        if tail is None:
            return WindowBatch(self._cut(np.empty(0, np.int64)), np.empty(0, np.int64), np.empty(0, np.int64))
        valid = tail.stop - tail.start
        samples = np.zeros((1, len(self._buffer), self._window), np.float32)
        held = tail.start - self._first
        samples[0, :, :valid] = self._buffer[:, held : held + valid]
        return WindowBatch(samples, np.array([tail.start], np.int64), np.array([valid], np.int64))

    def _append(self, block: np.ndarray) -> None:
        """Add samples at the end of the buffer, first dropping those that no later window can need."""
        held = self._received - self._first
        if held + len(block) > self._buffer.shape[1]:
            # A shifted tail may reach back one window from the end; the next window starts at the next hop.
            needed = min(self._emitted * self._hop, self._received - self._window)
            drop = min(max(0, needed - self._first), held)
            held -= drop
            capacity = max(2 * self._window, held + len(block))
            kept = self._buffer[:, drop : drop + held]
            self._buffer = np.empty((len(self._buffer), capacity), np.float32)
            self._buffer[:, :held] = kept
            self._first += drop
        self._buffer[:, held : held + len(block)] = block.T
        self._received += len(block)

    def _cut(self, starts: np.ndarray) -> np.ndarray:
        """Copy the full windows at `starts` (a hop apart) out of the buffer: (m, channels, window)."""
        if not len(starts):
            return np.empty((0, len(self._buffer), self._window), np.float32)
        first = self._buffer[:, int(starts[0]) - self._first :]
        channel_stride, stride = first.strides
        view = as_strided(
            first,
            (len(starts), len(first), self._window),
            (self._hop * stride, channel_stride, stride),
            writeable=False,
        )
        return view.copy()


def _full_windows(num_samples: int, window: int, hop: int) -> int:
    return max(0, (num_samples - window) // hop + 1)


def _samples(name: str, seconds: float, sample_rate: int) -> int:
    samples = round(seconds * sample_rate)
    if samples < 1:
        raise ConfigError(
            f"{name} = {seconds!r} is less than one sample at {sample_rate} Hz; use a longer one."
        )
    return samples
