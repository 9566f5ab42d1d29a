"""Examples of an embedding store and a label table: which windows or recordings have which labels."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from avex._core.errors import ConfigError
from avex.data import LabelTable
from avex.embedding.stores import EmbeddingStore, decode_name
from avex.training.probes.examples import Examples, Features, Floats, Unit
from avex.training.probes.matching import base_name, match_recordings
from avex.training.probes.targets import encode_rows

# Share of the shorter of window and annotation from which on the window has the label.
MIN_OVERLAP = 0.5
_TOLERANCE_S = 1e-3


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
        table: Labels of recordings, or of parts of them. A window has a label if it shares at least
            `min_overlap` of the shorter of both with the part.
        classes: Names in the order of the indices; None takes the labels that occur.
        multilabel: Whether several labels, or none, are possible; None sees whether they occur.
        unit: What an example is: a `recording`, by the mean of its windows, or a `window`. None takes
            recordings unless the table has labels of parts.
        sequences: Keep the windows of a recording as a sequence instead of their mean.
        min_overlap: See `table`.

    Raises:
        ConfigError: Nothing matches, a name is ambiguous, or labels do not fit the task.
    """
    windows = _Windows.read(store)
    matched = match_recordings(table, list(dict.fromkeys(windows.files)))
    numbers: dict[str, list[int]] = defaultdict(list)
    for row, recording in enumerate(matched):
        if recording is not None:
            numbers[recording].append(row)
    by_file = {file: _FileRows(table, rows) for file, rows in numbers.items()}
    entities = windows.recordings()
    if unit is None:
        whole = all(by_file[e.file].cover(e) for e in entities if e.file in by_file)
        unit = "recording" if whole else "window"
    if unit == "window":
        entities = windows.single()
    known = [e for e in entities if e.file in by_file]
    labelled = [_labels_of(table, by_file[e.file], e, min_overlap) for e in known]
    several = multilabel
    if several is None:
        partly = unit == "window" and table.start_s is not None
        several = any(len(labels) > 1 or (partly and not labels) for labels, _ in labelled)
    if several is False:
        _check_single(known, [labels for labels, _ in labelled], table)
    kept = [i for i, (labels, _) in enumerate(labelled) if labels or several]
    notes = _notes(
        windows, matched, by_file, len(known) - len(kept), _rows_unused(table, by_file, labelled), unit
    )
    if multilabel is None and several:
        mixed = sum(len(labels) > 1 for labels, _ in labelled)
        notes += (_mixed_note(mixed, len(known), unit),) if mixed else ()
    if not kept or (classes is None and not any(labels for labels, _ in labelled)):
        raise ConfigError(
            f"No {unit} of the store has a label in the {table.source}. {' '.join(notes)}".rstrip()
        )
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
        start_s, end_s = (
            np.concatenate([batch.column(c).to_numpy() for batch in batches]) for c in ("start_s", "end_s")
        )
        return cls(
            names, [base_name(name) for name in names], start_s, end_s, store.to_numpy().astype(np.float32)
        )

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


class _FileRows:
    """Rows of the label table that speak of one file, by begin; a day has too many to ask each window for each.

    Args:
        table: The label table.
        rows: Their numbers.
    """

    def __init__(self, table: LabelTable, rows: Sequence[int]) -> None:
        self.rows = tuple(rows)
        spans = [_interval(table, row) for row in rows]
        self._spans = sorted((start, end, row) for (start, end), row in zip(spans, rows, strict=True))
        self._starts = [start for start, _, _ in self._spans]
        # Up to each row, the latest end.
        self._latest = list(accumulate((end for _, end, _ in self._spans), max))

    def cover(self, entity: _Entity) -> bool:
        """Whether every row speaks of the whole of a recording, or of nothing in it."""
        first, last = entity.start_s + _TOLERANCE_S, entity.end_s - _TOLERANCE_S
        return all(
            (start <= first and end >= last) or end <= first or start >= last for start, end, _ in self._spans
        )

    def about(self, entity: _Entity, min_overlap: float) -> tuple[int, ...]:
        """The rows that speak of a recording or window, in the order of the table."""
        near = self._spans[
            bisect_right(self._latest, entity.start_s) : bisect_left(self._starts, entity.end_s)
        ]
        length = entity.end_s - entity.start_s
        found = []
        for start, end, row in near:
            shared = min(end, entity.end_s) - max(start, entity.start_s)
            if shared > 0 and shared >= min_overlap * min(end - start, length) - 1e-9:
                found.append(row)
        return tuple(sorted(found))


def _interval(table: LabelTable, row: int) -> tuple[float, float]:
    if table.start_s is None or table.end_s is None:
        return 0.0, float("inf")
    return table.start_s[row], table.end_s[row]


def _labels_of(
    table: LabelTable, of_file: _FileRows, entity: _Entity, min_overlap: float
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Labels of a recording or window, and the rows that speak of it (all of its file's if none does)."""
    speaking = of_file.about(entity, min_overlap)
    labels = dict.fromkeys(label for row in speaking for label in table.labels[row])
    return tuple(labels), speaking or of_file.rows


def _rows_unused(
    table: LabelTable,
    by_file: Mapping[str, _FileRows],
    labelled: Sequence[tuple[tuple[str, ...], tuple[int, ...]]],
) -> int:
    """How many rows have a label that no recording or window took."""
    used = {row for labels, rows in labelled if labels for row in rows}
    return sum(
        row not in used and bool(table.labels[row]) for of_file in by_file.values() for row in of_file.rows
    )


def _check_single(entities: Sequence[_Entity], labels: Sequence[tuple[str, ...]], table: LabelTable) -> None:
    for entity, own in zip(entities, labels, strict=True):
        if len(own) > 1:
            raise ConfigError(
                f"'{entity.name}' has {len(own)} labels in the {table.source}: {', '.join(own)}. One label each "
                "was asked for. Correct the table, or allow several (multilabel=True, --multilabel)."
            )


def _mixed_note(mixed: int, total: int, unit: str) -> str:
    return (
        f"{mixed} of {total} {unit}s have several labels, so each class is decided on its own (multi-label)."
    )


def _notes(
    windows: _Windows,
    matched: Sequence[str | None],
    by_file: Mapping[str, _FileRows],
    unlabelled: int,
    unused: int,
    unit: str,
) -> tuple[str, ...]:
    unknown = len(set(windows.files)) - len(by_file)
    absent = sum(recording is None for recording in matched)
    counted: list[tuple[int, Callable[[int], str]]] = [
        (unknown, lambda n: f"{n} recordings of the store are not in the label table and were left out."),
        (absent, lambda n: f"{n} rows of the label table speak of recordings that are not in the store."),
        (unlabelled, lambda n: f"{n} {unit}s have no label and were left out."),
        (
            unused,
            lambda n: (
                f"{n} rows of the label table label no {unit}: they lie beside the {unit}s of the store or share "
                "too little with any of them (min_overlap)."
            ),
        ),
    ]
    return tuple(text(count) for count, text in counted if count)
