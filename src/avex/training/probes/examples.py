"""Examples to learn from: features, targets, and which recording each is of."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from avex._core.errors import ConfigError
from avex.data import LabelTable
from avex.embedding.stores import EmbeddingStore, StoreHeader, decode_name
from avex.training.probes.matching import base_name, match_recordings
from avex.training.probes.targets import Targets, encode_rows

Floats = npt.NDArray[np.float32]
Features = Floats | list[Floats]
Unit = Literal["recording", "window"]

# Share of the shorter of window and annotation from which on the window has the label.
MIN_OVERLAP = 0.5
_TOLERANCE_S = 1e-3


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
                f"'{self.names[i]}' has {sorted(values)} in the column '{column}'. Expected one value in all of its rows."
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


def from_store(
    store: EmbeddingStore,
    table: LabelTable,
    *,
    classes: Sequence[str] | None = None,
    multilabel: bool | None = None,
    unit: Unit | None = None,
    sequences: bool = False,
    min_overlap: float = MIN_OVERLAP,
) -> Examples:
    """Examples of a store and a label table.

    Args:
        store: Embeddings of windows.
        table: Labels of recordings, or of parts of them. A window has a label if it shares at least `min_overlap` of the
            shorter of both with the part.
        classes: Names in the order of the indices; None takes the labels that occur.
        multilabel: Whether several labels, or none, are possible; None sees whether they occur.
        unit: What an example is: a `recording`, by the mean of its windows, or a `window`. None takes recordings unless
            the table has labels of parts.
        sequences: Keep the windows of a recording as a sequence instead of their mean.
        min_overlap: See `table`.

    Raises:
        ConfigError: Nothing matches, a name is ambiguous, or labels do not fit the task.
    """
    windows = _Windows.read(store)
    matched = match_recordings(table, list(dict.fromkeys(windows.files)))
    by_file: dict[str, list[int]] = defaultdict(list)
    for row, recording in enumerate(matched):
        if recording is not None:
            by_file[recording].append(row)
    entities = windows.recordings()
    if unit is None:
        whole = all(_covers(table, by_file.get(e.file, ()), e) for e in entities)
        unit = "recording" if whole else "window"
    if unit == "window":
        entities = windows.single()
    known = [e for e in entities if e.file in by_file]
    labelled = [_labels_of(table, by_file[e.file], e, min_overlap) for e in known]
    several = multilabel
    if several is None:
        partly = unit == "window" and table.start_s is not None
        several = any(len(labels) > 1 or (partly and not labels) for labels, _ in labelled)
    kept = [i for i, (labels, _) in enumerate(labelled) if labels or several]
    notes = _notes(windows, matched, by_file, len(known) - len(kept), unit)
    if not kept:
        raise ConfigError(f"No {unit} of the store has a label in the {table.source}. {' '.join(notes)}")
    return Examples(
        features=windows.features([known[i] for i in kept], sequences and unit == "recording"),
        targets=encode_rows([labelled[i][0] for i in kept], classes, several),
        names=tuple(known[i].name for i in kept),
        groups=tuple(known[i].file for i in kept),
        rows=tuple(labelled[i][1] for i in kept),
        table=table,
        header=store.header,
        unit=unit,
        notes=notes,
    )


@dataclass(frozen=True)
class _Entity:
    """A recording or a window: its rows in the store and the seconds that they cover."""

    name: str
    file: str
    rows: slice | npt.NDArray[np.int64]
    start_s: float
    end_s: float


@dataclass(frozen=True, eq=False)
class _Windows:
    """All rows of a store."""

    names: list[str]
    files: list[str]
    start_s: npt.NDArray[np.float64]
    end_s: npt.NDArray[np.float64]
    embedding: Floats

    @classmethod
    def read(cls, store: EmbeddingStore) -> _Windows:
        batches = list(store.scan(["recording", "start_s", "end_s"]))
        names = [decode_name(name) for batch in batches for name in batch.column("recording").to_pylist()]
        if not names:
            raise ConfigError(
                "The embedding store is empty. Embed recordings first: avex embed INPUT -o STORE."
            )
        times = [
            np.concatenate([batch.column(c).to_numpy() for batch in batches]) for c in ("start_s", "end_s")
        ]
        return cls(names, [base_name(name) for name in names], *times, store.to_numpy().astype(np.float32))

    def recordings(self) -> list[_Entity]:
        members: dict[str, list[int]] = defaultdict(list)
        for i, name in enumerate(self.names):
            members[name].append(i)
        return [
            _Entity(
                name,
                self.files[rows[0]],
                np.array(rows),
                float(self.start_s[rows].min()),
                float(self.end_s[rows].max()),
            )
            for name, rows in members.items()
        ]

    def single(self) -> list[_Entity]:
        return [
            _Entity(f"{name} {start:g}-{end:g} s", file, np.array([i]), float(start), float(end))
            for i, (name, file, start, end) in enumerate(
                zip(self.names, self.files, self.start_s, self.end_s, strict=True)
            )
        ]

    def features(self, entities: Sequence[_Entity], sequences: bool) -> Features:
        if sequences:
            return [self.embedding[e.rows] for e in entities]
        return np.stack([self.embedding[e.rows].mean(0) for e in entities])


def _interval(table: LabelTable, row: int) -> tuple[float, float]:
    if table.start_s is None or table.end_s is None:
        return 0.0, float("inf")
    return table.start_s[row], table.end_s[row]


def _covers(table: LabelTable, rows: Sequence[int], entity: _Entity) -> bool:
    """Whether every row speaks of the whole of a recording, or of nothing in it."""
    for row in rows:
        start, end = _interval(table, row)
        inside = start <= entity.start_s + _TOLERANCE_S and end >= entity.end_s - _TOLERANCE_S
        outside = end <= entity.start_s + _TOLERANCE_S or start >= entity.end_s - _TOLERANCE_S
        if not (inside or outside):
            return False
    return True


def _labels_of(
    table: LabelTable, rows: Sequence[int], entity: _Entity, min_overlap: float
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Labels of a recording or window, and the rows that speak of it (all of its file's if none does)."""
    labels: dict[str, None] = {}
    speaking = []
    for row in rows:
        start, end = _interval(table, row)
        shared = min(end, entity.end_s) - max(start, entity.start_s)
        if shared > 0 and shared >= min_overlap * min(end - start, entity.end_s - entity.start_s) - 1e-9:
            labels.update(dict.fromkeys(table.labels[row]))
            speaking.append(row)
    return tuple(labels), tuple(speaking or rows)


def _notes(
    windows: _Windows, matched: Sequence[str | None], by_file: dict[str, Any], unlabelled: int, unit: str
) -> tuple[str, ...]:
    unknown = len(set(windows.files)) - len(by_file)
    absent = sum(recording is None for recording in matched)
    counted: list[tuple[int, Callable[[int], str]]] = [
        (unknown, lambda n: f"{n} recordings of the store are not in the label table and were left out."),
        (absent, lambda n: f"{n} rows of the label table speak of recordings that are not in the store."),
        (unlabelled, lambda n: f"{n} {unit}s have no label and were left out."),
    ]
    return tuple(text(count) for count, text in counted if count)
