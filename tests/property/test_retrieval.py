"""Retrieval equals its definition, computed pair by pair, on vectors full of ties."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from avex.metrics import retrieval_scores

GRID = 2**20


def brute_force(x, y, database, labels, same, k):
    """(roc_auc, precision@k, map@k) of each query by the definitions; None where nothing is to be found."""
    rows = []
    for q in range(len(x)):
        items = [j for j in range(len(database)) if not (same and j == q)]
        scores = {}
        for j in items:
            a, b = x[q] / np.linalg.norm(x[q]), database[j] / np.linalg.norm(database[j])
            scores[j] = int(np.rint(float(a.astype(np.float32).astype(float) @ b.astype(np.float32)) * GRID))
        positive = [j for j in items if labels[j] == y[q]]
        negative = [j for j in items if labels[j] != y[q]]
        if not positive:
            rows.append(None)
            continue
        wins = sum(
            (scores[p] > scores[n]) + 0.5 * (scores[p] == scores[n]) for p in positive for n in negative
        )
        auc = wins / (len(positive) * len(negative)) if negative else np.nan
        ranked = sorted(items, key=lambda j: (-scores[j], j))[:k]
        hits = [labels[j] == y[q] for j in ranked]
        precisions = [sum(hits[: i + 1]) / (i + 1) for i in range(len(hits)) if hits[i]]
        rows.append((auc, sum(hits) / len(hits), sum(precisions) / min(k, len(positive))))
    return rows


# Small whole numbers: many directions occur twice, and no two are nearer than the grid.
vectors = st.lists(st.tuples(*[st.integers(-2, 2)] * 3).filter(any), min_size=2, max_size=14)


@settings(max_examples=60, deadline=None)
@given(vectors, vectors, st.integers(0, 10**6), st.integers(1, 6), st.booleans())
def test_it_is_what_the_definition_says(first, second, seed, k, same):
    x, database = np.array(first, float), np.array(first if same else second, float)
    rng = np.random.default_rng(seed)
    y = rng.integers(3, size=len(x))
    labels = y if same else rng.integers(3, size=len(database))
    extra = () if same else (database, labels)
    found = retrieval_scores(x, y, *extra, ks=[k])
    expected = brute_force(x, y, database, labels, same, k)
    assert found.queries.tolist() == [q for q, row in enumerate(expected) if row is not None]
    known = np.array([row for row in expected if row is not None]).reshape(-1, 3)
    for column, name in enumerate(("roc_auc", f"precision_at_{k}", f"map_at_{k}")):
        np.testing.assert_allclose(found.per_query[name], known[:, column], atol=1e-12)
