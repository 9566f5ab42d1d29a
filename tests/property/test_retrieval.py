"""Retrieval equals its definition, computed pair by pair, on vectors full of ties."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from avex.metrics import retrieval_scores
from avex.metrics.counting import KeyHistogram

GRID = 2**20


def keys_of(x, database):
    """(N, M) similarities on the grid, by double precision."""
    unit = [
        (m / np.linalg.norm(m, axis=1, keepdims=True)).astype(np.float32).astype(float) for m in (x, database)
    ]
    return np.rint(unit[0] @ unit[1].T * GRID).astype(int)


def brute_force(keys, shares, same, k):
    """(roc_auc, map, precision@k, map@k, ndcg@k) of each query by the definitions; None where there is nothing."""
    rows = []
    for q in range(len(keys)):
        items = [j for j in range(keys.shape[1]) if not (same and j == q)]
        positive = [j for j in items if shares[q, j]]
        negative = [j for j in items if not shares[q, j]]
        if not positive:
            rows.append(None)
            continue
        wins = sum(
            (keys[q, p] > keys[q, n]) + 0.5 * (keys[q, p] == keys[q, n]) for p in positive for n in negative
        )
        auc = wins / (len(positive) * len(negative)) if negative else np.nan
        shown = [[j for j in items if keys[q, j] >= keys[q, p]] for p in positive]
        average = np.mean([np.mean([shares[q, j] for j in seen]) for seen in shown])
        ranked = sorted(items, key=lambda j: (-keys[q, j], j))[:k]
        hits = [bool(shares[q, j]) for j in ranked]
        precisions = [sum(hits[: i + 1]) / (i + 1) for i in range(len(hits)) if hits[i]]
        best = min(k, len(positive))
        gains = [1 / np.log2(i + 2) for i in range(k)]
        ndcg = sum(gain for gain, hit in zip(gains, hits, strict=False) if hit) / sum(gains[:best])
        rows.append((auc, average, sum(hits) / len(hits), sum(precisions) / best, ndcg))
    return rows


# Small whole numbers: many directions occur twice, and no two are nearer than the grid.
vectors = st.lists(st.tuples(*[st.integers(-2, 2)] * 3).filter(any), min_size=2, max_size=14)


@settings(max_examples=80, deadline=None)
@given(vectors, vectors, st.integers(0, 10**6), st.integers(1, 6), st.booleans(), st.booleans())
@example([(1, 0, 0)] * 5, [(1, 0, 0)] * 3, 0, 2, True, False)
def test_it_is_what_the_definition_says(first, second, seed, k, same, several):
    x, database = np.array(first, float), np.array(first if same else second, float)
    rng = np.random.default_rng(seed)
    size = (3,) if several else ()
    y = rng.integers(2 if several else 3, size=(len(x), *size))
    labels = y if same else rng.integers(2 if several else 3, size=(len(database), *size))
    shares = (y @ labels.T > 0) if several else y[:, None] == labels
    found = retrieval_scores(x, y, *(() if same else (database, labels)), ks=[k])
    expected = brute_force(keys_of(x, database), shares, same, k)
    assert found.queries.tolist() == [q for q, row in enumerate(expected) if row is not None]
    assert found.skipped == len(x) - len(found.queries)
    known = np.array([row for row in expected if row is not None]).reshape(-1, 5)
    names = ("roc_auc", "map", f"precision_at_{k}", f"map_at_{k}", f"ndcg_at_{k}")
    for column, name in enumerate(names):
        np.testing.assert_allclose(found.per_query[name], known[:, column], atol=1e-12, err_msg=name)


@pytest.mark.parametrize("spread", [0, 1, 30, 10**6])
def test_many_keys_in_one_step_are_told_apart(spread):
    """More keys than steps, and steps of many keys: ranks are those of the sorted keys."""
    rng = np.random.default_rng(spread)
    keys = np.append(rng.integers(-spread, spread + 1, size=3000), -(10**7)).astype(np.intp)
    wanted = np.sort(rng.choice(keys, 400))
    below, up_to = KeyHistogram.of(keys).ranks(wanted)
    ranked = np.sort(keys)
    np.testing.assert_array_equal(below, np.searchsorted(ranked, wanted, "left"))
    np.testing.assert_array_equal(up_to, np.searchsorted(ranked, wanted, "right"))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-(2**20), 2**20), min_size=1, max_size=60), st.integers(1, 60))
def test_at_least_so_many_keys_reach_the_floor(keys, count):
    count = min(count, len(keys))
    floor = KeyHistogram.of(np.array(keys, np.intp)).floor_of(count)
    assert sum(key >= floor for key in keys) >= count
