"""From the logits of windows to the detections of recordings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from avex._core.errors import ConfigError
from avex.detection.events import merge_consecutive
from avex.detection.options import DetectionOptions
from avex.detection.records import Detection, RecordingDetections
from avex.detection.scores import select, sigmoid, softmax
from avex.embedding.engines import Engine
from avex.embedding.pipeline import Rows
from avex.embedding.reading import ReadPlan, Recording
from avex.weights.labels import split_label


class Detector:
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


class DetectionSink:
    """Collects the detections of the current recording and hands them on when it is complete."""

    def __init__(self, detector: Detector, keep: Callable[[Recording, RecordingDetections], None]) -> None:
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
