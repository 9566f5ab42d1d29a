"""Splits and folds: which examples a model learns from, and which it is judged by.

Single labels are dealt out class by class. Groups (all windows of a recording, all recordings of a site) stay
together: they are dealt out greedily, the most lopsided first, each to where it brings the share of the
classes closest to what was asked for. Everything follows from the seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from avex._core.errors import ConfigError

Indices = npt.NDArray[np.int64]
_TRAIN = frozenset({"train", "training"})
_VALIDATION = frozenset({"validation", "val", "valid", "dev"})
_TEST = frozenset({"test", "testing", "eval"})
_SHOWN = 8


def _empty() -> Indices:
    return np.zeros(0, np.int64)


@dataclass(frozen=True, eq=False)
class Split:
    """Examples of each part, as sorted indices.

    Attributes:
        train: To learn from.
        validation: To choose by (regularisation, when to stop); may be empty.
        test: To judge by; may be empty.
    """

    train: Indices
    validation: Indices = field(default_factory=_empty)
    test: Indices = field(default_factory=_empty)

    def parts(self) -> dict[str, Indices]:
        """Parts that hold examples, by name."""
        named = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: indices for name, indices in named.items() if len(indices)}


def make_split(
    targets: npt.ArrayLike,
    *,
    validation: float = 0.0,
    test: float = 0.2,
    groups: Sequence[Any] | npt.NDArray[Any] | None = None,
    seed: int = 0,
    classes: Sequence[str] | None = None,
) -> Split:
    """Split examples so that every part has about the same share of each class.

    Args:
        targets: (N,) class indices, or (N, C) 0/1 for several labels.
        validation: Share of the examples for validation.
        test: Share for the test.
        groups: (N,) what must not be in two parts; None lets every example go anywhere.
        seed: Of the order.
        classes: Names, for messages.

    Raises:
        ConfigError: The shares are impossible, or a class has too few examples (or groups) to be in every
            part.

    Example:
        >>> split = make_split([0] * 10 + [1] * 10, test=0.2)
        >>> len(split.train), len(split.test)
        (16, 4)
    """
    if not (0 <= validation < 1 and 0 <= test < 1 and validation + test < 1):
        raise ConfigError(
            f"Shares of {validation:g} for validation and {test:g} for the test leave nothing to train on. "
            "Expected shares of at least 0 with a sum below 1."
        )
    shares = np.array([1 - validation - test, validation, test])
    parts = np.flatnonzero(shares > 0)
    assigned = parts[_deal(targets, shares[parts], groups, seed, classes)]
    return Split(*(np.flatnonzero(assigned == part) for part in range(3)))


def make_folds(
    targets: npt.ArrayLike,
    k: int,
    *,
    groups: Sequence[Any] | npt.NDArray[Any] | None = None,
    seed: int = 0,
    classes: Sequence[str] | None = None,
) -> Indices:
    """Deal examples into `k` folds of about the same size and share of each class.

    Args:
        targets: (N,) class indices, or (N, C) 0/1 for several labels.
        k: Number of folds.
        groups: (N,) what must not be in two folds.
        seed: Of the order.
        classes: Names, for messages.

    Returns:
        (N,) fold of each example, 0 to k - 1.

    Raises:
        ConfigError: `k` is below 2, or a class has too few examples (or groups) for `k` folds.

    Example:
        >>> np.bincount(make_folds([0, 0, 1, 1], 2)).tolist()
        [2, 2]
    """
    if k < 2:
        raise ConfigError(f"Cross-validation needs at least 2 folds, not {k}.")
    return _deal(targets, np.full(k, 1 / k), groups, seed, classes)


def split_from_column(values: Sequence[str]) -> Split:
    """Make a split of a column that says `train`, `validation` (`val`, `dev`) or `test` (`eval`).

    Raises:
        ConfigError: Another word, or nothing to train on.

    Example:
        >>> split_from_column(["train", "test", "train"]).train.tolist()
        [0, 2]
    """
    words = [value.strip().lower() for value in values]
    unknown = sorted(set(words) - _TRAIN - _VALIDATION - _TEST)
    if unknown:
        raise ConfigError(
            f"A split column holds {', '.join(map(repr, unknown[:_SHOWN]))}. Expected 'train', 'validation' "
            "or 'test' in every row; for numbered folds use cross-validation."
        )
    named = (_TRAIN, _VALIDATION, _TEST)
    split = Split(*(np.array([i for i, w in enumerate(words) if w in names], np.int64) for names in named))
    if not len(split.train):
        raise ConfigError("The split column leaves nothing to train on: no row says 'train'.")
    return split


def check_leakage(
    split: Split | Mapping[str, Indices],
    groups: Sequence[Any] | npt.NDArray[Any],
    what: str = "recording",
) -> None:
    """Check that no group is in two parts of a split.

    Args:
        split: The parts, or the indices of each part by its name.
        groups: (N,) group of each example.
        what: What a group is called in the message.

    Raises:
        ConfigError: A group is in two parts, so the test would be of what was learned by heart.
    """
    seen: dict[Any, str] = {}
    shared: list[str] = []
    parts = split.parts() if isinstance(split, Split) else split
    for part, indices in parts.items():
        for group in dict.fromkeys(groups[int(i)] for i in indices):
            first = seen.setdefault(group, part)
            if first != part:
                shared.append(f"'{group}' ({first} and {part})")
    if shared:
        more = f" and {len(shared) - 3} more" if len(shared) > 3 else ""
        raise ConfigError(
            f"{len(shared)} of {len(seen)} {what}s are in two parts of the split: "
            f"{', '.join(shared[:3])}{more}. Metrics "
            "would be of examples that were learned by heart. Use a grouped split, or correct the split "
            "column."
        )


def _deal(
    targets: npt.ArrayLike,
    shares: npt.NDArray[np.float64],
    groups: Sequence[Any] | npt.NDArray[Any] | None,
    seed: int,
    classes: Sequence[str] | None,
) -> Indices:
    """Index of the part that each example goes to; parts have the given shares, the first one is for training."""
    truth = np.asarray(targets)
    if truth.ndim not in (1, 2) or not len(truth):
        raise ConfigError(f"targets has shape {truth.shape}. Expected (N,) class indices or (N, C) 0/1.")
    rng = np.random.default_rng(seed)
    if groups is not None and len(groups) != len(truth):
        raise ConfigError(f"There are {len(groups)} groups for {len(truth)} examples. Pass one for each.")
    if truth.ndim == 1 and groups is None:
        _check_enough(np.bincount(truth), len(shares), "examples", classes)
        return _deal_by_class(truth, shares, rng)
    members = np.arange(len(truth)) if groups is None else _number(groups)
    one_hot = truth if truth.ndim == 2 else truth[:, None] == np.arange(truth.max() + 1)
    counts = np.zeros((int(members.max()) + 1, one_hot.shape[1] + 1))
    np.add.at(counts, members, np.c_[one_hot, np.ones(len(truth))])
    _check_enough(
        (counts[:, :-1] > 0).sum(0), len(shares), "examples" if groups is None else "groups", classes
    )
    return _deal_groups(counts, shares, rng)[members]


def _number(groups: Sequence[Any] | npt.NDArray[Any]) -> Indices:
    """Number the groups in order of appearance, so that their names do not matter."""
    numbers: dict[Any, int] = {}
    return np.array([numbers.setdefault(group, len(numbers)) for group in groups], np.int64)


def _check_enough(
    counts: npt.NDArray[np.integer[Any]], parts: int, what: str, classes: Sequence[str] | None
) -> None:
    few = [i for i, count in enumerate(counts) if 0 < count < parts]
    if few:
        named = [f"'{classes[i] if classes else i}' ({counts[i]})" for i in few[:_SHOWN]]
        more = f" and {len(few) - _SHOWN} more" if len(few) > _SHOWN else ""
        raise ConfigError(
            f"Some classes have fewer {what} than the {parts} parts of the split: {', '.join(named)}{more}. Add "
            "recordings, leave these classes out, or use fewer parts."
        )


def _deal_by_class(truth: Indices, shares: npt.NDArray[np.float64], rng: np.random.Generator) -> Indices:
    assigned = np.empty(len(truth), np.int64)
    owed = np.zeros(len(shares))  # what rounding took from each part so far
    for label in rng.permutation(int(truth.max()) + 1):
        members = rng.permutation(np.flatnonzero(truth == label))
        if not len(members):
            continue
        wanted = shares * len(members) + owed
        sizes = _round(shares * len(members), wanted, len(members))
        owed = wanted - sizes
        assigned[members] = np.repeat(np.arange(len(shares)), sizes)
    return assigned


def _round(exact: npt.NDArray[np.float64], wanted: npt.NDArray[np.float64], total: int) -> Indices:
    """Whole numbers near `exact` with the given sum, at least one each; what is over goes where most is owed."""
    sizes = np.maximum(np.floor(exact + 1e-9), 1).astype(np.int64)
    while sizes.sum() > total:
        sizes[np.argmax(np.where(sizes > 1, sizes - wanted, -np.inf))] -= 1
    while sizes.sum() < total:
        sizes[np.argmax(wanted - sizes)] += 1
    return sizes


def _deal_groups(
    counts: npt.NDArray[np.float64], shares: npt.NDArray[np.float64], rng: np.random.Generator
) -> Indices:
    """Greedy: each group goes where it helps most; the last column of `counts` is its number of examples."""
    totals = counts.sum(0)
    scaled = counts / np.where(totals > 0, totals, 1)
    # Rare classes and large groups first: later there is less room to put them right.
    order = rng.permutation(len(counts))
    order = order[np.argsort(-scaled[order].max(1), kind="stable")]
    wanted = np.outer(shares, (totals > 0).astype(float))
    have = np.zeros_like(wanted)
    assigned = np.empty(len(counts), np.int64)
    for group in order:
        gain = scaled[group]
        # Fall in squared distance to what is wanted, in units of the part, if the group went there.
        relative = (wanted - have) / shares[:, None]
        fall = (2 * relative * gain - gain**2 / shares[:, None]).sum(1)
        # A class that a part still lacks comes before everything else.
        lacking = ((have == 0) & (gain > 0))[:, :-1].sum(1)
        best = np.lexsort((-fall, -lacking))[0]
        assigned[group] = best
        have[best] += gain
    return assigned
