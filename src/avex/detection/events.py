"""From detections in windows to events: those that follow one another become one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from avex._core.errors import ConfigError
from avex.detection.records import Detection

_TOUCH_S = 1e-6  # tables print times with this resolution; window edges closer than that touch


def merge_consecutive(
    detections: Iterable[Detection], max_gap_s: float = 0.0, max_windows: int | None = None
) -> list[Detection]:
    """Join detections of the same recording, channel and label that touch, overlap or nearly do.

    The event spans from the first begin to the last end. Its confidence is the maximum of its parts (not a
    mean, so a threshold applied before or after merging keeps the same events), its band their union.

    Args:
        detections: In any order.
        max_gap_s: Largest silence that is bridged, in seconds.
        max_windows: At most so many detections in one event; None for no limit.

    Returns:
        Events, recordings in order of first appearance, inside each by begin, end, label and channel.

    Raises:
        ConfigError: `max_gap_s` is negative or `max_windows` below 1.

    Example:
        >>> parts = [Detection("a.wav", 0, 3, "wren", 0.4), Detection("a.wav", 3, 6, "wren", 0.9)]
        >>> [(event.start_s, event.end_s, event.confidence) for event in merge_consecutive(parts)]
        [(0, 6, 0.9)]
    """
    if not max_gap_s >= 0:
        raise ConfigError(f"max_gap_s is {max_gap_s}. Expected 0 or more seconds.")
    if max_windows is not None and max_windows < 1:
        raise ConfigError(f"max_windows is {max_windows}. Expected 1 or more, or None for no limit.")
    tracks: dict[tuple[str, int, str], list[Detection]] = {}
    place: dict[str, int] = {}
    for detection in detections:
        place.setdefault(detection.recording, len(place))
        tracks.setdefault((detection.recording, detection.channel, detection.label), []).append(detection)
    limit = math.inf if max_windows is None else max_windows
    events = [event for track in tracks.values() for event in _join_track(track, max_gap_s, limit)]
    return sorted(events, key=lambda e: (place[e.recording], e.start_s, e.end_s, e.label, e.channel))


def _join_track(track: list[Detection], max_gap_s: float, limit: float) -> list[Detection]:
    track.sort(key=lambda detection: (detection.start_s, detection.end_s))
    groups: list[list[Detection]] = []
    end_s = -math.inf
    for detection in track:
        if groups and len(groups[-1]) < limit and detection.start_s <= end_s + max_gap_s + _TOUCH_S:
            groups[-1].append(detection)
            end_s = max(end_s, detection.end_s)
        else:
            groups.append([detection])
            end_s = detection.end_s
    return [_event(group) for group in groups]


def _event(parts: Sequence[Detection]) -> Detection:
    # A part without a band may have sounded anywhere, so the union has no band either.
    has_band = all(part.high_hz for part in parts)
    return replace(
        parts[0],
        end_s=max(part.end_s for part in parts),
        confidence=max(part.confidence for part in parts),
        low_hz=min(part.low_hz for part in parts) if has_band else 0.0,
        high_hz=max(part.high_hz for part in parts) if has_band else 0.0,
    )
