"""How often each species was detected, over a whole run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from avex.detection.records import RecordingDetections


@dataclass(frozen=True, slots=True)
class SpeciesSummary:
    """One line of the summary.

    Attributes:
        label: Class name.
        scientific_name: Scientific name, or empty.
        common_name: Common name, or empty.
        detections: Number of detections.
        recordings: Number of recordings with at least one.
        max_confidence: Highest confidence of all.
    """

    label: str
    scientific_name: str
    common_name: str
    detections: int
    recordings: int
    max_confidence: float


def summarise(recordings: Iterable[RecordingDetections]) -> list[SpeciesSummary]:
    """Count detections per label; one pass, memory grows with the number of labels only.

    Args:
        recordings: Each recording once.

    Returns:
        The most detected first; ties by label.

    Example:
        >>> from avex.detection.records import Detection
        >>> heard = (Detection("a.wav", 0.0, 3.0, "wren", 0.9), Detection("a.wav", 3.0, 6.0, "wren", 0.5))
        >>> line = summarise([RecordingDetections("a.wav", 60.0, 48_000, 1, heard)])[0]
        >>> (line.label, line.detections, line.recordings, line.max_confidence)
        ('wren', 2, 1, 0.9)
    """
    tallies: dict[str, _Tally] = {}
    for recording in recordings:
        for detection in recording.detections:
            tally = tallies.setdefault(detection.label, _Tally())
            tally.scientific_name = tally.scientific_name or detection.scientific_name
            tally.common_name = tally.common_name or detection.common_name
            tally.detections += 1
            tally.max_confidence = max(tally.max_confidence, float(detection.confidence))
        for label in {detection.label for detection in recording.detections}:
            tallies[label].recordings += 1
    lines = [
        SpeciesSummary(label, t.scientific_name, t.common_name, t.detections, t.recordings, t.max_confidence)
        for label, t in tallies.items()
    ]
    return sorted(lines, key=lambda line: (-line.detections, line.label))


@dataclass(slots=True)
class _Tally:
    scientific_name: str = ""
    common_name: str = ""
    detections: int = 0
    recordings: int = 0
    max_confidence: float = float("-inf")
