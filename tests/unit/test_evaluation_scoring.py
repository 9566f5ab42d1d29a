"""Metrics by name against scikit-learn, and their intervals."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, balanced_accuracy_score, f1_score, roc_auc_score

from avex._core.errors import UnknownNameError
from avex.evaluation.scoring import canonical_metric, check_metrics, mean_score, score_task
from avex.training.probes.targets import Targets

CLASSES = ("a", "b", "c")


@pytest.fixture
def single():
    rng = np.random.default_rng(0)
    y = rng.integers(3, size=80)
    logits = rng.normal(size=(80, 3)) + 1.5 * np.eye(3)[y]
    return Targets(y, CLASSES), np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


@pytest.fixture
def several():
    rng = np.random.default_rng(1)
    y = (rng.random((80, 3)) < 0.3).astype(np.uint8)
    return Targets(y, CLASSES), rng.random((80, 3)) * 0.5 + 0.3 * y


def test_single_labels_agree_with_scikit_learn(single):
    targets, p = single
    y, guess = targets.values, p.argmax(1)
    found = score_task(
        targets, p, ["balanced_accuracy", "f1_macro", "f1_weighted", "map", "roc_auc"], resamples=0
    )
    assert next(iter(found)) == "balanced_accuracy"
    expected = {
        "accuracy": (y == guess).mean(),
        "balanced_accuracy": balanced_accuracy_score(y, guess),
        "multiclass_f1": f1_score(y, guess, average="macro"),
        "f1_weighted": f1_score(y, guess, average="weighted"),
        "map": average_precision_score(np.eye(3)[y], p, average="macro"),
        "roc_auc": roc_auc_score(y, p, multi_class="ovr"),
    }
    for name, value in expected.items():
        assert found[name].value == pytest.approx(value), name


def test_several_labels_agree_with_scikit_learn(several):
    targets, p = several
    y = targets.values
    found = score_task(targets, p, ["mAP", "cmap", "t1_acc"], resamples=0)
    assert next(iter(found)) == "map"
    assert found["map"].value == pytest.approx(average_precision_score(y, p, average="macro"))
    assert found["cmap"].value == pytest.approx(found["map"].value)
    assert found["roc_auc"].value == pytest.approx(roc_auc_score(y, p, average="macro"))
    assert found["multiclass_f1"].value == pytest.approx(f1_score(y, p >= 0.5, average="macro"))
    there = y.any(1)
    assert found["top1_accuracy"].value == pytest.approx(y[there, p[there].argmax(1)].mean())


def test_binary_f1_is_of_the_second_class():
    targets = Targets(np.array([0, 1, 1, 0, 1]), ("no", "yes"))
    p = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7], [0.1, 0.9]])
    found = score_task(targets, p, ["binary_f1"], resamples=0)
    assert found["binary_f1"].value == pytest.approx(f1_score(targets.values, p.argmax(1)))


def test_intervals_hold_the_value_and_groups_widen_them(single):
    targets, p = single
    alone = score_task(targets, p, ["accuracy", "map"], resamples=400)
    for score in (alone["accuracy"], alone["map"]):
        assert score.low < score.value < score.high
    twice = Targets(np.repeat(targets.values, 4), CLASSES)
    copies = score_task(twice, np.repeat(p, 4, axis=0), ["accuracy"], resamples=400)
    grouped = score_task(
        twice, np.repeat(p, 4, axis=0), ["accuracy"], resamples=400, groups=[str(i // 4) for i in range(320)]
    )

    def width(score):
        return score.high - score.low

    # Four copies of a clip are one piece of evidence: only groups keep the interval as wide as it was.
    assert width(copies["accuracy"]) < 0.7 * width(alone["accuracy"])
    assert width(grouped["accuracy"]) == pytest.approx(width(alone["accuracy"]), rel=0.25)


def test_a_mean_leaves_nan_out():
    score = mean_score(np.array([0.0, 1.0, np.nan]), ["a", "a", "b"], 50, 0)
    assert (score.value, score.low, score.high) == (0.5, 0.5, 0.5)  # one group is left
    assert np.isnan(mean_score(np.array([np.nan]), None, 50, 0).value)


def test_names_are_checked(single):
    assert canonical_metric("clustering_ari") == "clustering_ari"
    with pytest.raises(UnknownNameError, match="Did you mean 'accuracy'"):
        canonical_metric("acuracy")
    with pytest.raises(UnknownNameError, match="'micro_f1' is not one of a single-label"):
        score_task(*single, ["micro_f1"], resamples=0)
    with pytest.raises(UnknownNameError, match="'accuracy' is not one of a multi-label"):
        check_metrics(["accuracy"], True, 3)
    check_metrics(["accuracy", "top5_accuracy"], False, 6)
