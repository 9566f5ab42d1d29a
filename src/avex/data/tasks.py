"""A task, ready to be evaluated: clips of every part, one label map, and rounds of training and test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from avex._core.errors import ConfigError, UnknownNameError
from avex.configs.cards import TaskCard
from avex.configs.data import DatasetConfig, EvaluationSet
from avex.data.cards import resolve_set, task_card, task_names
from avex.data.clips import Clip
from avex.data.encoder import LabelEncoder
from avex.data.grouping import check_parts, group_numbers, hold_out
from avex.data.loading import LoadedClips, load_clips
from avex.data.recordings import check_recordings
from avex.data.splits import make_folds

Clips = tuple[Clip, ...]


@dataclass(frozen=True, eq=False)
class Round:
    """One training and its test.

    Attributes:
        name: `test`, or the fold that is the test, such as `fold 3`.
        train: To learn from.
        validation: To choose by; may be empty.
        test: To judge by.
    """

    name: str
    train: Clips
    validation: Clips
    test: Clips


@dataclass(frozen=True, eq=False)
class Task:
    """Clips of a task, and what counts.

    Attributes:
        name: Name in results.
        encoder: Numbers of the labels, the same in all parts.
        train: To learn from; empty with folds.
        validation: To choose by; empty where `rounds` holds a part of the training clips out.
        test: To judge by; empty with folds.
        folds: Clips with a fold each; empty with fixed parts.
        metrics: Names of metrics, the main one first.
        retrieval_mode: `test_vs_test` or `train_vs_test`.
        max_seconds: What goes beyond this is not heard.
        version: Of the card.
    """

    name: str
    encoder: LabelEncoder
    train: Clips = ()
    validation: Clips = ()
    test: Clips = ()
    folds: Clips = ()
    metrics: tuple[str, ...] = ("accuracy",)
    retrieval_mode: str = "test_vs_test"
    max_seconds: float | None = None
    version: str = "1"

    @property
    def multi_label(self) -> bool:
        """Whether a clip may have several labels, or none."""
        return self.encoder.multi_label

    @property
    def clips(self) -> Clips:
        """All clips: of training, validation, test and folds, in this order."""
        return (*self.train, *self.validation, *self.test, *self.folds)

    def rounds(self, *, validation_share: float = 0.2, seed: int = 42) -> Iterator[Round]:
        """Trainings and tests: one for fixed parts, one per fold otherwise.

        Args:
            validation_share: Share of the training clips that is held out where there is no validation part; what
                is of one recording or group stays together. 0 holds nothing out.
            seed: Of that choice.
        """
        if not self.folds:
            yield self._round("test", self.train, self.test, validation_share, seed, self.validation)
            return
        for fold in sorted({clip.fold or "" for clip in self.folds}, key=_fold_order):
            train = tuple(clip for clip in self.folds if clip.fold != fold)
            test = tuple(clip for clip in self.folds if clip.fold == fold)
            yield self._round(f"fold {fold}", train, test, validation_share, seed, ())

    def _round(
        self, name: str, train: Clips, test: Clips, share: float, seed: int, validation: Clips
    ) -> Round:
        if validation or not share:
            return Round(name, train, validation, test)
        kept, aside = hold_out(train, share, ["|".join(clip.labels) for clip in train], seed)
        return Round(name, tuple(train[i] for i in kept), tuple(train[i] for i in aside), test)


def open_task(
    task: EvaluationSet | TaskCard | str,
    data: str | os.PathLike[str] | None = None,
    *,
    folds: int = 5,
    seed: int = 42,
    check_files: bool = True,
) -> Task:
    """Read the clips of a task and check them.

    Args:
        task: An evaluation set, a card, or the name or file of a card.
        data: Folder that holds the folders of all datasets; None is what `AVEX_DATA` names.
        folds: Number of folds to make where clips have none; grouped, stratified.
        seed: Of these folds.
        check_files: Check that all recordings are there.

    Raises:
        UnknownNameError: There is no such task.
        ConfigError: Data are missing (with what to do to have them) or wrong, or a recording or group is in two
            parts.

    Example:
        >>> task = open_task("animals11", "data")  # doctest: +SKIP
        >>> [round.name for round in task.rounds()]  # doctest: +SKIP
        ['fold 1', 'fold 2', 'fold 3', 'fold 4', 'fold 5']
    """
    evaluation_set = _resolve(task)
    named = {name: getattr(evaluation_set, name) for name in ("train", "validation", "test", "folds")}
    loaded = {
        name: _load(part, evaluation_set.name, data) for name, part in named.items() if part is not None
    }
    parts = {name: part.clips for name, part in loaded.items()}
    encoder = _encoder(evaluation_set, list(loaded.values()))
    if "folds" in parts:
        parts["folds"] = _with_folds(parts["folds"], encoder, folds, seed)
        check_parts(_by_fold(parts["folds"]))
    else:
        check_parts(parts)
    if check_files:
        for name, clips in parts.items():
            check_recordings(clips, f"'{evaluation_set.name}' ({name})")
    parts, max_seconds = _limited(parts, loaded, evaluation_set.max_seconds)
    return Task(
        name=evaluation_set.name,
        encoder=encoder,
        metrics=tuple(evaluation_set.metrics),
        retrieval_mode=evaluation_set.retrieval_mode,
        max_seconds=max_seconds,
        version=evaluation_set.version,
        **parts,
    )


def _resolve(task: EvaluationSet | TaskCard | str) -> EvaluationSet:
    if isinstance(task, EvaluationSet):
        return resolve_set(task)
    return (task if isinstance(task, TaskCard) else task_card(task)).evaluation_set()


def _load(config: DatasetConfig, name: str, data: str | os.PathLike[str] | None) -> LoadedClips:
    try:
        return load_clips(config, data)
    except (ConfigError, UnknownNameError) as error:
        card = task_card(name) if name in task_names() else None
        names = {part.dataset_name for part in card.parts().values()} if card else set()
        if card is None or config.data_root is not None or config.dataset_name not in names:
            raise
        raise ConfigError(f"Task '{name}': {error}\nTo obtain the data: {card.obtain.strip()}") from error


def _limited(
    parts: dict[str, Clips], loaded: dict[str, LoadedClips], default: float | None
) -> tuple[dict[str, Clips], float | None]:
    """How much of every clip is heard; where that is not the same in all parts, their clips are cut."""
    limits = {
        name: default if part.max_seconds is None else part.max_seconds for name, part in loaded.items()
    }
    if len(set(limits.values())) == 1:
        return parts, next(iter(limits.values()))
    return {
        name: tuple(clip.beginning(limits[name]) for clip in clips) for name, clips in parts.items()
    }, None


def _encoder(evaluation_set: EvaluationSet, parts: list[LoadedClips]) -> LabelEncoder:
    maps = [part.label_map for part in parts if part.label_map is not None]
    if any(other != maps[0] for other in maps):
        raise ConfigError(
            f"The parts of '{evaluation_set.name}' have different label maps. Give all of them the same one."
        )
    label_map = maps[0] if maps else None
    if label_map is None and evaluation_set.classes is not None:
        label_map = {name: index for index, name in enumerate(evaluation_set.classes)}
    multi_label = True if evaluation_set.is_multi_label else None
    return LabelEncoder.fit(*(part.clips for part in parts), multi_label=multi_label, label_map=label_map)


def _with_folds(clips: Clips, encoder: LabelEncoder, count: int, seed: int) -> Clips:
    without = [clip for clip in clips if clip.fold is None]
    if not without:
        return clips
    if len(without) < len(clips):
        raise ConfigError(
            f"Clip '{without[0].id}' has no fold, but others have. Fill in the column 'fold', or leave it out."
        )
    targets = encoder.encode_all(clips)
    numbers = make_folds(targets, count, groups=group_numbers(clips), seed=seed, classes=encoder.classes)
    return tuple(
        replace(clip, fold=str(int(number) + 1)) for clip, number in zip(clips, numbers, strict=True)
    )


def _by_fold(clips: Clips) -> dict[str, list[Clip]]:
    parts: dict[str, list[Clip]] = {}
    for clip in clips:
        parts.setdefault(f"fold {clip.fold}", []).append(clip)
    if len(parts) < 2:
        raise ConfigError("All clips are in one fold. Cross-validation needs at least 2.")
    return parts


def _fold_order(fold: str) -> tuple[int, str]:
    return (int(fold) if fold.isdecimal() else np.iinfo(np.int64).max, fold)
