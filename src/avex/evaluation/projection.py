"""Embeddings in two dimensions, for looking at: principal components, or UMAP where it is installed."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from avex._core.optional import available
from avex.evaluation.tasks import Task

MOST_POINTS = 1000


def scatter(task: Task, vectors: npt.NDArray[np.float32], seed: int) -> dict[str, Any]:
    """Points of the clips that are tested, with their first class.

    Args:
        task: The task.
        vectors: (N, D) embeddings of all its clips.
        seed: Of the choice of at most 1,000 clips, and of UMAP.

    Returns:
        JSON values: `method` (`pca` or `umap`), `points` (P, 2), `classes` (P) numbers or -1, `names`.
    """
    tested = task.tested()
    if len(tested) > MOST_POINTS:
        tested = np.sort(np.random.default_rng(seed).permutation(tested)[:MOST_POINTS])
    table = task.targets().table()[tested]
    first = np.where(table.any(1), table.argmax(1), -1)
    method, points = _project(vectors[tested], seed)
    return {
        "method": method,
        "points": np.round(points, 4).tolist(),
        "classes": first.tolist(),
        "names": list(task.classes),
    }


def _project(x: npt.NDArray[np.float32], seed: int) -> tuple[str, npt.NDArray[np.floating]]:
    if available("umap") and len(x) > 15:
        import umap  # type: ignore[import-not-found]

        return "umap", umap.UMAP(random_state=seed).fit_transform(x)
    return "pca", principal_components(x)


def principal_components(x: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """(N, 2) coordinates along the two directions of most variance; the larger loadings are positive.

    Example:
        >>> principal_components(np.array([[0.0, 0], [2, 0], [4, 0]]))[:, 0].tolist()
        [-2.0, 0.0, 2.0]
    """
    centred = np.asarray(x, np.float64) - np.mean(x, axis=0, dtype=np.float64)
    _, values, axes = np.linalg.svd(centred, full_matrices=False)
    found = np.zeros((len(centred), 2))
    for i in range(min(2, len(axes))):
        if values[i] > 1e-12:
            axis = axes[i]
            sign = np.sign(axis[np.abs(axis).argmax()])
            found[:, i] = centred @ (sign * axis)
    return found
