"""Event-based F1: matching by overlap and by collar, as many as possible."""

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avex._core.errors import ConfigError
from avex.metrics import TimedEvent, event_scores


def event(start, end, label="wren", recording="a.wav"):
    return TimedEvent(recording, start, end, label)


def test_overlap_is_intersection_over_union():
    # 0-2 and 1-3 share a third; 0-2 and 0.5-2 three quarters.
    assert event_scores([event(0, 2)], [event(1, 3)]).overall.matched == 0
    assert event_scores([event(0, 2)], [event(1, 3)], min_iou=1 / 3).overall.matched == 1
    assert event_scores([event(0, 2)], [event(0.5, 2)]).overall.matched == 1


def test_neighbours_that_only_touch_do_not_match():
    assert event_scores([event(0, 1)], [event(1, 2)], min_iou=0.01).overall.matched == 0


def test_a_collar_is_for_the_begin_and_the_end():
    true = [event(10, 20)]
    assert (
        event_scores(true, [event(10.2, 21.9)], collar_s=0.2).overall.matched == 1
    )  # a fifth of ten seconds
    assert event_scores(true, [event(10.3, 20)], collar_s=0.2).overall.matched == 0
    assert event_scores(true, [event(10, 22.1)], collar_s=0.2).overall.matched == 0
    assert event_scores([event(0, 0.5)], [event(0.1, 0.65)], collar_s=0.2).overall.matched == 1


def test_other_classes_and_other_recordings_do_not_match():
    true = [event(0, 1), event(0, 1, "robin"), event(0, 1, recording="b.wav")]
    assert event_scores(true, [event(0, 1, "robin", "b.wav")]).overall.matched == 0


def test_counts_and_means():
    true = [event(0, 1), event(2, 3), event(0, 1, "robin")]
    found = event_scores(true, [event(0, 1), event(7, 8), event(9, 10, "owl")])
    assert found.per_class["wren"].precision == 0.5
    assert found.per_class["wren"].recall == 0.5
    assert math.isnan(found.per_class["owl"].recall)
    assert math.isnan(found.per_class["robin"].precision)
    assert found.micro_f1 == pytest.approx(2 * 1 / 6)
    assert found.macro_f1 == pytest.approx((0.5 + 0 + 0) / 3)


def test_a_greedy_match_would_lose_one():
    # The first true event overlaps both; it must leave the first prediction to the second one.
    true = [event(0, 4), event(0, 2.2)]
    found = [event(0.3, 2.8), event(1.5, 4)]
    assert event_scores(true, found).overall.matched == 2


def test_nothing_at_all():
    assert math.isnan(event_scores([], []).micro_f1)
    assert math.isnan(event_scores([], []).macro_f1)
    assert event_scores([event(0, 1)], []).micro_f1 == 0


def test_wrong_settings_are_said():
    with pytest.raises(ConfigError, match="at most 1"):
        event_scores([], [], min_iou=0)
    with pytest.raises(ConfigError, match="not both"):
        event_scores([], [], min_iou=0.3, collar_s=0.1)
    with pytest.raises(ConfigError, match="start_s < end_s"):
        event_scores([event(2, 1)], [])


spans = st.lists(st.tuples(st.integers(0, 8), st.integers(1, 5)), max_size=5)


@settings(deadline=None)
@given(spans, spans)
def test_no_assignment_matches_more(first, second):
    true, found = ([event(s, s + n) for s, n in part] for part in (first, second))

    def fits(a, b):
        shared = min(a.end_s, b.end_s) - max(a.start_s, b.start_s)
        return shared > 0 and shared >= 0.5 * (max(a.end_s, b.end_s) - min(a.start_s, b.start_s))

    few, many = sorted((true, found), key=len)
    best = max(
        sum(fits(a, b) for a, b in zip(few, order, strict=True))
        for order in itertools.permutations(many, len(few))
    )
    assert event_scores(true, found).overall.matched == best
