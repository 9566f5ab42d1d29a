"""Bootstrap: groups together, the same with one seed, and intervals as wide as theory says."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avex._core.errors import ConfigError
from avex.metrics import bootstrap_counts, percentile_interval, score_predictions


@given(groups=st.lists(st.integers(0, 5), min_size=1, max_size=30), seed=st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_members_of_a_group_are_drawn_together(groups, seed):
    counts = bootstrap_counts(len(groups), 20, seed=seed, groups=groups)
    for group in set(groups):
        members = counts[:, [g == group for g in groups]]
        assert (members == members[:, :1]).all()
    firsts = [groups.index(group) for group in set(groups)]
    assert (counts[:, firsts].sum(1) == len(firsts)).all()


def test_counts_without_groups_add_up():
    counts = bootstrap_counts(50, 200, seed=1)
    assert (counts.sum(1) == 50).all()
    assert counts.mean() == pytest.approx(1.0)
    assert np.array_equal(counts, bootstrap_counts(50, 200, seed=1))
    assert not np.array_equal(counts, bootstrap_counts(50, 200, seed=2))


def test_the_interval_of_an_accuracy_is_that_of_the_binomial():
    right = np.r_[np.ones(320, int), np.zeros(80, int)]
    p = np.where(right[:, None] == 1, [[0.9, 0.1]], [[0.1, 0.9]])
    score = score_predictions(np.zeros(400, int), p, resamples=4000)["accuracy"]
    half = 1.96 * np.sqrt(0.8 * 0.2 / 400)
    assert score.value == pytest.approx(0.8)
    assert (score.low, score.high) == pytest.approx((0.8 - half, 0.8 + half), abs=0.006)


def test_windows_of_a_recording_do_not_count_as_independent():
    rng = np.random.default_rng(0)
    right = np.repeat(rng.random(40) < 0.7, 10)
    p = np.where(right[:, None], [[0.9, 0.1]], [[0.1, 0.9]])
    y, recordings = np.zeros(400, int), np.repeat(np.arange(40), 10)
    alone = score_predictions(y, p)["accuracy"]
    together = score_predictions(y, p, groups=recordings)["accuracy"]
    # 10 copies of each: the standard error is sqrt(10) times that of independent windows.
    assert (together.high - together.low) / (alone.high - alone.low) == pytest.approx(np.sqrt(10), rel=0.2)


def test_percentiles_leave_nan_out():
    assert percentile_interval(np.array([np.nan, 1.0, 1.0])) == (1.0, 1.0)
    assert np.isnan(percentile_interval(np.array([np.nan]))).all()


@pytest.mark.parametrize("arguments", [(0, 10), (5, 0)])
def test_nothing_to_draw(arguments):
    with pytest.raises(ConfigError, match="at least one"):
        bootstrap_counts(*arguments)
    with pytest.raises(ConfigError, match="groups for"):
        bootstrap_counts(3, 2, groups=["a"])
    with pytest.raises(ConfigError, match="between 0 and 1"):
        percentile_interval(np.ones(3), 95)
