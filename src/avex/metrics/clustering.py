"""Clustering: do the groups that k-means finds agree with the labels? scikit-learn computes them.

k-means compares lengths as well as directions, and the length of an embedding often tells loudness or noise rather
than what is heard. So embeddings are brought to unit length first, as for retrieval and nearest neighbours;
`scaling` says otherwise.
"""

from __future__ import annotations

import warnings
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
    too, and the one with the highest silhouette is taken: the labels have no say in that choice. All measures are
    scikit-learn's functions of these names; the silhouette is of at most 5,000 examples, drawn with the seed.

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
    x = _scaled(x, scaling)
    values, assigned = _at(x, y, classes, seed)
    if best_k:
        values |= _search(x, y, classes, seed, (values, assigned))
    return ClusteringScores(values, assigned)


def _scaled(x: npt.NDArray[np.float32], scaling: str) -> npt.NDArray[np.float32]:
    if scaling == "none":
        return x
    if scaling == "unit":
        return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    if scaling == "standard":
        return (x - x.mean(0)) / np.maximum(x.std(0), 1e-12)
    raise ConfigError(f"scaling is '{scaling}'. Choose 'unit', 'standard' or 'none'.")


def _search(
    x: npt.NDArray[np.float32],
    y: npt.NDArray[Any],
    classes: int,
    seed: int,
    known: tuple[dict[str, float], npt.NDArray[np.int64]],
) -> dict[str, float]:
    choices = range(max(2, classes - 2), min(len(x) // 2, classes + 3) + 1)
    tried = {k: known[0] if k == classes else _at(x, y, k, seed)[0] for k in choices} or {classes: known[0]}
    best = max(tried, key=lambda k: tried[k]["clustering_silhouette"])
    return {
        "clustering_best_k": float(best),
        **{f"{name}_best": value for name, value in tried[best].items()},
    }


def _at(
    x: npt.NDArray[np.float32], y: npt.NDArray[Any], k: int, seed: int
) -> tuple[dict[str, float], npt.NDArray[np.int64]]:
    cluster = require("sklearn.cluster", "eval", "Clustering")
    metrics = require("sklearn.metrics", "eval", "Clustering")
    with warnings.catch_warnings():
        # Fewer distinct points than clusters: the measures say so by themselves.
        warnings.simplefilter("ignore")
        found = cluster.KMeans(k, n_init=STARTS, max_iter=ITERATIONS, random_state=seed).fit_predict(x)
    values = {
        "clustering_ari": metrics.adjusted_rand_score(y, found),
        "clustering_nmi": metrics.normalized_mutual_info_score(y, found),
        "clustering_ami": metrics.adjusted_mutual_info_score(y, found),
        "clustering_v_measure": metrics.v_measure_score(y, found),
        "clustering_silhouette": _silhouette(x, found, seed),
    }
    return {name: float(value) for name, value in values.items()}, found.astype(np.int64)


def _silhouette(x: npt.NDArray[np.float32], found: npt.NDArray[Any], seed: int) -> float:
    metrics = require("sklearn.metrics", "eval", "Clustering")
    if len(x) > MAX_SILHOUETTE:
        picked = np.random.default_rng(seed).permutation(len(x))[:MAX_SILHOUETTE]
        x, found = x[picked], found[picked]
    if not 2 <= len(np.unique(found)) < len(x):
        return float("nan")
    return float(metrics.silhouette_score(x, found))
