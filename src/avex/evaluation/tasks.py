"""A task in memory: clips with labels, and the rounds of training and testing that they are meant for."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from avex._core.errors import ConfigError
from avex.data.clips import Clip
from avex.data.encoder import LabelEncoder
from avex.data.grouping import group_numbers
from avex.data.splits import Split, check_leakage
from avex.data.tasks import Task as OpenedTask
from avex.evaluation.contents import FileContents
from avex.training.probes.targets import Targets

Indices = npt.NDArray[np.int64]
RetrievalMode = Literal["test_vs_test", "train_vs_test"]
ROLES = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class Round:
    """One training and its test.

    Attributes:
        name: `test`, or the fold that is the test.
        train: To learn from.
        validation: To choose by; may be empty.
        test: To judge by.
        inner: (T,) fold of each training clip, to choose by; None without given folds.
    """

    name: str
    train: Indices
    validation: Indices
    test: Indices
    inner: Indices | None = None


@dataclass(frozen=True, eq=False)
class Task:
    """Clips, what they are, and how they are divided.

    Attributes:
        name: Name in results.
        clips: All clips.
        parts: (N) part of each: `train`, `validation`, `test`; or its fold.
        encoder: Classes, the same for all parts.
        folds: Whether `parts` are folds, each of which is the test once.
        metrics: Names of metrics; the first one counts.
        retrieval_mode: Where queries are searched.
        max_seconds: What goes beyond this is not heard.
        version: Of the task's definition.

    Raises:
        ConfigError: A part is missing, or a recording (or group) is in two parts.

    Example:
        >>> from pathlib import Path
        >>> clips = tuple(Clip(Path(f"{i}.wav"), labels=("ab"[i % 2],)) for i in range(4))
        >>> task = Task("demo", clips, ("1", "1", "2", "2"), LabelEncoder.fit(clips), folds=True)
        >>> [(r.name, r.train.tolist(), r.test.tolist()) for r in task.rounds()]
        [('1', [2, 3], [0, 1]), ('2', [0, 1], [2, 3])]
    """

    name: str
    clips: tuple[Clip, ...]
    parts: tuple[str, ...]
    encoder: LabelEncoder
    folds: bool = False
    metrics: tuple[str, ...] = ("accuracy",)
    retrieval_mode: RetrievalMode = "test_vs_test"
    max_seconds: float | None = None
    version: str = "1"

    def __post_init__(self) -> None:
        if len(self.parts) != len(self.clips) or not self.clips:
            raise ConfigError(f"Task '{self.name}': {len(self.parts)} parts for {len(self.clips)} clips.")
        if self.folds:
            if len(set(self.parts)) < 2:
                raise ConfigError(
                    f"Task '{self.name}' has one fold, '{self.parts[0]}'. Expected at least two."
                )
        elif missing := {"train", "test"} - set(self.parts):
            raise ConfigError(f"Task '{self.name}' has no clips for {' and '.join(sorted(missing))}.")
        self._check_leakage()

    @classmethod
    def of(cls, opened: OpenedTask) -> Task:
        """A task that was opened with `avex.data.tasks.open_task`."""
        named = {"train": opened.train, "validation": opened.validation, "test": opened.test}
        parts = [name for name, clips in named.items() for _ in clips]
        return cls(
            name=opened.name,
            clips=opened.clips,
            parts=(*parts, *(str(clip.fold) for clip in opened.folds)),
            encoder=opened.encoder,
            folds=bool(opened.folds),
            metrics=opened.metrics,
            retrieval_mode="train_vs_test" if opened.retrieval_mode == "train_vs_test" else "test_vs_test",
            max_seconds=opened.max_seconds,
            version=opened.version,
        )

    def _check_leakage(self) -> None:
        groups = self.groups
        for round_ in self.rounds():
            check_leakage(Split(round_.train, round_.validation, round_.test), groups)

    @property
    def multi_label(self) -> bool:
        """Whether a clip may be of several classes or of none."""
        return self.encoder.multi_label

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in order."""
        return self.encoder.classes

    @property
    def groups(self) -> tuple[str, ...]:
        """(N) what must stay on one side: clips of one recording or one group have the same."""
        return tuple(str(number) for number in group_numbers(self.clips))

    def targets(self) -> Targets:
        """What the clips are, as numbers."""
        values: npt.NDArray[Any] = self.encoder.encode_all(self.clips)
        return Targets(values.astype(np.uint8) if self.multi_label else values, self.classes)

    def part_names(self) -> list[str]:
        """Parts that hold clips: train, validation, test; or folds, numbers by value."""
        present = set(self.parts)
        if not self.folds:
            return [role for role in ROLES if role in present]
        return sorted(present, key=lambda name: (0, int(name), "") if name.isdecimal() else (1, 0, name))

    def indices(self, part: str) -> Indices:
        """Clips of a part."""
        return np.flatnonzero(np.array(self.parts) == part)

    def tested(self) -> Indices:
        """Clips that are tested: the test part, or all of them where there are folds."""
        return np.arange(len(self.clips)) if self.folds else self.indices("test")

    def rounds(self) -> list[Round]:
        """Trainings with their tests."""
        empty = np.zeros(0, np.int64)
        if not self.folds:
            return [Round("test", *(self.indices(role) for role in ROLES))]
        names = self.part_names()
        number = np.array([names.index(part) for part in self.parts])
        rounds = []
        for i, name in enumerate(names):
            train = np.flatnonzero(number != i)
            inner = number[train] if len(names) > 2 else None
            rounds.append(Round(name, train, empty, np.flatnonzero(number == i), inner))
        return rounds

    def digest(self, contents: FileContents) -> str:
        """A sha256 of all that makes the task: what is heard, wherever it is stored, labels and parts.

        Raises:
            AudioError: A recording is not there.
        """
        heard = contents.clip_keys(self.clips, self.max_seconds)
        named = [(clip.id, clip.labels) for clip in self.clips]
        rest = [self.version, self.parts, self.groups, self.classes, self.multi_label]
        return hashlib.sha256(json.dumps([heard, named, *rest]).encode()).hexdigest()
