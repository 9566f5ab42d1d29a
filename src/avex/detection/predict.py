"""`avex.predict`: recordings in, species detections as selection tables out."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from avex._core.errors import ConfigError
from avex.audio import RecordingMetadata, read_metadata
from avex.audio.recorder import parse_zone
from avex.configs import ModelCard, ModelSpec
from avex.detection.detector import Detector
from avex.detection.journal import Mode, PredictionJournal
from avex.detection.options import DetectionOptions
from avex.detection.records import RecordingDetections
from avex.detection.run import PredictionRun, Predictions
from avex.detection.tables import FORMATS
from avex.embedding.embed import WindowOptions
from avex.embedding.engines import Engine, load_engine
from avex.embedding.pipeline import RunStats
from avex.embedding.sources import discover


def predict(
    inputs: str | Path | Iterable[str | Path],
    model: str | Path | ModelSpec | ModelCard | Engine = "birdnet",
    output: str | Path | None = None,
    *,
    formats: Sequence[str] = ("raven",),
    combined: bool = False,
    windows: WindowOptions | None = None,
    options: DetectionOptions | None = None,
    device: str | None = None,
    workers: int | None = None,
    batch_size: int | None = None,
    precision: str = "fp32",
    backend: str | None = None,
    compile: bool = False,
    overwrite: bool = False,
    fail_fast: bool = False,
    errors_csv: str | Path | None = None,
    timezone: str | None = None,
    on_progress: Callable[[RunStats], None] | None = None,
    **detection: Any,
) -> Predictions:
    """Detect species in recordings and write selection tables.

    Args:
        inputs: Files, folders (recursive), globs, or manifests.
        model: A model with a classifier and labels: a name, card, spec or loaded engine.
        output: Folder for the tables; None keeps the detections in memory.
        formats: `raven`, `audacity`, `kaleidoscope`, `csv`, `parquet`, `json`; several at once.
        combined: Also write one table over all recordings of this run in each format that has one.
        windows: How recordings are cut into windows.
        options: What counts as a detection.
        device: `cpu`, `cuda`, ...; None takes the model's.
        workers: Parallel sessions of the model.
        batch_size: Windows per call of the model.
        precision: Arithmetic of the network: `fp32`, `bf16`, `fp16`, or `auto` for the fastest one that keeps
            the embeddings.
        backend: What computes: for BirdNET `native` (default) or `litert`, which needs no torch.
        compile: Compile the network first; pays in long runs.
        overwrite: Replace results in the folder instead of going on with them.
        fail_fast: Raise at the first recording that fails.
        errors_csv: Where problems are listed; None means `errors.csv` in the folder.
        timezone: Zone of recorders that noted local time without saying so (`Europe/Berlin`, `+02:00`). Without
            it, such times are left out of the tables.
        on_progress: Called with the counts of the run after each batch.
        **detection: Fields of `DetectionOptions`, as a short cut (`min_conf=0.5`).

    Returns:
        Detections, counts, problems and the files written.

    Raises:
        ConfigError: A model without labels, an unknown format or zone, or options that contradict each other.
        StoreExistsError: The folder holds results made with other settings.

    Example:
        >>> found = predict("examples/audio/cuckoo_stereo.flac")                # doctest: +SKIP
        >>> [(d.start_s, d.common_name) for d in found.detections()][0]
        (0.0, 'Common Cuckoo')
    """
    options = _options(options, detection)
    _check_formats(formats)
    if timezone is not None:
        parse_zone(timezone)
    engine = (
        model
        if not isinstance(model, (str, Path, ModelSpec, ModelCard))
        else load_engine(
            model,
            device=device,
            workers=workers,
            batch_size=batch_size,
            precision=precision,
            backend=backend,
            compile=compile,
        )
    )
    plan = replace(
        (windows or WindowOptions()).read_plan(engine),
        describe=functools.partial(_recorder_notes, timezone=timezone),
    )
    detector = Detector(engine, plan, options)
    settings = {**detector.settings, "timezone": timezone}  # what the tables depend on
    sources = discover(inputs)
    run = PredictionRun(engine, plan, detector, settings, fail_fast, on_progress)
    if output is None:
        return run.in_memory(sources, errors_csv)
    mode: Mode = "overwrite" if overwrite else "resume"
    folder = Path(output)
    with PredictionJournal(folder, settings, mode) as journal:
        result = run.to_folder(
            sources, folder, journal, formats, combined, errors_csv or folder / "errors.csv"
        )
    result._reread = lambda: _read_back(folder, settings, [source.name for source in sources])
    return result


def _options(options: DetectionOptions | None, fields: dict[str, Any]) -> DetectionOptions:
    unknown = set(fields) - set(DetectionOptions.__dataclass_fields__)
    if unknown:
        raise TypeError(f"predict() takes no argument {', '.join(map(repr, sorted(unknown)))}.")
    if options is not None and fields:
        raise ConfigError("Give detection options either as `options` or one by one, not both.")
    return options or DetectionOptions(**fields)


def _check_formats(formats: Sequence[str]) -> None:
    for name in formats:
        if name not in FORMATS:
            raise ConfigError(f"Unknown format '{name}'. Choose from: {', '.join(FORMATS)}.")


def _read_back(folder: Path, settings: dict[str, Any], names: Sequence[str]) -> Iterator[RecordingDetections]:
    with PredictionJournal(folder, settings, "read") as journal:
        done = journal.done()
        for name in names:
            if name in done:
                yield journal.read(name)


def _recorder_notes(path: str, timezone: str | None) -> RecordingMetadata:
    """What the recorder noted, without times of a zone that nobody stated."""
    notes = read_metadata(path, timezone=timezone)
    if timezone is None and "no zone" in notes.source.get("datetime_utc", ""):
        return replace(notes, datetime_utc=None)
    return notes
