"""Labels to numbers: one label map for all splits of a task."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from avex._core.errors import ConfigError, did_you_mean
from avex.data.clips import Clip, classes_of

_SHOWN = 5


@dataclass(frozen=True)
class LabelEncoder:
    """The classes of a task, in order.

    Fit it on all splits together, so that a number means the same class everywhere.

    Attributes:
        classes: (C) names; the position is the number.
        multi_label: Whether a clip may have several labels, or none.
        unknown: What to do with a label that is no class: raise, or leave it out (multi-label only).

    Raises:
        ConfigError: No classes, two of one name, or `unknown="drop"` for single labels.

    Example:
        >>> encoder = LabelEncoder(("frog", "newt"), multi_label=True)
        >>> encoder.encode(("newt",)).tolist()
        [0.0, 1.0]
    """

    classes: tuple[str, ...]
    multi_label: bool = False
    unknown: Literal["error", "drop"] = "error"

    def __post_init__(self) -> None:
        if not self.classes or len(set(self.classes)) != len(self.classes):
            raise ConfigError(
                f"A label encoder needs classes, each once; got {list(self.classes)[:_SHOWN]}. Check the labels."
            )
        if self.unknown == "drop" and not self.multi_label:
            raise ConfigError(
                "unknown='drop' would leave clips without their only label. Filter these clips out instead."
            )

    @classmethod
    def fit(
        cls,
        *parts: Iterable[Clip],
        multi_label: bool | None = None,
        label_map: Mapping[str, int] | None = None,
        unknown: Literal["error", "drop"] = "error",
    ) -> LabelEncoder:
        """Make an encoder for all clips of all splits.

        Args:
            parts: Clips of each split.
            multi_label: None decides by the clips: several labels, or none, on any of them mean True.
            label_map: Numbers of the labels, from 0 without gaps; None numbers them in alphabetical order.
            unknown: See the class.

        Raises:
            ConfigError: There are no labels, or the label map has gaps.
        """
        clips = [clip for part in parts for clip in part]
        if multi_label is None:
            multi_label = any(len(clip.labels) != 1 for clip in clips)
        if label_map is not None:
            return cls(_ordered(label_map), multi_label, unknown)
        classes = classes_of(clips)
        if not classes:
            raise ConfigError(
                f"None of the {len(clips)} clips has a label. Name the column of labels (label_column, or "
                "--label-column), or use a transformation such as label_from_feature."
            )
        return cls(classes, multi_label, unknown)

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.classes)

    @property
    def label_to_index(self) -> dict[str, int]:
        """Number of each class."""
        return {name: index for index, name in enumerate(self.classes)}

    def encode(self, labels: Sequence[str]) -> npt.NDArray[np.float32] | int:
        """Number of a single label, or (C,) 0/1 for several.

        Raises:
            ConfigError: A label is unknown, or a single label is wanted and there are none or several.
        """
        if self.multi_label:
            row = np.zeros(len(self.classes), np.float32)
            row[self._numbers(labels, self.label_to_index)] = 1.0
            return row
        if len(labels) != 1:
            raise ConfigError(
                f"Expected one label per clip, but found {list(labels)[:_SHOWN]}. Set multi_label, or correct "
                "the table."
            )
        return self._numbers(labels, self.label_to_index)[0]

    def encode_all(self, clips: Sequence[Clip]) -> npt.NDArray[np.int64] | npt.NDArray[np.float32]:
        """(N,) numbers, or (N, C) 0/1, of the clips in order.

        Raises:
            ConfigError: As for `encode`, with the clip.
        """
        numbers = self.label_to_index
        if self.multi_label:
            rows = np.zeros((len(clips), len(self.classes)), np.float32)
            for i, clip in enumerate(clips):
                rows[i, self._numbers(clip.labels, numbers, clip.id)] = 1.0
            return rows
        return np.array([self._numbers((clip.label,), numbers, clip.id)[0] for clip in clips], np.int64)

    def decode(self, row: npt.ArrayLike) -> tuple[str, ...]:
        """Names of a number, or of the ones in a (C,) row."""
        values = np.asarray(row)
        if values.ndim == 0:
            return (self.classes[int(values)],)
        return tuple(self.classes[i] for i in np.flatnonzero(values))

    def _numbers(self, labels: Sequence[str], numbers: Mapping[str, int], clip: str = "") -> list[int]:
        unknown = [label for label in labels if label not in numbers]
        if unknown and self.unknown == "error":
            of = f" of clip '{clip}'" if clip else ""
            raise ConfigError(
                f"The label '{unknown[0]}'{of} is none of the {len(numbers)} classes."
                f"{did_you_mean(unknown[0], numbers)} Fit the encoder on all splits, or add it to the label map."
            )
        return [numbers[label] for label in labels if label in numbers]


def _ordered(label_map: Mapping[str, int]) -> tuple[str, ...]:
    if sorted(label_map.values()) != list(range(len(label_map))):
        raise ConfigError(
            f"A label map of {len(label_map)} labels must number them 0 to {len(label_map) - 1}, each once; got "
            f"{sorted(label_map.values())[:_SHOWN]} ... ."
        )
    return tuple(sorted(label_map, key=label_map.__getitem__))
