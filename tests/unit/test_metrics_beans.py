"""Mean average precision: both definitions of it, against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from avex._core.errors import ConfigError
from avex.metrics import beans_map, class_average_precision


def tables(n=40, c=5, seed=0):
    rng = np.random.default_rng(seed)
    truth = (rng.random((n, c)) < 0.3).astype(int)
    truth[0] = 1
    return truth, rng.normal(size=(n, c))


def test_with_positives_everywhere_both_are_that_of_scikit_learn():
    truth, scores = tables()
    expected = average_precision_score(truth, scores, average="macro")
    assert beans_map(truth, scores)[0] == pytest.approx(expected)
    assert beans_map(truth, scores, empty_classes="skip")[0] == pytest.approx(expected)


def test_a_class_without_positives_counts_as_zero_or_not_at_all():
    truth, scores = tables()
    truth[:, 2] = 0
    rest = [0, 1, 3, 4]
    expected = average_precision_score(truth[:, rest], scores[:, rest], average="macro")
    assert beans_map(truth, scores)[0] == pytest.approx(expected * 4 / 5)
    assert beans_map(truth, scores, empty_classes="skip")[0] == pytest.approx(expected)
    assert np.isnan(class_average_precision(truth, scores)[0, 2])


def test_weights_are_repetitions():
    truth, scores = tables(12)
    counts = np.random.default_rng(1).integers(0, 3, size=12)
    counts[0] = 1
    repeated = np.repeat(np.arange(12), counts)
    assert beans_map(truth, scores, counts[None])[0] == pytest.approx(
        beans_map(truth[repeated], scores[repeated])[0]
    )


def test_no_positives_at_all():
    assert beans_map([[0, 0]], [[0.1, 0.2]])[0] == 0
    assert np.isnan(beans_map([[0, 0]], [[0.1, 0.2]], empty_classes="skip")[0])


def test_wrong_shapes_and_words_are_said():
    with pytest.raises(ConfigError, match=r"\(N, C\) for both"):
        beans_map([0, 1], [0.1, 0.2])
    with pytest.raises(ConfigError, match="Choose 'zero'"):
        beans_map([[1]], [[1.0]], empty_classes="nan")
