"""Metrics against scikit-learn, and against arithmetic by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avex._core.errors import ConfigError
from avex._core.optional import available
from avex.metrics import average_precision, class_scores, confusion_matrix, roc_auc, score_predictions

needs_sklearn = pytest.mark.skipif(not available("sklearn"), reason="needs the extra 'eval'")


def example(seed, n=80, c=7, *, ties=True, skill=0.4):
    rng = np.random.default_rng(seed)
    y = np.r_[np.arange(c), rng.integers(c, size=n - c)]
    p = rng.dirichlet(np.ones(c), size=n)
    p[np.arange(n), y] += skill
    p /= p.sum(1, keepdims=True)
    return y, np.round(p, 2 if ties else 12)


@needs_sklearn
@pytest.mark.parametrize("seed", range(4))
def test_single_label_metrics_are_those_of_scikit_learn(seed):
    from sklearn import metrics

    y, p = example(seed, ties=False, skill=0.03)  # wrong often enough to miss the first five
    ours = {name: score.value for name, score in score_predictions(y, p, resamples=0).items()}
    assert 0.5 < ours["top5_accuracy"] < 0.95
    guess = p.argmax(1)
    assert ours == pytest.approx(
        {
            "accuracy": metrics.accuracy_score(y, guess),
            "balanced_accuracy": metrics.balanced_accuracy_score(y, guess),
            "macro_f1": metrics.f1_score(y, guess, average="macro"),
            "macro_roc_auc": metrics.roc_auc_score(np.eye(7)[y], p, average="macro"),
            "top5_accuracy": metrics.top_k_accuracy_score(y, p, k=5),
        }
    )


@needs_sklearn
@pytest.mark.parametrize("seed", range(4))
def test_multi_label_metrics_are_those_of_scikit_learn(seed):
    from sklearn import metrics

    rng = np.random.default_rng(seed)
    y = (rng.random((60, 5)) < 0.3).astype(int)
    p = np.round(np.clip(0.3 * y + 0.7 * rng.random((60, 5)), 0, 1), 2)  # with ties
    ours = {name: score.value for name, score in score_predictions(y, p, resamples=0).items()}
    assert ours == pytest.approx(
        {
            "mean_average_precision": metrics.average_precision_score(y, p, average="macro"),
            "macro_roc_auc": metrics.roc_auc_score(y, p, average="macro"),
            "macro_f1": metrics.f1_score(y, p >= 0.5, average="macro"),
            "micro_f1": metrics.f1_score(y, p >= 0.5, average="micro"),
        }
    )


@needs_sklearn
@given(seed=st.integers(0, 10_000), n=st.integers(2, 40), levels=st.integers(1, 6))
@settings(max_examples=60, deadline=None)
def test_ranking_metrics_with_weights_and_ties(seed, n, levels):
    from sklearn import metrics

    rng = np.random.default_rng(seed)
    y, s = rng.random(n) < 0.5, rng.integers(levels, size=n) / levels
    y[0], y[-1] = True, False
    w = rng.integers(0, 4, size=n).astype(float)
    w[0] = w[-1] = 1.0
    assert roc_auc(y, s, w)[0] == pytest.approx(metrics.roc_auc_score(y, s, sample_weight=w))
    assert average_precision(y, s, w)[0] == pytest.approx(
        metrics.average_precision_score(y, s, sample_weight=w)
    )


@given(seed=st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_a_whole_weight_is_a_repeated_example(seed):
    rng = np.random.default_rng(seed)
    y, s, w = rng.random(12) < 0.5, rng.random(12), rng.integers(0, 3, 12)
    y[:2], w[:2] = (True, False), 1
    repeated = np.repeat(np.arange(12), w)
    for metric in (roc_auc, average_precision):
        assert metric(y, s, w)[0] == pytest.approx(metric(y[repeated], s[repeated])[0])


def test_classes_without_examples_are_left_out_and_named():
    y = np.array([[1, 0, 0], [0, 1, 0], [1, 1, 0]])
    scores = score_predictions(
        y, [[0.9, 0.2, 0.1], [0.1, 0.8, 0.3], [0.7, 0.6, 0.2]], classes=["a", "b", "c"]
    )
    assert scores["mean_average_precision"].value == 1.0
    assert scores.left_out == {"mean_average_precision": ("c",), "macro_roc_auc": ("c",)}
    assert scores.primary == "mean_average_precision"


def test_by_hand():
    # Three classes: class 0 twice right, class 1 once right and once taken for 2, class 2 right.
    p = np.eye(3)[[0, 0, 1, 2, 2]]
    scores = score_predictions([0, 0, 1, 1, 2], p, resamples=0)
    assert "top5_accuracy" not in scores, "of three classes all are among the first five"
    assert scores["accuracy"].value == pytest.approx(4 / 5)
    assert scores["balanced_accuracy"].value == pytest.approx((1 + 1 / 2 + 1) / 3)
    assert scores["macro_f1"].value == pytest.approx((1 + 2 / 3 + 2 / 3) / 3)
    assert confusion_matrix([0, 0, 1, 1, 2], [0, 0, 1, 2, 2], 3).tolist() == [[2, 0, 0], [0, 1, 1], [0, 0, 1]]


def test_a_constant_score_finds_no_class_among_the_first_five():
    scores = score_predictions([0, 1], np.full((2, 8), 0.125), resamples=0)
    assert scores["top5_accuracy"].value == 0.0
    assert scores["macro_roc_auc"].value == 0.5


def test_class_scores_without_examples_are_not_zero_but_unknown():
    (newt,) = [c for c in class_scores([[1, 0]], [[1, 0]], ["frog", "newt"]) if c.name == "newt"]
    assert newt.support == newt.predicted == 0
    assert np.isnan([newt.precision, newt.recall, newt.f1]).all()


@pytest.mark.parametrize(
    ("targets", "probabilities", "message"),
    [
        ([0, 1], [[0.5, 0.5]], "do not fit"),
        ([0, 2], [[0.5, 0.5], [0.5, 0.5]], "2 classes"),
        ([0, 1], [[0.5, np.nan], [0.5, 0.5]], "NaN"),
        ([], np.zeros((0, 2)), "at least 1"),
    ],
)
def test_wrong_input_is_refused(targets, probabilities, message):
    with pytest.raises(ConfigError, match=message):
        score_predictions(np.array(targets, int), probabilities)


def test_scores_that_are_not_numbers_have_no_order():
    with pytest.raises(ConfigError, match="no order"):
        roc_auc([0, 1], [np.nan, 1.0])
    with pytest.raises(ConfigError, match="0 to 1"):
        confusion_matrix([0, 3], [0, 1], 2)
