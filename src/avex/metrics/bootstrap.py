"""Bootstrap: how often each example is drawn in each resample, and the interval of the values that follow.

Every metric of this package takes counts, one row per resample, so that a thousand resamples are a few matrix
products instead of a thousand calls. Examples of one recording are drawn together: they are not independent,
and an interval that ignored it would be too narrow (Davison and Hinkley, Bootstrap Methods and their
Application, 1997).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from avex._core.errors import ConfigError


def bootstrap_counts(
    num_examples: int,
    resamples: int = 1000,
    *,
    seed: int = 0,
    groups: Sequence[Any] | npt.NDArray[Any] | None = None,
) -> npt.NDArray[np.float32]:
    """Draw examples with replacement, whole groups at a time.

    Args:
        num_examples: N, how many examples there are.
        resamples: B, how often to draw.
        seed: Of the random numbers; the same seed gives the same counts.
        groups: (N,) what is drawn as one, such as the recording; None draws single examples.

    Returns:
        (B, N) float32, how often each example is in each resample.

    Raises:
        ConfigError: No examples, fewer than one resample, or groups of another length.

    Example:
        >>> counts = bootstrap_counts(4, 100, groups=["a", "a", "b", "b"])
        >>> bool((counts[:, 0] == counts[:, 1]).all()), counts.shape
        (True, (100, 4))
    """
    if num_examples < 1 or resamples < 1:
        raise ConfigError(
            f"A bootstrap of {num_examples} examples and {resamples} resamples is not possible. "
            "Pass at least one of each."
        )
    rng = np.random.default_rng(seed)
    if groups is None:
        members = np.arange(num_examples)
        size = num_examples
    else:
        if len(groups) != num_examples:
            raise ConfigError(
                f"There are {len(groups)} groups for {num_examples} examples. Pass one for each."
            )
        members = np.unique(np.asarray(groups), return_inverse=True)[1].reshape(-1)
        size = int(members.max()) + 1
    counts = np.empty((resamples, size), np.float32)
    for row in counts:
        row[:] = np.bincount(rng.integers(size, size=size), minlength=size)
    return counts[:, members]


def percentile_interval(values: npt.NDArray[np.floating], confidence: float = 0.95) -> tuple[float, float]:
    """Return the central interval of bootstrap values, NaN left out.

    Args:
        values: (B,) the metric in each resample.
        confidence: Share of the values inside.

    Returns:
        Lower and upper end, NaN if no value is a number.

    Example:
        >>> percentile_interval(np.arange(101.0), 0.5)
        (25.0, 75.0)
    """
    if not 0 < confidence < 1:
        raise ConfigError(f"confidence is {confidence}. Expected a share between 0 and 1, such as 0.95.")
    known = values[np.isfinite(values)]
    if not len(known):
        return float("nan"), float("nan")
    edge = (1 - confidence) / 2
    low, high = np.quantile(known, [edge, 1 - edge])
    return float(low), float(high)
