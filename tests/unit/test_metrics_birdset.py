"""The metrics of BirdSet against scikit-learn and by hand."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from avex._core.errors import ConfigError
from avex.metrics import auroc, cmap, top1_accuracy


@pytest.fixture
def tables():
    rng = np.random.default_rng(2)
    truth = (rng.random((50, 6)) < 0.25).astype(int)
    truth[:3] = 1
    truth[:, 5] = 0
    truth[:, 4] = 0
    truth[:2, 4] = 1
    return truth, np.round(rng.random((50, 6)), 2)  # rounded: ties


def test_classes_that_cannot_be_judged_are_left_out(tables):
    truth, scores = tables
    judged = slice(0, 5)
    assert cmap(truth, scores)[0] == pytest.approx(
        average_precision_score(truth[:, judged], scores[:, judged], average="macro")
    )
    assert auroc(truth, scores)[0] == pytest.approx(
        roc_auc_score(truth[:, judged], scores[:, judged], average="macro")
    )


def test_cmap5_leaves_out_rare_classes(tables):
    truth, scores = tables
    for positives, classes in ((4, 4), (5, 5)):
        truth[:, 4] = np.arange(50) < positives
        expected = average_precision_score(truth[:, :classes], scores[:, :classes], average="macro")
        assert cmap(truth, scores, min_positives=5)[0] == pytest.approx(expected)


def test_the_highest_score_must_be_of_a_class_that_is_there():
    truth = [[1, 1, 0], [0, 0, 1], [0, 0, 0], [0, 1, 0]]
    scores = [[0.1, 0.9, 0.3], [0.8, 0.1, 0.7], [0.9, 0.0, 0.0], [0.4, 0.4, 0.1]]
    assert top1_accuracy(truth, scores)[0] == pytest.approx(1 / 3)
    assert top1_accuracy(truth, scores, [[1, 0, 9, 0], [0, 1, 0, 0]]).tolist() == [1, 0]
    assert np.isnan(top1_accuracy([[0, 0]], [[0.1, 0.2]])[0])


def test_shapes_that_do_not_fit_are_said():
    with pytest.raises(ConfigError, match="do not fit"):
        top1_accuracy([[1, 0]], [[0.1]])
