"""Examples to learn from: features, targets, and which recording each is of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from avex._core.errors import ConfigError
from avex.data import LabelTable
from avex.embedding.stores import StoreHeader
from avex.training.probes.targets import Targets

Floats = npt.NDArray[np.float32]
Features = Floats | list[Floats]
Unit = Literal["recording", "window"]


@dataclass(frozen=True, eq=False)
class Examples:
    """Examples with all that splits, training and reports need.

    Attributes:
        features: (N, D), or N sequences (T, D).
        targets: What they are.
        names: (N) name of each: the recording, with its time for windows.
        groups: (N) file that each is of; examples of one file never go to two parts of a split.
        rows: (N) rows of the label table that speak of each; empty without a table.
        table: The label table.
        header: Settings of the store.
        unit: What an example is.
        notes: What was left out, for people.
    """

    features: Features
    targets: Targets
    names: tuple[str, ...]
    groups: tuple[Any, ...]
    rows: tuple[tuple[int, ...], ...] = ()
    table: LabelTable | None = None
    header: StoreHeader | None = None
    unit: Unit = "recording"
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    @property
    def dim(self) -> int:
        """D, the length of a feature vector."""
        return int(self.features[0].shape[-1])

    @property
    def is_sequence(self) -> bool:
        """Whether features are sequences."""
        return isinstance(self.features, list) or self.features.ndim == 3

    def subset(self, indices: npt.NDArray[Any]) -> Examples:
        """Some of the examples."""
        picked = [int(i) for i in indices]
        return replace(
            self,
            features=take(self.features, indices),
            targets=Targets(self.targets.values[indices], self.targets.classes),
            names=tuple(self.names[i] for i in picked),
            groups=tuple(self.groups[i] for i in picked),
            rows=tuple(self.rows[i] for i in picked) if self.rows else (),
        )

    def column(self, name: str) -> tuple[str, ...]:
        """A column of the label table, one value per example.

        Raises:
            ConfigError: There is no table or no such column, or the rows of an example disagree.
        """
        if self.table is None:
            raise ConfigError(
                f"There is no column '{name}': the labels are not a table. Pass one value per example."
            )
        values = self.table.column(name)
        return tuple(
            self._one_value(name, {values[row] for row in rows}, i) for i, rows in enumerate(self.rows)
        )

    def _one_value(self, column: str, values: set[str], i: int) -> str:
        if len(values) != 1 or "" in values:
            raise ConfigError(
                f"'{self.names[i]}' has {sorted(values)} in the column '{column}'. Expected one value in "
                "all of its rows."
            )
        return next(iter(values))


def take(features: Features, indices: npt.NDArray[Any]) -> Features:
    """Some of the features."""
    if isinstance(features, list):
        return [features[int(i)] for i in indices]
    return features[indices]


def as_features(embeddings: Any) -> Features:
    """Embeddings as arrays of float32.

    Args:
        embeddings: (N, D) or (N, T, D) array or tensor, or a list of N arrays (T, D).

    Raises:
        ConfigError: Another shape, no example, or values that are not finite.
    """
    if isinstance(embeddings, (list, tuple)) and np.ndim(embeddings[0]) == 2:
        sequences = [_array(item) for item in embeddings]
        widths = {item.shape[-1] for item in sequences}
        if len(widths) > 1 or any(item.ndim != 2 or not len(item) for item in sequences):
            raise ConfigError(
                f"Sequences have shapes {sorted({item.shape for item in sequences})[:3]}. Expected (T, D)."
            )
        return sequences
    array = _array(embeddings)
    if array.ndim not in (2, 3) or not array.size:
        raise ConfigError(
            f"Embeddings have shape {array.shape}. Expected (N, D), (N, T, D) or N arrays (T, D)."
        )
    return array


def _array(values: Any) -> Floats:
    if hasattr(values, "detach"):
        values = values.detach().float().cpu().numpy()
    array = np.asarray(values, dtype=np.float32)
    if not np.isfinite(array).all():
        raise ConfigError(
            "Embeddings hold NaN or infinite values. Find the recordings with avex check, or embed again."
        )
    return array


def from_arrays(embeddings: Any, targets: Targets, groups: Sequence[Any] | None) -> Examples:
    """Examples of embeddings and labels that are in the same order.

    Raises:
        ConfigError: Their numbers differ.
    """
    features = as_features(embeddings)
    count = len(features)
    if len(targets.values) != count:
        raise ConfigError(
            f"There are {len(targets.values)} labels for {count} embeddings. Expected one for each."
        )
    if groups is not None and len(groups) != count:
        raise ConfigError(f"There are {len(groups)} groups for {count} embeddings. Expected one for each.")
    names = tuple(map(str, range(count)))
    return Examples(features, targets, names, names if groups is None else tuple(groups), unit="window")
