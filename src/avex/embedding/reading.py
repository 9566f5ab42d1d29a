"""One recording as a stream of windows at the model's rate; memory does not grow with its length."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from avex._core.errors import AudioError, TruncatedAudioError
from avex.audio import (
    AudioInfo,
    AudioStream,
    Channel,
    Method,
    RecordingMetadata,
    Windower,
    channel_numbers,
    make_resampler,
    select_channels,
)
from avex.audio.resample import check_method
from avex.audio.windows import WindowBatch
from avex.embedding.problems import Problem
from avex.embedding.sources import Source, file_state

# Windows per decoded block: bounds memory where windows overlap much.
_WINDOWS_PER_BLOCK = 32
_MAX_BLOCK_SECONDS = 15.0


@dataclass(frozen=True)
class ReadPlan:
    """How recordings become windows.

    Attributes:
        sample_rate: Rate of the windows, in Hz.
        windower: Length, hop and tail of the windows.
        channel: `mean`, `each`, or a channel's number from 1.
        resampler: `soxr_hq` or `kaiser_best`.
        describe: Reads what the recorder noted of a recording, if that is wanted.

    Raises:
        UnknownNameError: There is no such resampler; said here, not once for every recording.
    """

    sample_rate: int
    windower: Windower
    channel: Channel = "mean"
    resampler: Method = "soxr_hq"
    describe: Callable[[str], RecordingMetadata] | None = None

    def __post_init__(self) -> None:
        check_method(self.resampler)

    @property
    def hop_seconds(self) -> float:
        """Seconds from one window to the next."""
        windower = self.windower
        return windower.seconds if windower.hop_seconds is None else windower.hop_seconds

    @property
    def block_seconds(self) -> float:
        """Audio decoded at a time."""
        return min(_MAX_BLOCK_SECONDS, max(1.0, _WINDOWS_PER_BLOCK * self.hop_seconds))


@dataclass(frozen=True)
class Chunk:
    """Consecutive windows of one recording, ordered by start and then channel.

    Attributes:
        windows: (N, S) float32.
        start_s: (N,) seconds from the start of the file.
        end_s: (N,) where the audio in the window ends; padding does not count.
        channel: (N,) 0 for a mix, else the channel's number from 1.
        valid: (N,) samples that are audio.
    """

    windows: np.ndarray
    start_s: np.ndarray
    end_s: np.ndarray
    channel: np.ndarray
    valid: np.ndarray


@dataclass
class Recording:
    """A recording while it is being processed.

    Attributes:
        source: Where it is.
        size: File size in bytes when it was opened.
        mtime_ns: Its modification time then.
        info: Facts of its header, once it is open.
        metadata: What the recorder noted, if the plan asks for it.
        seconds_read: Audio that was decoded.
        windows_lost: Windows left out because they hold NaN or Inf.
        problems: What went wrong.
    """

    source: Source
    size: int = 0
    mtime_ns: int = 0
    info: AudioInfo | None = None
    metadata: RecordingMetadata | None = None
    seconds_read: float = 0.0
    windows_lost: int = 0
    problems: list[Problem] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Its name in tables."""
        return self.source.name

    @property
    def failed(self) -> bool:
        """Whether it gives nothing."""
        return any(problem.severity == "error" for problem in self.problems)

    def warn(self, cause: str, message: str, windows_lost: int = 0) -> None:
        """Note that it gives less than it should."""
        self.problems.append(Problem(self.name, "warning", cause, message, windows_lost))

    def fail(self, cause: str, message: str) -> None:
        """Note that it gives nothing."""
        self.problems.append(Problem(self.name, "error", cause, message))


class NonFiniteRuns:
    """Where a signal holds NaN or Inf, so that windows touching such samples can be left out.

    The samples themselves are replaced by zeros before resampling; otherwise one NaN would spread over
    everything after it.

    Args:
        channels: Number of channels.
    """

    def __init__(self, channels: int) -> None:
        self._starts = [np.empty(0, np.int64) for _ in range(channels)]
        self._ends = [np.empty(0, np.int64) for _ in range(channels)]
        self._position = 0

    def clean(self, block: np.ndarray) -> np.ndarray:
        """Return (n, channels) with non-finite samples replaced by zero, and remember where they were."""
        offset = self._position
        self._position += len(block)
        if np.isfinite(block.sum(dtype=np.float64)):
            return block
        bad = ~np.isfinite(block)
        for channel in range(block.shape[1]):
            edges = np.flatnonzero(np.diff(bad[:, channel], prepend=False, append=False)) + offset
            self._starts[channel] = np.concatenate([self._starts[channel], edges[::2]])
            self._ends[channel] = np.concatenate([self._ends[channel], edges[1::2]])
        return np.where(bad, np.float32(0), block)

    def touched(self, channel: int, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
        """Whether each of the sample ranges [start, stop) holds a non-finite sample of a channel."""
        starts = self._starts[channel]
        if not len(starts):
            return np.zeros(len(start), bool)
        # Runs are disjoint and sorted: the last one that starts before `stop` reaches furthest.
        last = np.searchsorted(starts, stop, side="left") - 1
        return (last >= 0) & (self._ends[channel][np.maximum(last, 0)] > start)

    def forget(self, position: int) -> None:
        """Drop what lies before a sample that no later window reaches back beyond."""
        for channel, ends in enumerate(self._ends):
            if len(ends) and ends[0] <= position:
                keep = ends > position
                self._starts[channel], self._ends[channel] = self._starts[channel][keep], ends[keep]


def read_windows(recording: Recording, plan: ReadPlan) -> Iterator[Chunk]:
    """Decode, mix, resample and window a recording.

    What goes wrong is noted in `recording.problems`. A truncated file gives what decodes; a file that cannot
    be read, or fails in the middle, is marked as failed.

    Yields:
        Chunks in order. `recording.info` is set before the first.
    """
    try:
        recording.size, recording.mtime_ns = file_state(recording.source.path)
        source = recording.source
        with AudioStream(
            source.path, start_s=source.start_s, end_s=source.end_s, block_s=plan.block_seconds
        ) as stream:
            recording.info = stream.info
            if plan.describe is not None:
                recording.metadata = plan.describe(source.path)
            yield from _WindowReader(recording, plan, stream).chunks()
    except AudioError as error:
        recording.fail(error.cause, str(error))


class _WindowReader:
    """The state of reading one recording."""

    def __init__(self, recording: Recording, plan: ReadPlan, stream: AudioStream) -> None:
        self._recording = recording
        self._plan = plan
        self._stream = stream
        self._rate = stream.info.sample_rate
        self._channels = channel_numbers(plan.channel, stream.info.channels)
        self._bad = NonFiniteRuns(len(self._channels))
        self._finished = False

    def chunks(self) -> Iterator[Chunk]:
        plan, count = self._plan, len(self._channels)
        resampler = make_resampler(self._rate, plan.sample_rate, count, plan.resampler)
        windows = plan.windower.stream(plan.sample_rate, count)
        try:
            for block in self._stream.blocks():
                mono = self._bad.clean(select_channels(block, plan.channel))
                yield from self._chunk(windows.push(resampler.push(mono)))
        except TruncatedAudioError as error:
            self._recording.warn(error.cause, str(error))
        self._recording.seconds_read = self._stream.frames_read / self._rate
        self._finished = True
        yield from self._chunk(windows.push(resampler.flush()))
        yield from self._chunk(windows.finish())
        if lost := self._recording.windows_lost:
            self._recording.warn(
                "non_finite_audio",
                f"'{self._recording.name}' holds NaN or infinite samples; windows left out: {lost}.",
                lost,
            )

    def _chunk(self, batch: WindowBatch) -> Iterator[Chunk]:
        if not len(batch.start):
            return
        count, rate = len(self._channels), self._plan.sample_rate
        start = np.repeat(batch.start, count)
        valid = np.repeat(batch.valid, count)
        start_s = self._recording.source.start_s + start / rate
        end_s = self._recording.source.start_s + (start + valid) / rate
        if self._finished:
            # Resampling rounds the length up to a whole sample: never claim more than the file has.
            end_s = np.minimum(end_s, self._recording.source.start_s + self._recording.seconds_read)
        chunk = Chunk(
            batch.samples.reshape(len(start), -1),
            start_s,
            end_s,
            np.tile(np.asarray(self._channels, np.int16), len(batch.start)),
            valid,
        )
        yield self._without_non_finite(chunk, start, start + valid)

    def _without_non_finite(self, chunk: Chunk, start: np.ndarray, stop: np.ndarray) -> Chunk:
        count = len(self._channels)
        ratio = self._rate / self._plan.sample_rate
        first, last = np.floor(start * ratio).astype(np.int64), np.ceil(stop * ratio).astype(np.int64)
        bad = np.zeros(len(start), bool)
        for channel in range(count):
            rows = slice(channel, None, count)
            bad[rows] = self._bad.touched(channel, first[rows], last[rows])
        self._bad.forget(int(first[-1]))
        if not bad.any():
            return chunk
        self._recording.windows_lost += int(bad.sum())
        keep = ~bad
        return Chunk(
            chunk.windows[keep],
            chunk.start_s[keep],
            chunk.end_s[keep],
            chunk.channel[keep],
            chunk.valid[keep],
        )
