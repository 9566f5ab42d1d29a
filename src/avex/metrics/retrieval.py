"""Retrieval: does the nearest of other clips hold the same label?

Every query ranks all items of the database by cosine similarity. An item is relevant if it has the query's label,
or shares one with it. Similarities are compared on a grid of 2^-20 (about 1e-6), which is what single precision
knows of them: what differs by less is a tie. Ties count half in the area under the ROC curve, and stand in the
order of the database in the ranking.

The similarities are computed for a block of queries at a time, so that memory grows with the database and not
with its square.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from avex._core.errors import ConfigError

Floats = npt.NDArray[np.floating]
GRID = 1 << 20
_SELF = np.iinfo(np.int32).min
_BLOCK_BYTES = 192 << 20
# float32 similarity, key, sorted key, relevance
_BYTES_PER_CELL = 13
# Steps of the grid that a similarity in single precision may be off.
_SLACK = 4
_PIECE = 4096


@dataclass(frozen=True, eq=False)
class RetrievalScores:
    """Metrics of each query that has something to find.

    Attributes:
        queries: (Q,) index of each query that was scored, ascending.
        per_query: Name to (Q,) values: `roc_auc`, `map`, `precision_at_1`, and `precision_at_<k>`, `map_at_<k>`,
            `ndcg_at_<k>` for each cut-off.
        skipped: Queries without any relevant item, or with nothing but such items (`roc_auc` is NaN for these).
    """

    queries: npt.NDArray[np.int64]
    per_query: Mapping[str, Floats]
    skipped: int

    def mean(self) -> dict[str, float]:
        """Mean of each metric over the queries, NaN left out; NaN if there is none.

        Example:
            >>> RetrievalScores(np.arange(2), {"roc_auc": np.array([1.0, np.nan])}, 0).mean()
            {'roc_auc': 1.0}
        """
        return {name: _nan_mean(values) for name, values in self.per_query.items()}


def retrieval_scores(
    embeddings: npt.ArrayLike,
    labels: npt.ArrayLike,
    database: npt.ArrayLike | None = None,
    database_labels: npt.ArrayLike | None = None,
    *,
    ks: Sequence[int] = (10,),
    max_queries: int | None = None,
    seed: int = 0,
    threads: int | None = None,
) -> RetrievalScores:
    """Score retrieval by cosine similarity.

    Args:
        embeddings: (N, D) queries.
        labels: (N,) class indices, or (N, C) 0/1.
        database: (M, D) what is searched; None searches the queries themselves, each without itself.
        database_labels: Of the database, of the same kind.
        ks: Lengths of the list for precision, mAP and nDCG (at most the size of the database).
        max_queries: Score only this many queries, drawn with `seed`; the database stays whole.
        seed: Of that draw.
        threads: How many rank at once; None takes the processors of this process.

    Returns:
        `roc_auc`: chance that a relevant item is more similar than another one. `map`: average precision over
        the whole ranking, where what is tied is shown together. `precision_at_k`: share of
        relevant ones among the k nearest. `map_at_k`: sum of the precisions at relevant ranks, over min(k, R) for
        R relevant items. `ndcg_at_k`: with gain 1 and discount log2(rank + 1).

    Raises:
        ConfigError: Shapes do not fit, values are not finite, or a cut-off is not positive.

    Example:
        >>> x = np.array([[1, 0], [1, 0.1], [0, 1], [0.1, 1]], np.float32)
        >>> retrieval_scores(x, [0, 0, 1, 1], ks=[2]).mean()["roc_auc"]
        1.0
    """
    search = _Search.of(embeddings, labels, database, database_labels, ks)
    order = np.arange(len(search.queries))
    if max_queries is not None and max_queries < len(order):
        order = np.sort(np.random.default_rng(seed).permutation(order)[:max_queries])
    workers = threads or _processors()
    rows: list[tuple[float, ...]] = []
    with ThreadPoolExecutor(workers) as pool:
        for block in _blocks(order, len(search.database)):
            similar = search.queries[block] @ search.database.T
            # Larger shares would leave one thread waiting for the other, smaller ones cost more than they do.
            shares = np.array_split(np.arange(len(block)), 4 * workers)
            jobs = [pool.submit(search.score, similar[share], block[share]) for share in shares if len(share)]
            rows += [row for job in jobs for row in job.result()]
    names = search.names()
    table = np.array(rows, np.float64).reshape(len(order), len(names))
    known = np.isfinite(table[:, 1])
    values = {name: table[known, i] for i, name in enumerate(names)}
    return RetrievalScores(order[known], values, int((~known).sum()))


@dataclass(frozen=True, eq=False)
class _Search:
    """Unit vectors of queries and database with what is relevant to what."""

    queries: npt.NDArray[np.float32]
    query_labels: npt.NDArray[Any]
    database: npt.NDArray[np.float32]
    labels: npt.NDArray[Any]
    same: bool
    ks: tuple[int, ...]

    @classmethod
    def of(cls, x: Any, y: Any, database: Any, database_labels: Any, ks: Sequence[int]) -> _Search:
        queries, query_labels = _unit(x, "embeddings"), _labels(y, "labels")
        _check_pair(queries, query_labels, "embeddings")
        if (database is None) != (database_labels is None):
            raise ConfigError("A database needs labels, and labels a database. Give both or neither.")
        cuts = tuple(sorted(set(ks)))
        if not cuts or cuts[0] < 1:
            raise ConfigError(
                f"The cut-offs are {list(ks)}. Expected whole numbers of at least 1, such as 10."
            )
        if database is None:
            return cls(queries, query_labels, queries, query_labels, True, cuts)
        items, item_labels = _unit(database, "database"), _labels(database_labels, "database_labels")
        _check_pair(items, item_labels, "database")
        if items.shape[1] != queries.shape[1] or item_labels.shape[1:] != query_labels.shape[1:]:
            raise ConfigError(
                f"Queries {queries.shape} with labels {query_labels.shape} and database {items.shape} with labels "
                f"{item_labels.shape} do not fit. Expected the same size of embeddings and the same kind of labels."
            )
        return cls(queries, query_labels, items, item_labels, False, cuts)

    def names(self) -> list[str]:
        """Names of the metrics, in the order of the rows of `score`."""
        lists = [f"{metric}_at_{k}" for k in self.ks for metric in ("precision", "map", "ndcg")]
        return ["roc_auc", "map", "precision_at_1", *lists]

    def score(
        self, similar: npt.NDArray[np.float32], block: npt.NDArray[np.int64]
    ) -> list[tuple[float, ...]]:
        """Metrics of some queries, in the order of `names`; NaN where nothing is to be found."""
        keys = np.rint(similar * np.float32(GRID)).astype(np.int32)
        if self.same:
            keys[np.arange(len(block)), block] = _SELF
        ranked = np.sort(keys, axis=1)
        relevant = self._relevant(block)
        return [
            self._score_one(int(query), *row)
            for query, *row in zip(block, keys, ranked, relevant, strict=True)
        ]

    def _relevant(self, block: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        own = self.query_labels[block]
        found = (own @ self.labels.T) > 0 if own.ndim == 2 else own[:, None] == self.labels
        if self.same:
            found[np.arange(len(block)), block] = False
        return found

    def _score_one(
        self,
        query: int,
        keys: npt.NDArray[np.int32],
        ranked: npt.NDArray[np.int32],
        relevant: npt.NDArray[np.bool_],
    ) -> tuple[float, ...]:
        positive = np.sort(keys[relevant])
        count = len(positive)
        if not count:
            return (np.nan,) * (3 + 3 * len(self.ks))
        items = len(keys) - self.same
        below = np.searchsorted(ranked, positive, "left")
        # Ranks with ties at half; positives among themselves make up count^2 / 2, the query itself is below all.
        ranks = below + np.searchsorted(ranked, positive, "right")
        wins = float(ranks.sum()) / 2 - count * count / 2 - count * self.same
        others = items - count
        auc = wins / (count * others) if others else np.nan
        shown = len(keys) - below
        average = float(((count - np.searchsorted(positive, positive, "left")) / shown).mean())
        hits = relevant[self._nearest(query, keys, ranked, items)]
        lists = [value for k in self.ks for value in _list_metrics(hits[:k], count, k)]
        return auc, average, float(hits[0]), *lists

    def _nearest(
        self, query: int, keys: npt.NDArray[np.int32], ranked: npt.NDArray[np.int32], items: int
    ) -> npt.NDArray[np.int64]:
        """The nearest: candidates by single precision, put in order by double precision."""
        wanted = min(self.ks[-1], items)
        floor = max(int(ranked[-wanted]) - _SLACK, _SELF + 1)
        candidates = np.flatnonzero(keys >= floor)
        query_exact = self.queries[query].astype(np.float64)
        # In pieces: where everything is alike, everything is a candidate.
        pieces = [candidates[i : i + _PIECE] for i in range(0, len(candidates), _PIECE)]
        exact = np.concatenate([self.database[piece].astype(np.float64) @ query_exact for piece in pieces])
        return candidates[np.argsort(-np.rint(exact * GRID), kind="stable")[:wanted]]


def _list_metrics(hits: npt.NDArray[np.bool_], count: int, k: int) -> tuple[float, float, float]:
    """Precision, average precision and nDCG of a list, of `count` relevant items in all."""
    ranks = np.arange(1, len(hits) + 1)
    gains = 1 / np.log2(ranks + 1)
    best = min(count, k)
    average = float((np.cumsum(hits) / ranks)[hits].sum()) / best
    return float(hits.mean()), average, float(gains[hits].sum() / gains[:best].sum())


def _processors() -> int:
    """Processors that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _blocks(order: npt.NDArray[np.int64], items: int) -> Iterator[npt.NDArray[np.int64]]:
    size = max(1, _BLOCK_BYTES // (_BYTES_PER_CELL * max(items, 1)))
    return (order[start : start + size] for start in range(0, len(order), size))


def _unit(values: Any, name: str) -> npt.NDArray[np.float32]:
    array = np.asarray(values, np.float32)
    if array.ndim != 2 or not array.size:
        raise ConfigError(f"{name} has shape {array.shape}. Expected (N, D) with at least one row.")
    if not np.isfinite(array).all():
        raise ConfigError(f"{name} holds NaN or infinite values. Check the model and its input.")
    lengths = np.sqrt(np.einsum("ij,ij->i", array, array, dtype=np.float64))
    return (array / np.maximum(lengths, 1e-12)[:, None]).astype(np.float32)


def _labels(values: Any, name: str) -> npt.NDArray[Any]:
    array = np.asarray(values)
    if array.ndim == 2:
        if not np.isin(array, (0, 1)).all():
            raise ConfigError(f"{name} of shape {array.shape} must be 0 or 1. Expected a column per class.")
        return array.astype(np.float32)
    if array.ndim != 1:
        raise ConfigError(f"{name} has shape {array.shape}. Expected (N,) classes or (N, C) of 0 and 1.")
    return array


def _check_pair(x: npt.NDArray[Any], y: npt.NDArray[Any], name: str) -> None:
    if len(x) != len(y):
        raise ConfigError(f"There are {len(y)} labels for {len(x)} {name}. Expected one for each.")


def _nan_mean(values: Floats) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")
