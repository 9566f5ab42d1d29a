"""Journey A of the design: decode ‖ window ‖ batch ‖ encode ‖ store, in order and in constant memory.

Reader threads decode recordings ahead, each into its own short queue. One thread collects windows into
batches that fill across recordings and hands them to encoder threads; results are delivered to a sink strictly
in the order of the recordings, so that what is stored does not depend on timing.
"""

from __future__ import annotations

import errno
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from avex._core.errors import AvexError, ConfigError, PartialFailureError
from avex.embedding.engines.base import Engine, EngineOutput
from avex.embedding.problems import ProblemLog
from avex.embedding.reading import Chunk, ReadPlan, Recording, read_windows
from avex.embedding.sources import Source

_QUEUE_CHUNKS = 2
_POLL_SECONDS = 0.2
# Recordings that may wait for an incomplete batch.
_MAX_WAITING = 64
# Errors of an output that the next recording would meet as well.
_FATAL_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG, errno.EMFILE, errno.ENFILE}


@dataclass(frozen=True)
class Rows:
    """Results of consecutive windows of one recording; arrays of equal length N.

    Attributes:
        start_s: Seconds from the start of the file.
        end_s: End of the audio in the window.
        channel: 0 for a mix, else from 1.
        embedding: (N, D) float32.
        logits: (N, C) float32, or None for a model without classifier.
    """

    start_s: np.ndarray
    end_s: np.ndarray
    channel: np.ndarray
    embedding: np.ndarray
    logits: np.ndarray | None

    def filter(self, keep: np.ndarray) -> Rows:
        """The rows where `keep` (N,) is true."""
        logits = None if self.logits is None else self.logits[keep]
        return Rows(self.start_s[keep], self.end_s[keep], self.channel[keep], self.embedding[keep], logits)


class Sink(Protocol):
    """Where results go. Calls come from one thread; recordings do not interleave."""

    def append(self, recording: Recording, rows: Rows) -> None:
        """Take results of a recording."""
        ...

    def commit(self, recording: Recording) -> None:
        """All results of the recording were appended."""
        ...

    def rollback(self, recording: Recording) -> None:
        """The recording failed: forget what was appended."""
        ...


@dataclass
class RunStats:
    """Counts of a run, for progress and for the final summary.

    Attributes:
        recordings: How many were asked for.
        skipped: Done by an earlier run.
        done: Completed by this run.
        failed: Gave nothing.
        windows: Windows encoded and kept.
        audio_s: Seconds of audio processed.
        elapsed_s: Seconds since the start.
    """

    recordings: int = 0
    skipped: int = 0
    done: int = 0
    failed: int = 0
    windows: int = 0
    audio_s: float = 0.0
    started: float = field(default_factory=time.perf_counter)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self.started

    @property
    def realtime_factor(self) -> float:
        """Seconds of audio per second of work."""
        return self.audio_s / max(self.elapsed_s, 1e-9)

    @property
    def windows_per_second(self) -> float:
        """Windows per second of work."""
        return self.windows / max(self.elapsed_s, 1e-9)


class _Feed:
    """One recording being read ahead by a reader thread."""

    def __init__(self, source: Source, stop: threading.Event) -> None:
        self.recording = Recording(source)
        self._queue: queue.Queue[Chunk | ConfigError | None] = queue.Queue(_QUEUE_CHUNKS)
        self._stop = stop

    def read(self, plan: ReadPlan) -> None:
        """Fill the queue; runs in a reader thread."""
        try:
            for chunk in read_windows(self.recording, plan):
                if not self._put(chunk):
                    return
            self._put(None)
        except ConfigError as error:
            self._put(error)  # true of every recording: it ends the run
        except Exception as error:  # noqa: BLE001 - one recording must not end the run; it is reported
            self.recording.fail("internal_error", f"{type(error).__name__}: {error}")
            self._put(None)

    def _put(self, item: Chunk | ConfigError | None) -> bool:
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=_POLL_SECONDS)
            except queue.Full:
                continue
            return True
        return False

    def chunks(self) -> Iterator[Chunk]:
        while (item := self._queue.get()) is not None:
            if isinstance(item, ConfigError):
                raise item
            yield item


@dataclass
class _Job:
    """A batch on its way: which rows belong to which recording, and which recordings end with it."""

    future: Future[EngineOutput] | None = None
    parts: list[tuple[Recording, Chunk, slice]] = field(default_factory=list)
    ended_after: list[tuple[int, Recording]] = field(
        default_factory=list
    )  # (parts before the end, recording)


class Pipeline:
    """Runs an engine over recordings.

    Args:
        engine: The model.
        plan: How recordings become windows.
        sink: Where results go.
        problems: Where problems go.
        readers: Reader threads.
        fail_fast: Raise at the first recording that fails.
        on_progress: Called with the counts after each batch.
        stats: Counts to add to; None begins at zero.

    Example:
        >>> pipeline = Pipeline(engine, plan, sink, ProblemLog(None))        # doctest: +SKIP
        >>> stats = pipeline.run(discover("recordings"))
    """

    def __init__(
        self,
        engine: Engine,
        plan: ReadPlan,
        sink: Sink,
        problems: ProblemLog,
        *,
        readers: int = 2,
        fail_fast: bool = False,
        on_progress: Callable[[RunStats], None] | None = None,
        stats: RunStats | None = None,
    ) -> None:
        self._engine = engine
        self._plan = plan
        self._sink = sink
        self._problems = problems
        self._readers = readers
        self._fail_fast = fail_fast
        self._on_progress = on_progress or (lambda stats: None)
        self.stats = stats or RunStats()
        self._hop_s = plan.hop_seconds
        self._stop = threading.Event()
        self._local = threading.local()
        self._jobs: deque[_Job] = deque()
        self._open = _Job()
        self._pending: list[tuple[np.ndarray, np.ndarray]] = []
        self._pending_rows = 0
        self._estimated_s = 0.0

    def run(self, sources: Sequence[Source]) -> RunStats:
        """Process recordings in order.

        Raises:
            PartialFailureError: A recording failed and `fail_fast` is set.
            StoreError: The sink cannot take more; what it committed is kept.
        """
        readers = ThreadPoolExecutor(self._readers, thread_name_prefix="avex-read")
        self._encoders = ThreadPoolExecutor(self._engine.sessions, thread_name_prefix="avex-encode")
        try:
            for feed in self._feeds(sources, readers):
                for chunk in feed.chunks():
                    self._add(feed.recording, chunk)
                self._open.ended_after.append((len(self._open.parts), feed.recording))
                # Failures are reported soon, even if no window comes to fill the batch that is open.
                impatient = feed.recording.failed and self._fail_fast
                if impatient or not self._open.parts or len(self._open.ended_after) >= _MAX_WAITING:
                    self._submit()
            self._submit()
            while self._jobs:
                self._deliver(self._jobs.popleft())
        finally:
            self._stop.set()
            readers.shutdown(wait=True, cancel_futures=True)
            self._encoders.shutdown(wait=True, cancel_futures=True)
        return self.stats

    def _feeds(self, sources: Sequence[Source], pool: ThreadPoolExecutor) -> Iterator[_Feed]:
        """Feeds in order, a few of them being read ahead."""
        waiting: deque[_Feed] = deque()
        upcoming = iter(sources)
        while True:
            while len(waiting) <= self._readers and (source := next(upcoming, None)) is not None:
                feed = _Feed(source, self._stop)
                pool.submit(feed.read, self._plan)
                waiting.append(feed)
            if not waiting:
                return
            yield waiting.popleft()

    def _add(self, recording: Recording, chunk: Chunk) -> None:
        size = self._engine.batch_size
        position, count = 0, len(chunk.windows)
        while position < count:
            take = min(size - self._pending_rows, count - position)
            rows = slice(position, position + take)
            self._open.parts.append((recording, chunk, rows))
            self._pending.append((chunk.windows[rows], chunk.valid[rows]))
            self._pending_rows += take
            position += take
            if self._pending_rows == size:
                self._submit()

    def _submit(self) -> None:
        """Send the open batch to the encoders and wait if enough are on their way."""
        job, self._open = self._open, _Job()
        pending, self._pending, self._pending_rows = self._pending, [], 0
        if pending:
            job.future = self._encoders.submit(self._encode, pending)
        if pending or job.ended_after:
            self._jobs.append(job)
        self._deliver_finished()
        while len(self._jobs) > 2 * self._engine.sessions:
            self._deliver(self._jobs.popleft())

    def _encode(self, pending: list[tuple[np.ndarray, np.ndarray]]) -> EngineOutput:
        session = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = self._engine.session()
        if len(pending) == 1:
            return session.run(*pending[0])
        windows = np.concatenate([windows for windows, _ in pending])
        return session.run(windows, np.concatenate([valid for _, valid in pending]))

    def _deliver_finished(self) -> None:
        while self._jobs and (self._jobs[0].future is None or self._jobs[0].future.done()):
            self._deliver(self._jobs.popleft())

    def _deliver(self, job: _Job) -> None:
        output = job.future.result() if job.future else None
        ends = deque(job.ended_after)
        position = 0
        for index, (recording, chunk, rows) in enumerate(job.parts):
            while ends and ends[0][0] == index:
                self._end(ends.popleft()[1])
            assert output is not None
            count = rows.stop - rows.start
            self._take(recording, chunk, rows, output, slice(position, position + count))
            position += count
        for _, recording in ends:
            self._end(recording)
        self._on_progress(self.stats)

    def _take(
        self, recording: Recording, chunk: Chunk, rows: slice, output: EngineOutput, part: slice
    ) -> None:
        embedding = output.embedding[part]
        logits = None if output.logits is None else output.logits[part]
        results = Rows(chunk.start_s[rows], chunk.end_s[rows], chunk.channel[rows], embedding, logits)
        finite = np.isfinite(embedding).all(1)
        if logits is not None:
            finite &= np.isfinite(logits).all(1)
        if not finite.all():
            lost = int((~finite).sum())
            recording.warn(
                "non_finite_output", f"The model gave NaN or infinite values for {lost} windows.", lost
            )
            results = results.filter(finite)
        self._sink.append(recording, results)
        self.stats.windows += len(results.start_s)
        # Live estimate; `_end` replaces it by the exact length.
        estimate = float(len(np.unique(results.start_s)) * self._hop_s)
        self._estimated_s += estimate
        self.stats.audio_s += estimate

    def _end(self, recording: Recording) -> None:
        self.stats.audio_s += recording.seconds_read - self._estimated_s
        self._estimated_s = 0.0
        # Before the commit: a recording that is done is not looked at again, so its warning must be on the disk.
        known = list(recording.problems)
        for problem in known:
            self._problems.add(problem)
        if not recording.failed:
            self._commit(recording)
        for problem in recording.problems[len(known) :]:
            self._problems.add(problem)
        if recording.failed:
            self.stats.failed += 1
            self._sink.rollback(recording)
            if self._fail_fast:
                raise PartialFailureError(f"Stopped at the first failure: {recording.problems[-1].message}")
            return
        self.stats.done += 1

    def _commit(self, recording: Recording) -> None:
        try:
            self._sink.commit(recording)
        except AvexError:
            raise
        except OSError as error:
            if error.errno in _FATAL_ERRNOS:
                raise
            recording.fail("not_written", f"The results of '{recording.name}' cannot be written: {error}.")
