"""`avex.predict`: recordings in, species detections as selection tables out."""

from __future__ import annotations

import functools
import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from avex._core.errors import AudioError, ConfigError
from avex.audio import RecordingMetadata, read_metadata
from avex.configs import ModelCard, ModelSpec
from avex.detection.events import merge_consecutive
from avex.detection.journal import Key, Mode, PredictionJournal
from avex.detection.records import Detection, RecordingDetections
from avex.detection.scores import select, sigmoid, softmax
from avex.detection.species import SpeciesFilter
from avex.detection.tables import FORMATS, table_name, write_combined, write_recording_tables
from avex.embedding.embed import WindowOptions
from avex.embedding.engines import Engine, load_engine
from avex.embedding.pipeline import Pipeline, Rows, RunStats
from avex.embedding.problems import Problem, ProblemLog
from avex.embedding.reading import ReadPlan, Recording
from avex.embedding.sources import Source, discover, file_state
from avex.weights.labels import split_label


@dataclass(frozen=True)
class DetectionOptions:
    """What counts as a detection.

    Attributes:
        min_conf: Smallest confidence, 0 to 1.
        top_n: At most so many species per window, of those above `min_conf`.
        sensitivity: BirdNET's sensitivity, 0.5 to 1.5; higher finds more weak calls.
        lat: Latitude; with `lon`, only species expected at that place are reported.
        lon: Longitude.
        week: Week 1 to 48 (four a month), or None for the whole year.
        sf_thresh: Smallest probability of occurrence of an expected species.
        species_list: Text file of species, one per line.
        merge_consecutive: Join detections in neighbouring windows: True, or the largest number of windows.
    """

    min_conf: float = 0.25
    top_n: int | None = None
    sensitivity: float = 1.0
    lat: float | None = None
    lon: float | None = None
    week: int | None = None
    sf_thresh: float = 0.03
    species_list: str | Path | None = None
    merge_consecutive: bool | int = False

    def __post_init__(self) -> None:
        if not 0 <= self.min_conf <= 1:
            raise ConfigError(f"The minimum confidence must lie between 0 and 1, not {self.min_conf}.")
        if (self.lat is None) != (self.lon is None):
            raise ConfigError("A place needs both a latitude and a longitude.")
        if self.week is not None and self.lat is None:
            raise ConfigError("A week narrows the species of a place: give --lat and --lon too.")
        if self.species_list is not None and self.lat is not None:
            raise ConfigError("Give either a place or a species list, not both.")

    def allowed(self, labels: Sequence[str]) -> np.ndarray | None:
        """Mask of the classes that may be reported, or None for all.

        Raises:
            ConfigError: The list or the place names no class of the model.
        """
        if self.species_list is not None:
            return SpeciesFilter.from_file(self.species_list).mask(labels)
        if self.lat is None or self.lon is None:
            return None
        return _expected(labels, self.lat, self.lon, self.week, self.sf_thresh)


def _expected(
    labels: Sequence[str], lat: float, lon: float, week: int | None, threshold: float
) -> np.ndarray:
    """Classes of any model whose species BirdNET's geographic model expects at a place."""
    from avex.models.birdnet.geo import expected_species
    from avex.models.utils.registry import load_label_mapping

    known = load_label_mapping("birdnet")
    assert known is not None
    present = expected_species(lat, lon, week, threshold)
    names = {split_label(label)[0] for label, here in zip(known.labels, present, strict=True) if here}
    mask = np.array([split_label(label)[0] in names or label in names for label in labels])
    if not mask.any():
        raise ConfigError(
            "No class of this model is a species expected at that place. The geographic model knows scientific "
            "names; use --species-list for a model with other labels."
        )
    return mask


@dataclass
class Predictions:
    """What a run detected.

    Attributes:
        stats: Counts of the run.
        problems: Recordings that gave nothing, or less than they should.
        files: Tables that were written.
        recordings: Detections of each recording, in order; empty if they were written to a folder (iterate
            over the object instead: it reads them back one by one).
    """

    stats: RunStats
    problems: list[Problem]
    files: list[Path] = field(default_factory=list)
    recordings: list[RecordingDetections] = field(default_factory=list)
    _reread: Callable[[], Iterator[RecordingDetections]] | None = None

    def __iter__(self) -> Iterator[RecordingDetections]:
        return self._reread() if self._reread else iter(self.recordings)

    def detections(self) -> list[Detection]:
        """All detections in one list."""
        return [detection for recording in self for detection in recording.detections]

    def to_pandas(self) -> Any:
        """All detections as a pandas table, one row each.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        from avex._core.optional import require

        pandas = require("pandas", "pandas", "to_pandas()")
        columns = list(Detection.__dataclass_fields__)
        return pandas.DataFrame([asdict(detection) for detection in self.detections()], columns=columns)


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
        ConfigError: A model without labels, an unknown format, or options that contradict each other.
        StoreExistsError: The folder holds results made with other settings.

    Example:
        >>> found = predict("examples/audio/cuckoo_stereo.flac")                # doctest: +SKIP
        >>> [(d.start_s, d.common_name) for d in found.detections()][0]
        (0.0, 'Common Cuckoo')
    """
    options = _options(options, detection)
    _check_formats(formats)
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
    detector = _Detector(engine, plan, options)
    sources = discover(inputs)
    run = _Run(engine, plan, detector, fail_fast, on_progress)
    if output is None:
        return run.in_memory(sources, errors_csv)
    mode: Mode = "overwrite" if overwrite else "resume"
    folder = Path(output)
    with PredictionJournal(folder, detector.settings, mode) as journal:
        result = run.to_folder(
            sources, folder, journal, formats, combined, errors_csv or folder / "errors.csv"
        )
    result._reread = lambda: _read_back(folder, detector.settings, [source.name for source in sources])
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


class _Detector:
    """Turns logits of windows into detections."""

    def __init__(self, engine: Engine, plan: ReadPlan, options: DetectionOptions) -> None:
        if engine.labels is None:
            raise ConfigError(
                f"Model '{engine.info.card}' has no classifier with labels, so it cannot predict. Use one that "
                "`avex list-models` shows with a trained classifier, or state class_mapping_path in its card."
            )
        if engine.info.activation == "softmax" and options.sensitivity != 1.0:
            raise ConfigError(
                f"Sensitivity does not apply to '{engine.info.card}': its classes exclude each other."
            )
        self._labels = engine.labels.labels
        self._names = [split_label(label) for label in self._labels]
        self._options = options
        self._softmax = engine.info.activation == "softmax"
        self._band = engine.info.band_hz
        self._allowed = options.allowed(self._labels)
        self.settings = self._describe(engine, plan)

    def _describe(self, engine: Engine, plan: ReadPlan) -> dict[str, Any]:
        allowed = None if self._allowed is None else [int(i) for i in np.flatnonzero(self._allowed)]
        return {
            "card": engine.info.card,
            "weights_sha256": engine.info.weights_sha256,
            "precision": engine.info.precision,
            "resampler": plan.resampler,
            "window_s": plan.windower.seconds,
            "hop_s": plan.hop_seconds,
            "tail": plan.windower.tail,
            "min_tail_s": plan.windower.min_tail_seconds,
            "channel": str(plan.channel),
            "min_conf": self._options.min_conf,
            "top_n": self._options.top_n,
            "sensitivity": self._options.sensitivity,
            "merge_consecutive": self._options.merge_consecutive,
            "classes": allowed,
        }

    def detect(self, recording: Recording, rows: Rows) -> list[Detection]:
        """Detections in windows of one recording."""
        assert rows.logits is not None
        scores = softmax(rows.logits) if self._softmax else sigmoid(rows.logits, self._options.sensitivity)
        selected = select(
            scores, min_conf=self._options.min_conf, top_n=self._options.top_n, allowed=self._allowed
        )
        return [
            self._detection(recording, rows, int(row), int(label), float(score))
            for row, label, score in zip(*selected, strict=True)
        ]

    def _detection(self, recording: Recording, rows: Rows, row: int, label: int, score: float) -> Detection:
        assert recording.info is not None
        scientific, common = self._names[label]
        nyquist = recording.info.sample_rate / 2
        low, high = self._band or (0.0, nyquist)
        return Detection(
            recording=recording.source.path,
            start_s=float(rows.start_s[row]),
            end_s=float(rows.end_s[row]),
            label=self._labels[label],
            confidence=score,
            scientific_name=scientific,
            common_name=common,
            channel=int(rows.channel[row]),
            low_hz=min(low, nyquist),
            high_hz=min(high, nyquist),
        )

    def finish(self, recording: Recording, detections: list[Detection]) -> RecordingDetections:
        """All detections of a recording, merged if that was asked for."""
        assert recording.info is not None
        merge = self._options.merge_consecutive
        if merge:
            detections = merge_consecutive(detections, max_windows=None if merge is True else int(merge))
        whole = recording.source.start_s == 0 and recording.source.end_s is None
        started = recording.metadata.datetime_utc if recording.metadata else None
        return RecordingDetections(
            recording=recording.source.path,
            duration_s=recording.seconds_read if whole else recording.info.duration_s,
            sample_rate=recording.info.sample_rate,
            channels=recording.info.channels,
            detections=tuple(detections),
            datetime_utc=started.isoformat() if started else None,
        )


def _recorder_notes(path: str, timezone: str | None) -> RecordingMetadata:
    """What the recorder noted, without times of a zone that nobody stated."""
    notes = read_metadata(path, timezone=timezone)
    if timezone is None and "no zone" in notes.source.get("datetime_utc", ""):
        return replace(notes, datetime_utc=None)
    return notes


class _DetectionSink:
    """Collects the detections of the current recording and hands them on when it is complete."""

    def __init__(self, detector: _Detector, keep: Callable[[Recording, RecordingDetections], None]) -> None:
        self._detector = detector
        self._keep = keep
        self._current: list[Detection] = []

    def append(self, recording: Recording, rows: Rows) -> None:
        """See `Sink.append`."""
        self._current.extend(self._detector.detect(recording, rows))

    def commit(self, recording: Recording) -> None:
        """See `Sink.commit`."""
        detections, self._current = self._current, []
        self._keep(recording, self._detector.finish(recording, detections))

    def rollback(self, recording: Recording) -> None:
        """See `Sink.rollback`."""
        self._current = []


@dataclass
class _Run:
    """One call of `predict`."""

    engine: Engine
    plan: ReadPlan
    detector: _Detector
    fail_fast: bool
    on_progress: Callable[[RunStats], None] | None

    def in_memory(self, sources: Sequence[Source], errors_csv: str | Path | None) -> Predictions:
        problems = ProblemLog(errors_csv, again=[source.name for source in sources])
        results: list[RecordingDetections] = []
        stats = RunStats(recordings=len(sources))
        self._pipeline(lambda recording, result: results.append(result), problems, stats).run(sources)
        return Predictions(stats, problems.problems, recordings=results)

    def to_folder(
        self,
        sources: Sequence[Source],
        folder: Path,
        journal: PredictionJournal,
        formats: Sequence[str],
        combined: bool,
        errors_csv: str | Path,
    ) -> Predictions:
        model_name = self.engine.info.card
        tables = table_names(sources, journal.tables())
        files: list[Path] = []

        def write(name: str, result: RecordingDetections) -> None:
            out_dir, stem = (folder / tables[name]).parent, Path(tables[name]).name
            files.extend(
                write_recording_tables(result, out_dir, formats, model_name, stem, run=self.detector.settings)
            )

        def keep(recording: Recording, result: RecordingDetections) -> None:
            # Tables first: a recording in the journal always has its tables.
            write(recording.name, result)
            key = (recording.size, recording.mtime_ns)
            journal.append(recording.name, key, tables[recording.name], result)

        done = journal.done()
        todo = [source for source in sources if not _unchanged(source, done.get(source.name))]
        again = {source.name for source in todo}
        for source in sources:
            if source.name not in again:
                existing = [folder / table_name(tables[source.name], model_name, fmt) for fmt in formats]
                if all(path.exists() for path in existing):
                    files.extend(existing)
                else:
                    write(source.name, journal.read(source.name))  # a new format: the model need not run
        stats = RunStats(recordings=len(sources), skipped=len(sources) - len(todo))
        problems = ProblemLog(errors_csv, again, folder.name)
        self._pipeline(keep, problems, stats).run(todo)
        if combined:
            files += self._combined(sources, folder, journal, formats, model_name)
        return Predictions(stats, problems.problems, files)

    def _combined(
        self,
        sources: Sequence[Source],
        folder: Path,
        journal: PredictionJournal,
        formats: Sequence[str],
        model_name: str,
    ) -> list[Path]:
        done = journal.done()
        by_file: dict[str, list[str]] = {}
        for source in sources:
            if source.name in done:
                by_file.setdefault(source.path, []).append(source.name)
        usable = [name for name in formats if FORMATS[name].combined]
        return write_combined(
            lambda: (_joined([journal.read(name) for name in names]) for names in by_file.values()),
            folder,
            usable,
            model_name=model_name,
            run=self.detector.settings,
        )

    def _pipeline(
        self, keep: Callable[[Recording, RecordingDetections], None], problems: ProblemLog, stats: RunStats
    ) -> Pipeline:
        return Pipeline(
            self.engine,
            self.plan,
            _DetectionSink(self.detector, keep),
            problems,
            fail_fast=self.fail_fast,
            on_progress=self.on_progress,
            stats=stats,
        )


def _joined(parts: Sequence[RecordingDetections]) -> RecordingDetections:
    """Detections in several parts of one file as those of the file."""
    detections = [detection for part in parts for detection in part.detections]
    return replace(parts[0], detections=tuple(sorted(detections, key=lambda detection: detection.start_s)))


def _unchanged(source: Source, key: Key | None) -> bool:
    if key is None:
        return False
    try:
        return file_state(source.path) == key
    except AudioError:
        return True  # gone since: what was detected stays


def table_names(sources: Sequence[Source], known: Mapping[str, str]) -> dict[str, str]:
    """What the tables of each recording are called: its folder mirrored, its file's stem as name.

    Args:
        sources: All recordings of the run.
        known: Names that recordings of this output have already; they keep them, and nobody else gets them.

    Returns:
        `{recording: "folder/stem"}`, all different. Two recordings of a run that differ only in their suffix keep
        it; a name that is taken gets a number.

    Example:
        >>> table_names([Source("in/a.wav"), Source("in/b/a.wav")], {})["in/b/a.wav"]
        'b/a'
    """
    folders = {os.path.dirname(os.path.abspath(source.path)) for source in sources}
    drives = {os.path.splitdrive(folder)[0] for folder in folders}
    root = os.path.commonpath(folders) if len(drives) == 1 else None
    wished = {source.name: _wished(source, root) for source in sources}
    counts = Counter(stem for stem, _ in wished.values())
    # As file systems that ignore case see it; "combined" is the name of the table over all recordings.
    used = {name.casefold() for name in known.values()} | {"combined"}
    names = {}
    for recording, (stem, full) in wished.items():
        if recording in known:
            names[recording] = known[recording]
            continue
        name = stem if counts[stem] == 1 else full
        candidates = itertools.chain([name, full], (f"{full}_{number}" for number in itertools.count(2)))
        names[recording] = next(name for name in candidates if name.casefold() not in used)
        used.add(names[recording].casefold())
    return names


def _wished(source: Source, root: str | None) -> tuple[str, str]:
    """The name without and with the file's suffix, below a folder that mirrors that of the recording."""
    folder = os.path.dirname(os.path.abspath(source.path))
    inside = os.path.relpath(folder, root) if root else folder.replace(os.sep, "_").replace(":", "")
    base = os.path.basename(source.path)
    part = source.name[len(source.path) :]
    names = (os.path.splitext(base)[0] + part, base + part)
    stem, full = (os.path.normpath(os.path.join(inside, name)) for name in names)
    return stem, full
