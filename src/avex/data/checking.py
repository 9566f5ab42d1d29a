"""Is a task's data here, and is it what its card says?"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from avex._core.errors import AvexError, ConfigError
from avex.configs.cards import TaskCard
from avex.configs.data import EvaluationSet
from avex.data.clips import Clip
from avex.data.loading import locate
from avex.data.presence import missing_files, task_folder
from avex.data.recordings import recording_problems
from avex.data.tasks import Task, open_task


@dataclass(frozen=True)
class TaskCheck:
    """What was found of a task.

    Attributes:
        name: The task.
        folder: Where its data are looked for; None if nothing says where.
        parts: Number of clips by part; `folds` are one part.
        num_classes: Number of classes that occur; 0 if the clips could not be read.
        problems: What is wrong; empty if all is well.
        notes: What to know of data that are as they should be.
        num_folds: Number of folds.
    """

    name: str
    folder: Path | None
    parts: dict[str, int]
    num_classes: int
    problems: tuple[str, ...]
    notes: tuple[str, ...] = ()
    num_folds: int = 0

    @property
    def passed(self) -> bool:
        """Whether all is well."""
        return not self.problems


def check_task(task: TaskCard | EvaluationSet, data: str | os.PathLike[str] | None = None) -> TaskCheck:
    """Verify local data: files, recordings, clips, classes, leakage; with a card also against what it says.

    Args:
        task: A card, or an evaluation set that names its data.
        data: Folder that holds the folders of all datasets.
    """
    if isinstance(task, TaskCard):
        return _check_card(task, data)
    try:
        opened = open_task(task, data)
    except AvexError as error:
        return TaskCheck(task.name, None, {}, 0, (str(error),))
    return _checked(opened, None, [])


def _check_card(card: TaskCard, data: str | os.PathLike[str] | None) -> TaskCheck:
    try:
        folder = task_folder(card, data)
    except ConfigError as error:
        return TaskCheck(card.name, None, {}, 0, (str(error), f"To obtain the data: {card.obtain.strip()}"))
    importers = {locate(part, data)[0] for part in card.parts().values()} if folder.is_dir() else set()
    missing = () if None in importers else missing_files(card, folder)
    try:
        if missing:
            raise ConfigError(f"To obtain the data: {card.obtain.strip()}")
        task = open_task(card, data)
    except AvexError as error:
        listed = [f"'{name}' is missing in '{folder}'." for name in missing]
        return TaskCheck(card.name, folder, {}, 0, (*listed, str(error)))
    return _checked(task, folder, _differences(card, task))


def _checked(task: Task, folder: Path | None, differences: list[str]) -> TaskCheck:
    problems = (*differences, *recording_problems(task.clips))
    classes = len(_labels(task.clips))
    folds = len({clip.fold for clip in task.folds})
    return TaskCheck(task.name, folder, _sizes(task), classes, problems, tuple(_unlearnt(task)), folds)


def _sizes(task: Task) -> dict[str, int]:
    parts = {name: getattr(task, name) for name in ("train", "validation", "test", "folds")}
    return {name: len(clips) for name, clips in parts.items() if clips}


def _differences(card: TaskCard, task: Task) -> list[str]:
    """What the card says otherwise."""
    sizes, found = _sizes(task), len(_labels(task.clips))
    problems = [
        f"There are {sizes.get(name, 0)} clips for {name}, but the card says {count}."
        for name, count in card.num_clips.items()
        if sizes.get(name, 0) != count
    ]
    if card.num_classes is not None and found != card.num_classes:
        problems.append(f"The clips have {found} classes, but the card says {card.num_classes}.")
    return problems


def _unlearnt(task: Task) -> list[str]:
    """Classes that are asked for and never taught."""
    if task.folds:
        folds: dict[str, set[str | None]] = {}
        for clip in task.folds:
            for label in clip.labels:
                folds.setdefault(label, set()).add(clip.fold)
        missing = sorted(label for label, found in folds.items() if len(found) == 1)
        where = "are in one fold only, so no other clips teach them"
    else:
        missing = sorted(_labels(task.test) - _labels(task.train))
        where = "of the test are not in the training clips"
    return [f"{len(missing)} classes {where}: {', '.join(missing[:5])}."] if missing else []


def _labels(clips: Sequence[Clip]) -> set[str]:
    return {label for clip in clips for label in clip.labels}
