"""One run over recordings: detections in memory, or as tables in a folder that a later run goes on with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from avex._core.errors import AudioError
from avex.detection.detector import DetectionSink, Detector
from avex.detection.journal import Key, PredictionJournal
from avex.detection.records import Detection, RecordingDetections
from avex.detection.table_names import table_names
from avex.detection.tables import FORMATS, table_name, write_combined, write_recording_tables
from avex.embedding.engines import Engine
from avex.embedding.pipeline import Pipeline, RunStats
from avex.embedding.problems import Problem, ProblemLog
from avex.embedding.reading import ReadPlan, Recording
from avex.embedding.sources import Source, file_state


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


@dataclass
class PredictionRun:
    """One call of `predict`."""

    engine: Engine
    plan: ReadPlan
    detector: Detector
    settings: Mapping[str, Any]
    fail_fast: bool
    on_progress: Callable[[RunStats], None] | None

    def in_memory(self, sources: Sequence[Source], errors_csv: str | Path | None) -> Predictions:
        """Detect in all recordings and keep what is found."""
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
        """Detect in the recordings that the journal does not know as they are, and write the tables of all."""
        model_name = self.engine.info.card
        tables = table_names(sources, journal.tables())
        files: list[Path] = []

        def write(name: str, result: RecordingDetections) -> None:
            out_dir, stem = (folder / tables[name]).parent, Path(tables[name]).name
            files.extend(
                write_recording_tables(result, out_dir, formats, model_name, stem, run=self.settings)
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
            run=self.settings,
        )

    def _pipeline(
        self, keep: Callable[[Recording, RecordingDetections], None], problems: ProblemLog, stats: RunStats
    ) -> Pipeline:
        return Pipeline(
            self.engine,
            self.plan,
            DetectionSink(self.detector, keep),
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
