"""`avex.embed`: recordings in, embeddings in a store out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from avex._core.errors import AudioError, ConfigError
from avex._core.version import __version__
from avex.audio import Method, Tail, Windower, parse_channel
from avex.configs import ModelCard, ModelSpec
from avex.embedding.engines import Engine, EngineInfo, load_engine
from avex.embedding.pipeline import Pipeline, Rows, RunStats
from avex.embedding.problems import Problem, ProblemLog
from avex.embedding.reading import ReadPlan, Recording
from avex.embedding.sources import Source, discover, file_state
from avex.embedding.stores import (
    EmbeddingBatch,
    EmbeddingStore,
    MemoryStore,
    ParquetStore,
    RecordingKey,
    StoreHeader,
)


@dataclass(frozen=True)
class WindowOptions:
    """How recordings are cut into windows, as a user states it.

    Attributes:
        window: Length in seconds; None takes the model's.
        overlap: Seconds that neighbouring windows share.
        hop: Seconds from one window to the next, instead of `overlap`.
        tail: What happens to the end: `pad` with zeros, `drop`, or `shift` the last window back.
        min_tail: Ends with less new audio than this many seconds are dropped.
        channel: `mean`, `each`, or a channel's number from 1.
        resampler: `soxr_hq` or `kaiser_best`; None takes the model's.
    """

    window: float | None = None
    overlap: float = 0.0
    hop: float | None = None
    tail: Tail = "pad"
    min_tail: float = 0.0
    channel: str | int = "mean"
    resampler: Method | None = None

    def read_plan(self, engine: Engine) -> ReadPlan:
        """Fit the options to a model.

        Raises:
            ConfigError: They contradict each other or the model.
            UnknownNameError: There is no such resampler.
        """
        info = engine.info
        seconds = self.window if self.window is not None else info.window_seconds
        if seconds is None:
            raise ConfigError(
                f"Model '{info.card}' takes any length. State the length of a window, e.g. --window 5."
            )
        if info.fixed_window and seconds != info.window_seconds:
            raise ConfigError(
                f"Model '{info.card}' takes windows of {info.window_seconds:g} s only, not {seconds:g} s."
            )
        if self.hop is not None and self.overlap:
            raise ConfigError("Give either an overlap or a hop, not both.")
        if not 0 <= self.overlap < seconds:
            raise ConfigError(
                f"The overlap must be at least 0 and less than the window of {seconds:g} s, not {self.overlap:g}."
            )
        # Rounded, so that an overlap of 2.9 s and a hop of 0.1 s are the same setting.
        hop = self.hop if self.hop is not None else round(seconds - self.overlap, 9)
        windower = Windower(seconds, hop, self.tail, self.min_tail)
        windower.window_samples(info.sample_rate)  # raises if the grid of samples is too coarse for them
        windower.hop_samples(info.sample_rate)
        return ReadPlan(
            sample_rate=info.sample_rate,
            windower=windower,
            channel=parse_channel(self.channel),
            resampler=self.resampler or info.resampler,
        )


@dataclass
class RunReport:
    """What happened in a run: counts, and what went wrong with single recordings."""

    stats: RunStats = field(default_factory=RunStats)
    problems: list[Problem] = field(default_factory=list)


class StoreSink:
    """Hands results of the pipeline to an embedding store."""

    def __init__(self, store: EmbeddingStore) -> None:
        self._store = store

    def append(self, recording: Recording, rows: Rows) -> None:
        """See `Sink.append`."""
        if self._store.header.dtype == "float16":
            fits = (np.abs(rows.embedding) <= np.finfo(np.float16).max).all(1)
            if lost := int((~fits).sum()):
                recording.warn(
                    "float16_overflow",
                    f"Embeddings of '{recording.name}' ({lost}) are too large for float16 and were left out.",
                    lost,
                )
                rows = rows.filter(fits)
        self._store.append(
            EmbeddingBatch(recording.name, rows.start_s, rows.end_s, rows.channel, rows.embedding)
        )

    def commit(self, recording: Recording) -> None:
        """See `Sink.commit`."""
        self._store.commit(RecordingKey(recording.name, recording.size, recording.mtime_ns))

    def rollback(self, recording: Recording) -> None:
        """See `Sink.rollback`."""
        self._store.rollback()


def embed(
    inputs: str | Path | Iterable[str | Path],
    model: str | Path | ModelSpec | ModelCard | Engine = "birdnet",
    output: str | Path | None = None,
    *,
    windows: WindowOptions | None = None,
    overlap: float = 0.0,
    dtype: Literal["float32", "float16"] = "float32",
    precision: str = "fp32",
    layers: Sequence[str | int] = ("last_layer",),
    aggregation: str = "mean",
    device: str | None = None,
    backend: str | None = None,
    compile: bool = False,
    workers: int | None = None,
    batch_size: int | None = None,
    overwrite: bool = False,
    fail_fast: bool = False,
    errors_csv: str | Path | None = None,
    on_progress: Callable[[RunStats], None] | None = None,
    report: RunReport | None = None,
) -> EmbeddingStore:
    """Embed recordings, window by window.

    Memory does not grow with the length or number of recordings when `output` is given. A recording that
    cannot be read is reported and left out; a run that was interrupted goes on where it stopped.

    Args:
        inputs: Files, folders (recursive), globs, or manifests (`.csv`, `.tsv`, `.parquet`, `.jsonl`).
        model: Anything `avex.load_model` takes, or a loaded engine.
        output: A `.parquet` file; None keeps the embeddings in memory.
        windows: All options of windowing; `overlap` is a short cut for the commonest.
        overlap: Seconds that neighbouring windows share.
        dtype: Type in which embeddings are stored.
        precision: Arithmetic of the network: `fp32`, `bf16`, `fp16`, or `auto` for the fastest one that keeps
            the embeddings.
        layers: Layers that make up the embedding.
        aggregation: How their values are pooled.
        device: `cpu`, `cuda`, ...; None takes the model's.
        backend: What computes: for BirdNET `native` (default) or `litert`, which needs no torch.
        compile: Compile the network first; pays in long runs.
        workers: Parallel sessions of the model; None takes one per processor where that helps.
        batch_size: Windows per call of the model.
        overwrite: Replace an existing output instead of going on with it.
        fail_fast: Raise at the first recording that fails.
        errors_csv: Where problems are listed; None means `errors.csv` beside the output.
        on_progress: Called with the counts of the run after each batch.
        report: Filled with the counts and problems of the run.

    Returns:
        The finished store, which stays readable: `.to_numpy()`, `.to_pandas()`, `.scan()`, `.recordings()`.

    Raises:
        ConfigError: No recordings, or options that contradict each other or the model.
        StoreExistsError: The output was made with other settings.
        StoreLockedError: Another process is writing it.
        StoreFullError: The disk is full; everything committed is kept.
        PartialFailureError: A recording failed and `fail_fast` is set.

    Example:
        >>> store = embed("examples/audio", "birdnet", "embeddings.parquet")    # doctest: +SKIP
        >>> store.to_numpy().shape
        (20, 1024)
    """
    engine = _as_engine(
        model,
        device=device,
        workers=workers,
        batch_size=batch_size,
        precision=precision,
        layers=layers,
        aggregation=aggregation,
        backend=backend,
        compile=compile,
        classify=False,
    )
    if windows is None:
        windows = WindowOptions(overlap=overlap)
    elif overlap:
        raise ConfigError("Give the overlap in `windows`, not beside it.")
    plan = windows.read_plan(engine)
    sources = discover(inputs)
    header = make_header(engine, plan, dtype)
    store: EmbeddingStore
    if output is None:
        store = MemoryStore(header)
    else:
        store = ParquetStore(output, header, mode="overwrite" if overwrite else "resume")
        errors_csv = errors_csv or Path(output).parent / "errors.csv"
    return _run(store, engine, plan, sources, errors_csv, fail_fast, on_progress, report)


def _as_engine(model: str | Path | ModelSpec | ModelCard | Engine, **options: Any) -> Engine:
    return load_engine(model, **options) if isinstance(model, (str, Path, ModelSpec, ModelCard)) else model


def _run(
    store: EmbeddingStore,
    engine: Engine,
    plan: ReadPlan,
    sources: Sequence[Source],
    errors_csv: str | Path | None,
    fail_fast: bool,
    on_progress: Callable[[RunStats], None] | None,
    report: RunReport | None,
) -> EmbeddingStore:
    with store:
        done = store.done()
        todo = [source for source in sources if not _is_done(done.get(source.name), source)]
        stats = RunStats(recordings=len(sources), skipped=len(sources) - len(todo))
        output = store.path.name if isinstance(store, ParquetStore) else ""
        problems = ProblemLog(errors_csv, [source.name for source in todo], output)
        Pipeline(
            engine,
            plan,
            StoreSink(store),
            problems,
            fail_fast=fail_fast,
            on_progress=on_progress,
            stats=stats,
        ).run(todo)
        if isinstance(store, ParquetStore) and not store.done():
            store.suspend()  # nothing came of it: leave no empty table behind
    if report is not None:
        report.stats, report.problems = stats, problems.problems
    return store


def _is_done(known: RecordingKey | None, source: Source) -> bool:
    """Whether the store holds this recording as it is now on disk."""
    if known is None:
        return False
    try:
        size, mtime_ns = file_state(source.path)
    except AudioError:
        return True  # gone since, e.g. moved to an archive: what was embedded stays
    return known == RecordingKey(source.name, size, mtime_ns)


def make_header(engine: Engine, plan: ReadPlan, dtype: str) -> StoreHeader:
    """Everything that determines the numbers in a store."""
    info = engine.info
    return StoreHeader(
        embedding_dim=info.embedding_dim,
        dtype=dtype,
        card=info.card,
        weights_sha256=info.weights_sha256,
        sample_rate=plan.sample_rate,
        resampler=plan.resampler,
        window_s=plan.windower.seconds,
        hop_s=plan.hop_seconds,
        tail=plan.windower.tail,
        min_tail_s=plan.windower.min_tail_seconds,
        channel=str(plan.channel),
        layers=list(info.layers),
        pooling=info.aggregation,
        precision=info.precision,
        runtime=info.runtime,
        avex_version=__version__,
        extra=_notes(info),
    )


def _notes(info: EngineInfo) -> dict[str, Any]:
    notes: dict[str, Any] = {"license": info.license} if info.license else {}
    if info.layer_dims:
        notes["layer_dims"] = list(info.layer_dims)
    return notes
