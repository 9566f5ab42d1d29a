"""Events in long recordings to labelled windows, as detectors are trained and judged on."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from avex._core.errors import ConfigError
from avex.data.clips import Clip
from avex.data.columns import cell_text


class Event(Protocol):
    """What a row of a selection table says; `avex.detection.Detection` is one."""

    @property
    def recording(self) -> str:
        """Path of the recording."""
        ...

    @property
    def start_s(self) -> float:
        """Begin in seconds."""
        ...

    @property
    def end_s(self) -> float:
        """End in seconds."""
        ...

    @property
    def label(self) -> str:
        """What was heard."""
        ...


@dataclass(frozen=True, slots=True)
class LabelledEvent:
    """Something was heard in `[start_s, end_s)` of a recording."""

    recording: str
    start_s: float
    end_s: float
    label: str


def window_labels(
    events: Iterable[Event], start_s: float, end_s: float, min_overlap: float = 0.2
) -> tuple[str, ...]:
    """Labels of a window: of the events that overlap it by more than a share of the shorter of the two.

    An event that covers the window always counts, and so does a point in time inside it. For events that last
    this is the rule of BEANS (Hagiwara et al. 2022), where the share is 0.2.

    Args:
        events: Events of the recording.
        start_s: Begin of the window.
        end_s: End of the window.
        min_overlap: Share that the overlap must exceed; 0 takes every event that touches the window.

    Example:
        >>> events = [LabelledEvent("a.wav", 1.9, 4.0, "wren"), LabelledEvent("a.wav", 0.0, 1.0, "robin")]
        >>> window_labels(events, 0.0, 2.0)
        ('robin',)
    """
    found = [event.label for event in events if _counts(event, start_s, end_s, min_overlap)]
    return tuple(dict.fromkeys(found))


def _counts(event: Event, start_s: float, end_s: float, min_overlap: float) -> bool:
    shorter = min(end_s - start_s, event.end_s - event.start_s)
    if shorter <= 0:
        return start_s <= event.start_s < end_s
    # A quotient, as in the code of BEANS: at exactly the share the two round alike.
    return (min(end_s, event.end_s) - max(start_s, event.start_s)) / shorter > min_overlap


def window_starts(duration_s: float, window_s: float, hop_s: float) -> list[float]:
    """Begins of the whole windows of a recording; one for a recording shorter than a window.

    Example:
        >>> window_starts(5.0, 2.0, 1.5)
        [0.0, 1.5, 3.0]
    """
    # Three windows of 0.1 s in 0.3 s, whatever binary fractions say.
    count = max(1, math.floor((duration_s - window_s) / hop_s + 1e-9) + 1)
    return [index * hop_s for index in range(count)]


def windows_from_events(
    events: Iterable[Event],
    durations: Mapping[str, float] | Callable[[str], float] | None = None,
    *,
    window_s: float,
    hop_s: float | None = None,
    min_overlap: float = 0.2,
    root: Path | None = None,
    extra: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Clip]:
    """Cut annotated recordings into windows with the labels of the events in them.

    Windows without events have no labels: that nothing calls is knowledge too. Read tables of Raven, Audacity and
    others with `avex.detection.read_table`.

    Args:
        events: Events of any number of recordings.
        durations: Length of each recording in seconds, by its name, also of recordings without events; or a
            function; None reads the header of each.
        window_s: Length of a window.
        hop_s: Distance of two; None is the length.
        min_overlap: See `window_labels`.
        root: Folder that relative paths start from.
        extra: Further columns of the clips of each recording; `split`, `fold` and `group` become those of the
            clip.

    Raises:
        ConfigError: A length is impossible, or an event begins after the end of its recording.

    Example:
        >>> events = [LabelledEvent("a.wav", 1.0, 2.0, "wren")]
        >>> [clip.labels for clip in windows_from_events(events, {"a.wav": 6.0}, window_s=3.0)]
        [('wren',), ()]
    """
    hop = window_s if hop_s is None else hop_s
    if not (0 < window_s < math.inf and 0 < hop < math.inf and 0 <= min_overlap < 1):
        raise ConfigError(
            f"Windows of {window_s!r} s every {hop!r} s with min_overlap {min_overlap!r} are impossible. Expected "
            "positive seconds and a share from 0 to below 1."
        )
    by_recording: dict[str, list[Event]] = defaultdict(list)
    if isinstance(durations, Mapping):
        by_recording.update({name: [] for name in durations})
    for event in events:
        by_recording[event.recording].append(event)
    length_of = _length(durations, root)
    clips: list[Clip] = []
    for name, found in by_recording.items():
        duration = length_of(name)
        _check(name, found, duration)
        path = Path(name) if root is None else root / name
        columns = dict((extra or {}).get(name, {}))
        own: dict[str, Any] = {
            key: cell_text(columns.pop(key)) or None for key in ("split", "fold", "group") if key in columns
        }
        starts = window_starts(duration, window_s, hop)
        for start, near in zip(starts, _near(found, len(starts), window_s, hop), strict=True):
            labels = window_labels(near, start, start + window_s, min_overlap)
            clips.append(Clip(path, start, start + window_s, labels, extra=columns, **own))
    return clips


def _near(events: Sequence[Event], count: int, window_s: float, hop_s: float) -> list[list[Event]]:
    """For each window the events that may touch it, in order; a day has too many to ask every window for each."""
    near: list[list[Event]] = [[] for _ in range(count)]
    for event in events:
        first = max(0, math.floor((event.start_s - window_s) / hop_s))
        for window in near[first : math.floor(event.end_s / hop_s) + 2]:
            window.append(event)
    return near


def _check(name: str, events: Sequence[Event], duration: float) -> None:
    for event in events:
        if event.start_s > duration:
            raise ConfigError(
                f"The event '{event.label}' begins at {event.start_s:g} s, but '{name}' lasts {duration:g} s. "
                "Are the times of this table cumulative over several files?"
            )


def _length(
    durations: Mapping[str, float] | Callable[[str], float] | None, root: Path | None
) -> Callable[[str], float]:
    if callable(durations):
        return durations
    known: Mapping[str, float] = durations or {}

    def length(name: str) -> float:
        if name in known:
            return known[name]
        from avex.audio import info

        return info(Path(name) if root is None else root / name).duration_s

    return length
