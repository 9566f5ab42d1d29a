"""Retrieval metrics against scikit-learn, definitions written out, and values worked out by hand."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, ndcg_score, roc_auc_score

from avex._core.errors import ConfigError
from avex.metrics import retrieval, retrieval_scores


def some(n=60, d=8, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(classes, size=n)
    return (rng.normal(size=(n, d)) + np.eye(d)[y] * 1.5).astype(np.float32), y


def cosine(a, b):
    a, b = (np.asarray(m, np.float64) for m in (a, b))
    return (a / np.linalg.norm(a, axis=1, keepdims=True)) @ (b / np.linalg.norm(b, axis=1, keepdims=True)).T


def test_each_query_agrees_with_scikit_learn():
    x, y = some()
    found = retrieval_scores(x, y, ks=[1, 5, 10])
    similar = cosine(x, x)
    for row, query in enumerate(found.queries):
        others = np.arange(len(x)) != query
        relevant, scores = (y == y[query])[others], similar[query, others]
        got = {name: values[row] for name, values in found.per_query.items()}
        assert got["roc_auc"] == pytest.approx(roc_auc_score(relevant, scores), abs=1e-6)
        assert got["map"] == pytest.approx(average_precision_score(relevant, scores), abs=1e-6)
        best = np.argsort(-scores)
        for k in (1, 5, 10):
            assert got[f"precision_at_{k}"] == relevant[best[:k]].mean()
            assert got[f"ndcg_at_{k}"] == pytest.approx(ndcg_score([relevant], [scores], k=k), abs=1e-9)


def test_values_worked_out_by_hand():
    # Similarities of the query to the four items: 1, 0.8, 0.6, 0; relevant are the second and the fourth.
    database = np.array([[1, 0], [0.8, 0.6], [0.6, 0.8], [0, 1]])
    found = retrieval_scores([[2.0, 0.0]], [7], database, [1, 7, 1, 7], ks=[2]).mean()
    assert found["roc_auc"] == 0.25  # of the four pairs only (second, third) is in order
    assert found["map"] == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert found["precision_at_1"] == 0
    assert found["precision_at_2"] == 0.5
    assert found["map_at_2"] == pytest.approx((1 / 2) / 2)
    assert found["ndcg_at_2"] == pytest.approx((1 / np.log2(3)) / (1 + 1 / np.log2(3)))


def test_what_is_alike_is_a_tie():
    x = np.ones((6, 3), np.float32)
    found = retrieval_scores(x, [0, 0, 0, 1, 1, 1], ks=[2])
    assert found.per_query["roc_auc"].tolist() == [0.5] * 6
    # Of equals the first in the database come first: query 0 sees 1, 2; query 3 sees 0, 1.
    assert found.per_query["precision_at_2"].tolist() == [1, 1, 1, 0, 0, 0]


def test_queries_with_nothing_to_find_are_left_out_and_counted():
    x, _ = some(5)
    found = retrieval_scores(x, [0, 0, 1, 2, 3])
    assert found.queries.tolist() == [0, 1]
    assert found.skipped == 3
    everything = retrieval_scores(x, [0] * 5)
    assert np.isnan(everything.per_query["roc_auc"]).all()
    assert everything.mean()["precision_at_1"] == 1


def test_several_labels_share_one():
    x = np.eye(3, dtype=np.float32) + 0.1
    found = retrieval_scores(x, [[1, 1, 0], [0, 1, 0], [0, 0, 1]], ks=[1])
    assert found.queries.tolist() == [0, 1]
    assert found.skipped == 1


def test_blocks_and_threads_make_no_difference(monkeypatch):
    x, y = some(90)
    whole = retrieval_scores(x, y, threads=1)
    monkeypatch.setattr(retrieval, "_BLOCK_BYTES", 4 * 90 * 7)
    pieces = retrieval_scores(x, y, threads=3)
    for name, values in whole.per_query.items():
        np.testing.assert_array_equal(values, pieces.per_query[name])


def test_a_sample_of_queries_searches_everything():
    x, y = some(80)
    whole = retrieval_scores(x, y)
    part = retrieval_scores(x, y, max_queries=20, seed=3)
    assert len(part.queries) == 20
    np.testing.assert_allclose(part.per_query["map"], whole.per_query["map"][part.queries], atol=1e-6)


def test_lists_longer_than_the_database_end_with_it():
    found = retrieval_scores([[1.0, 0], [0.9, 0.1], [0, 1]], [0, 0, 1], ks=[10]).mean()
    assert found["precision_at_10"] == 0.5
    assert found["map_at_10"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[1.0, np.nan]], [0]), "NaN or infinite"),
        (([[1.0]], [0, 1]), "2 labels for 1 embeddings"),
        (([[1.0]], [0], [[1.0], [0.5]], [0]), "1 labels for 2 database"),
        (([1.0], [0]), r"Expected \(N, D\)"),
        (([[1.0]], [[2]]), "must be 0 or 1"),
        (([[1.0]], [0], [[1.0]]), "Give both or neither"),
        (([[1.0]], [0], [[1.0, 2.0]], [0]), "the same size of embeddings"),
    ],
)
def test_what_does_not_fit_is_said(arguments, message):
    with pytest.raises(ConfigError, match=message):
        retrieval_scores(*arguments)


def test_cut_offs_must_be_positive():
    with pytest.raises(ConfigError, match=r"cut-offs are \[0\]"):
        retrieval_scores([[1.0]], [0], ks=[0])
