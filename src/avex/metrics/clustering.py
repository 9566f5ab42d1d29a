"""Clustering: do the groups that k-means finds agree with the labels? scikit-learn computes them.

k-means compares lengths as well as directions, and the length of an embedding often tells loudness or noise rather
than what is heard. So embeddings are brought to unit length first, as for retrieval and nearest neighbours;
`scaling` says otherwise.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from avex._core.errors import ConfigError
from avex._core.optional import require

Scaling = Literal["unit", "standard", "none"]
MAX_SILHOUETTE = 5000
STARTS, ITERATIONS = 10, 300


@dataclass(frozen=True, eq=False)
class ClusteringScores:
    """Agreement of clusters with labels.

    Attributes:
        values: `clustering_ari`, `clustering_nmi`, `clustering_ami`, `clustering_v_measure`,
            `clustering_silhouette` at the true number of classes; with a search also `clustering_best_k` and the
            same with `_best` at the number of clusters with the highest silhouette.
        assigned: (N,) cluster of each example at the true number.
    """

    values: dict[str, float]
    assigned: npt.NDArray[np.int64]


def clustering_scores(
    embeddings: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    seed: int = 0,
    best_k: bool = True,
    scaling: Scaling = "unit",
) -> ClusteringScores:
    """Cluster embeddings by k-means and compare with labels.

    The number of clusters is that of the classes. With `best_k` numbers from two below to three above it are tried
    too, and the one with the highest silhouette is taken: the labels have no say in that choice. Numbers are tried
    on at most 5,000 examples, drawn with the seed, and the one that is taken is fitted to all. Silhouettes are of
    these 5,000, too. All measures are scikit-learn's functions of these names.

    Args:
        embeddings: (N, D).
        labels: (N,) class indices.
        seed: Of the starts of k-means (10 starts, at most 300 iterations each).
        best_k: Also search the number of clusters.
        scaling: `unit` brings each embedding to length 1, `standard` each dimension to mean 0 and variance 1;
            `none` takes embeddings as they are, as earlier versions did.

    Raises:
        ConfigError: Shapes do not fit, fewer than two classes, no more examples than classes, or an unknown
            scaling.
        MissingExtraError: scikit-learn is not installed.

    Example:
        >>> x = np.repeat([[0.0, 9], [9, 0]], 5, axis=0) + np.arange(10)[:, None] / 100
        >>> clustering_scores(x, [0] * 5 + [1] * 5).values["clustering_ari"]
        1.0
    """
    x, y = np.asarray(embeddings, np.float32), np.asarray(labels)
    if x.ndim != 2 or y.shape != x.shape[:1]:
        raise ConfigError(f"Embeddings {x.shape} and labels {y.shape} do not fit. Expected (N, D) and (N,).")
    classes = len(np.unique(y))
    if not 2 <= classes < len(x):
        raise ConfigError(
            f"{len(x)} examples of {classes} classes cannot be clustered. Expected at least two classes and more "
            "examples than classes."
        )
    x = _flattened(_scaled(x, scaling))
    drawn = _Drawn(x, seed)
    assigned = _k_means(x, classes, seed)
    values = _measures(y, assigned, drawn)
    if best_k:
        numbers = range(max(2, classes - 2), min(len(x) // 2, classes + 3) + 1)
        best, found = _search(x, drawn, numbers, {classes: assigned}, seed)
        at_best = values if best == classes else _measures(y, found, drawn)
        searched = {f"{name}_best": value for name, value in at_best.items()}
        values = {**values, "clustering_best_k": float(best), **searched}
    return ClusteringScores(values, assigned)


def _flattened(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The same points in the subspace that they span: fewer examples than dimensions have no need of the others."""
    if len(x) >= x.shape[1]:
        return x
    upper: npt.NDArray[np.float64] = np.linalg.qr(x.T.astype(np.float64), mode="r")  # type: ignore[assignment]
    return upper.T.astype(np.float32)


def _scaled(x: npt.NDArray[np.float32], scaling: str) -> npt.NDArray[np.float32]:
    if scaling == "none":
        return x
    if scaling == "unit":
        return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    if scaling == "standard":
        return (x - x.mean(0)) / np.maximum(x.std(0), 1e-12)
    raise ConfigError(f"scaling is '{scaling}'. Choose 'unit', 'standard' or 'none'.")


class _Drawn:
    """The examples that silhouettes are of, with the distances between them, which are computed once."""

    def __init__(self, x: npt.NDArray[np.float32], seed: int) -> None:
        self.rows = np.arange(len(x))
        if len(x) > MAX_SILHOUETTE:
            self.rows = np.random.default_rng(seed).permutation(len(x))[:MAX_SILHOUETTE]
        self.x = x[self.rows]
        self._metrics = require("sklearn.metrics", "eval", "Clustering")
        self._distances = self._metrics.pairwise_distances(self.x)

    def silhouette(self, found: npt.NDArray[np.int64]) -> float:
        """Mean silhouette of clusters of the drawn examples; NaN if there is one only, or one for each."""
        if not 2 <= len(np.unique(found)) < len(found):
            return float("nan")
        return float(self._metrics.silhouette_score(self._distances, found, metric="precomputed"))


def _search(
    x: npt.NDArray[np.float32],
    drawn: _Drawn,
    numbers: range,
    known: Mapping[int, npt.NDArray[np.int64]],
    seed: int,
) -> tuple[int, npt.NDArray[np.int64]]:
    """The number of clusters with the highest silhouette, and the clusters; the known number if none has one."""
    everything = len(drawn.x) == len(x)
    fits = dict(known) if everything else {}
    silhouettes: dict[int, float] = {}
    for k in numbers:
        if k not in fits:
            fits[k] = _k_means(drawn.x, k, seed)
        silhouettes[k] = drawn.silhouette(fits[k])
    finite = {k: value for k, value in silhouettes.items() if np.isfinite(value)}
    best = max(finite, key=lambda k: finite[k], default=next(iter(known)))
    found = fits if everything else known
    return best, found[best] if best in found else _k_means(x, best, seed)


def _k_means(x: npt.NDArray[np.float32], k: int, seed: int) -> npt.NDArray[np.int64]:
    cluster = require("sklearn.cluster", "eval", "Clustering")
    with warnings.catch_warnings():
        # Fewer distinct points than clusters: the measures say so by themselves.
        warnings.simplefilter("ignore")
        model = cluster.KMeans(k, n_init=STARTS, max_iter=ITERATIONS, random_state=seed)
        found: npt.NDArray[np.int64] = model.fit_predict(x).astype(np.int64)
    return found


def _measures(y: npt.NDArray[Any], found: npt.NDArray[np.int64], drawn: _Drawn) -> dict[str, float]:
    metrics = require("sklearn.metrics", "eval", "Clustering")
    values = {
        "clustering_ari": metrics.adjusted_rand_score(y, found),
        "clustering_nmi": metrics.normalized_mutual_info_score(y, found),
        "clustering_ami": metrics.adjusted_mutual_info_score(y, found),
        "clustering_v_measure": metrics.v_measure_score(y, found),
        "clustering_silhouette": drawn.silhouette(found[drawn.rows]),
    }
    return {name: float(value) for name, value in values.items()}
