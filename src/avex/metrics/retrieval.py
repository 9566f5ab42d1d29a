"""Retrieval: does the nearest of other clips hold the same label?

Every query ranks all items of the database by cosine similarity. An item is relevant if it has the query's label,
or shares one with it. Similarities are compared on a grid of 2^-20 (about 1e-6), which is what single precision
knows of them: what differs by less is a tie. Ties count half in the area under the ROC curve, and stand in the
order of the database in the ranking.

The similarities are computed for a block of queries at a time, by all processors, and then ranked, one query per
thread: memory grows with the database and not with its square, and the time is little more than that of the
matrix product.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from avex._core.errors import ConfigError
from avex._core.processors import available_cpus
from avex.metrics.counting import Ints, KeyHistogram, Keys
from avex.metrics.vectors import check_pair, label_array, unit_vectors

Floats = npt.NDArray[np.floating]
GRID = 1 << 20
# float32 similarities of a block of queries
_BLOCK_BYTES = 128 << 20
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
    found = _Found.empty(len(order), min(search.ks[-1], search.items))
    workers = threads or available_cpus()
    similar = np.empty((min(_rows_of(len(search.database)), len(order)), len(search.database)), np.float32)
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(order), len(similar)):
            block = order[start : start + len(similar)]
            product = np.matmul(search.queries[block], search.database.T, out=similar[: len(block)])
            # Larger shares would leave one thread waiting for the other, smaller ones cost more than they do.
            shares = [s for s in np.array_split(np.arange(len(block)), 4 * workers) if len(s)]
            jobs = [pool.submit(_rank, search, product, block, share, found, start) for share in shares]
            for job in jobs:
                job.result()
    known = found.relevant > 0
    values = found.metrics(search.ks, known)
    return RetrievalScores(order[known], values, int((~known).sum()))


@dataclass(frozen=True, eq=False)
class _Found:
    """What is kept of each query: numbers of relevant items, and which of the nearest are relevant."""

    relevant: Ints
    roc_auc: npt.NDArray[np.float64]
    average_precision: npt.NDArray[np.float64]
    hits: npt.NDArray[np.bool_]

    @classmethod
    def empty(cls, queries: int, longest: int) -> _Found:
        zeros = np.zeros(queries)
        return cls(np.zeros(queries, np.intp), zeros, zeros.copy(), np.zeros((queries, longest), bool))

    def metrics(self, ks: Sequence[int], known: npt.NDArray[np.bool_]) -> dict[str, Floats]:
        """Metrics by name, of the queries that have something to find."""
        hits, relevant = self.hits[known], self.relevant[known]
        values: dict[str, Floats] = {
            "roc_auc": self.roc_auc[known],
            "map": self.average_precision[known],
            "precision_at_1": hits[:, 0].astype(np.float64) if hits.size else np.zeros(len(hits)),
        }
        for k in ks:
            names = (f"precision_at_{k}", f"map_at_{k}", f"ndcg_at_{k}")
            values.update(zip(names, _list_metrics(hits[:, :k], relevant, k), strict=True))
        return values


def _list_metrics(hits: npt.NDArray[np.bool_], relevant: Ints, k: int) -> tuple[Floats, Floats, Floats]:
    """Precision, average precision and nDCG of lists (Q, at most k), of `relevant` (Q,) items in all."""
    ranks = np.arange(1, hits.shape[1] + 1)
    best = np.minimum(relevant, k)
    average = (np.cumsum(hits, axis=1) / ranks * hits).sum(1) / best
    ideal = np.cumsum(1 / np.log2(np.arange(1, k + 1) + 1))
    return hits.mean(1), average, hits @ (1 / np.log2(ranks + 1)) / ideal[best - 1]


@dataclass(frozen=True, eq=False)
class _Search:
    """Unit vectors of queries and database, and which items are relevant to a query (ascending)."""

    queries: npt.NDArray[np.float32]
    database: npt.NDArray[np.float32]
    relevant: Callable[[int], Ints]
    same: bool
    ks: tuple[int, ...]

    @property
    def items(self) -> int:
        """Items that a query searches: not itself."""
        return len(self.database) - self.same

    @classmethod
    def of(cls, x: Any, y: Any, database: Any, database_labels: Any, ks: Sequence[int]) -> _Search:
        queries, query_labels = unit_vectors(x, "embeddings"), label_array(y, "labels")
        check_pair(queries, query_labels, "embeddings")
        if (database is None) != (database_labels is None):
            raise ConfigError("A database needs labels, and labels a database. Give both or neither.")
        cuts = tuple(sorted(set(ks)))
        if not cuts or cuts[0] < 1:
            raise ConfigError(
                f"The cut-offs are {list(ks)}. Expected whole numbers of at least 1, such as 10."
            )
        if database is None:
            return cls(queries, queries, _relevance(query_labels, query_labels), True, cuts)
        items, item_labels = (
            unit_vectors(database, "database"),
            label_array(database_labels, "database_labels"),
        )
        check_pair(items, item_labels, "database")
        if items.shape[1] != queries.shape[1] or item_labels.shape[1:] != query_labels.shape[1:]:
            raise ConfigError(
                f"Queries {queries.shape} with labels {query_labels.shape} and database {items.shape} with labels "
                f"{item_labels.shape} do not fit. Expected the same size of embeddings and the same kind of labels."
            )
        return cls(queries, items, _relevance(query_labels, item_labels), False, cuts)


def _relevance(query_labels: npt.NDArray[Any], labels: npt.NDArray[Any]) -> Callable[[int], Ints]:
    """A function from a query to the items that share a label with it, ascending."""
    if labels.ndim == 2:
        members = [np.flatnonzero(column) for column in labels.T]

        def sharing(query: int) -> Ints:
            marked = np.zeros(len(labels), bool)
            for number in np.flatnonzero(query_labels[query]):
                marked[members[number]] = True
            return np.flatnonzero(marked)

        return sharing
    classes, numbers = np.unique(labels, return_inverse=True)
    by_class = np.split(np.argsort(numbers, kind="stable"), np.cumsum(np.bincount(numbers))[:-1])
    of_class = dict(zip(classes.tolist(), by_class, strict=True))
    nothing = np.zeros(0, np.intp)
    return lambda query: of_class.get(query_labels[query].item(), nothing)


def _rank(
    search: _Search, similar: npt.NDArray[np.float32], block: Ints, share: Ints, found: _Found, start: int
) -> None:
    """Rank the database for some queries of a block, and keep what was found."""
    grid = np.empty(similar.shape[1], np.float32)
    for row in share:
        query = int(block[row])
        relevant = search.relevant(query)
        if search.same:
            relevant = relevant[relevant != query]
        if not len(relevant):
            continue
        keys = np.rint(np.multiply(similar[row], np.float32(GRID), out=grid), out=grid).astype(np.int32)
        if search.same:
            keys[query] = keys.min() - 1  # below everything
        histogram = KeyHistogram.of(keys)
        at = start + row
        found.relevant[at] = len(relevant)
        found.roc_auc[at], found.average_precision[at] = _whole_ranking(
            histogram, np.sort(keys[relevant]), search.same
        )
        nearest = _nearest(search, query, histogram, found.hits.shape[1])
        place = np.minimum(np.searchsorted(relevant, nearest), len(relevant) - 1)
        found.hits[at] = relevant[place] == nearest


def _whole_ranking(histogram: KeyHistogram, positive: Keys, same: bool) -> tuple[float, float]:
    """Area under the ROC curve and average precision, of the keys of the relevant items."""
    total, count = len(histogram.keys), len(positive)
    below, up_to = histogram.ranks(positive)
    # Ranks with ties at half; positives among themselves make up count^2 / 2, the query itself is below all.
    wins = float((below + up_to).sum()) / 2 - count * count / 2 - count * same
    others = total - same - count
    hits = count - np.searchsorted(positive, positive, "left")
    return (wins / (count * others) if others else np.nan), float((hits / (total - below)).mean())


def _nearest(search: _Search, query: int, histogram: KeyHistogram, wanted: int) -> Ints:
    """The nearest items: candidates by single precision, put in order by double precision."""
    floor = max(histogram.floor_of(wanted) - _SLACK, histogram.lowest + search.same)
    candidates = np.flatnonzero(histogram.keys >= floor)
    exact_query = search.queries[query].astype(np.float64)
    # In pieces: where everything is alike, everything is a candidate.
    pieces = [candidates[i : i + _PIECE] for i in range(0, len(candidates), _PIECE)]
    exact = np.concatenate([search.database[piece].astype(np.float64) @ exact_query for piece in pieces])
    return candidates[np.argsort(-np.rint(exact * GRID), kind="stable")[:wanted]]


def _rows_of(items: int) -> int:
    """Queries per block."""
    return max(1, _BLOCK_BYTES // (4 * items))


def _nan_mean(values: Floats) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")
