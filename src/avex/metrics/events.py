"""Event-based F1: are sounds found as events, with their begin and end?

A predicted and a true event of one class in one recording can be matched if their times agree, either by overlap
(intersection over union), or by a collar around begin and end (Mesaros, Heittola and Virtanen, 2016). Each event is
matched at most once, so that as many as possible are matched: a maximum matching of a bipartite graph.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from avex._core.errors import ConfigError


class TimedEvent(NamedTuple):
    """A sound in a recording, `[start_s, end_s)`."""

    recording: str
    start_s: float
    end_s: float
    label: str


@dataclass(frozen=True)
class Counts:
    """What was found of a class.

    Attributes:
        matched: Pairs of a true and a predicted event.
        true: True events.
        predicted: Predicted events.
    """

    matched: int
    true: int
    predicted: int

    @property
    def precision(self) -> float:
        """Share of predicted events that are true; NaN without any."""
        return self.matched / self.predicted if self.predicted else float("nan")

    @property
    def recall(self) -> float:
        """Share of true events that were found; NaN without any."""
        return self.matched / self.true if self.true else float("nan")

    @property
    def f1(self) -> float:
        """Harmonic mean of both; NaN if there is neither a true nor a predicted event."""
        total = self.true + self.predicted
        return 2 * self.matched / total if total else float("nan")


@dataclass(frozen=True)
class EventScores:
    """Event-based metrics.

    Attributes:
        per_class: Counts of each class, by name in alphabetical order.
        overall: Counts of all classes together.
    """

    per_class: Mapping[str, Counts]
    overall: Counts

    @property
    def micro_f1(self) -> float:
        """F1 of all events together."""
        return self.overall.f1

    @property
    def macro_f1(self) -> float:
        """Mean F1 over classes that have true or predicted events; NaN without any."""
        values = [counts.f1 for counts in self.per_class.values()]
        return sum(values) / len(values) if values else float("nan")


def event_scores(
    true: Iterable[TimedEvent],
    predicted: Iterable[TimedEvent],
    *,
    min_iou: float | None = 0.5,
    collar_s: float | None = None,
    offset_share: float = 0.2,
) -> EventScores:
    """Match predicted with true events and count.

    Args:
        true: What is there.
        predicted: What was found.
        min_iou: Least intersection over union of a match; None if a collar is given.
        collar_s: Largest difference of begins, in seconds, instead of `min_iou`; ends may differ by as much, or by
            `offset_share` of the length of the true event if that is more.
        offset_share: See there.

    Raises:
        ConfigError: Both rules or neither, values out of range, or an event that ends before it begins.

    Example:
        >>> there = [TimedEvent("a.wav", 0, 2, "wren"), TimedEvent("a.wav", 5, 6, "wren")]
        >>> found = [TimedEvent("a.wav", 0.2, 2, "wren")]
        >>> round(event_scores(there, found).micro_f1, 3)
        0.667
    """
    agree = _rule(min_iou, collar_s, offset_share)
    truth, guess = _grouped(true), _grouped(predicted)
    matched: dict[str, int] = defaultdict(int)
    for key in truth.keys() & guess.keys():
        matched[key[1]] += _maximum_matching(truth[key], guess[key], agree)
    classes = sorted({label for _, label in [*truth, *guess]})
    per_class = {name: Counts(matched[name], _count(truth, name), _count(guess, name)) for name in classes}
    overall = Counts(sum(matched.values()), sum(map(len, truth.values())), sum(map(len, guess.values())))
    return EventScores(per_class, overall)


Groups = dict[tuple[str, str], list[TimedEvent]]
Agree = Callable[[TimedEvent, TimedEvent], bool]


def _rule(min_iou: float | None, collar_s: float | None, offset_share: float) -> Agree:
    if collar_s is not None:
        if min_iou not in (None, 0.5) or collar_s < 0 or offset_share < 0:
            raise ConfigError(
                f"collar_s is {collar_s}, offset_share {offset_share} and min_iou {min_iou}. Expected a "
                "collar of at least 0 s, or an overlap, not both."
            )
        collar = collar_s

        def near(true: TimedEvent, found: TimedEvent) -> bool:
            slack = max(collar, offset_share * (true.end_s - true.start_s))
            return abs(true.start_s - found.start_s) <= collar and abs(true.end_s - found.end_s) <= slack

        return near
    if min_iou is None or not 0 < min_iou <= 1:
        raise ConfigError(f"min_iou is {min_iou}. Expected more than 0 and at most 1, or a collar instead.")
    least = min_iou

    def overlap(true: TimedEvent, found: TimedEvent) -> bool:
        shared = min(true.end_s, found.end_s) - max(true.start_s, found.start_s)
        union = max(true.end_s, found.end_s) - min(true.start_s, found.start_s)
        return shared > 0 and shared >= least * union

    return overlap


def _grouped(events: Iterable[TimedEvent]) -> Groups:
    groups: Groups = defaultdict(list)
    for event in events:
        if not event.start_s < event.end_s:
            raise ConfigError(
                f"An event of '{event.label}' in '{event.recording}' runs from {event.start_s:g} to "
                f"{event.end_s:g} s. Expected start_s < end_s."
            )
        groups[event.recording, event.label].append(event)
    return groups


def _count(groups: Groups, label: str) -> int:
    return sum(len(events) for (_, name), events in groups.items() if name == label)


def _maximum_matching(true: list[TimedEvent], found: list[TimedEvent], agree: Agree) -> int:
    """Size of the largest matching, by augmenting paths (Kuhn, 1955)."""
    edges = [[j for j, guess in enumerate(found) if agree(event, guess)] for event in true]
    owner: dict[int, int] = {}
    return sum(_augment(i, edges, owner, set()) for i in range(len(true)))


def _augment(start: int, edges: list[list[int]], owner: dict[int, int], seen: set[int]) -> bool:
    """Match one more true event, moving others if need be; without recursion, as chains may be long."""
    path: list[tuple[int, int]] = []
    stack = [(start, iter(edges[start]))]
    while stack:
        i, choices = stack[-1]
        step = next((j for j in choices if j not in seen), None)
        if step is None:
            stack.pop()
            if path:
                path.pop()
            continue
        seen.add(step)
        path.append((i, step))
        if step not in owner:
            owner.update({j: event for event, j in path})
            return True
        stack.append((owner[step], iter(edges[owner[step]])))
    return False
