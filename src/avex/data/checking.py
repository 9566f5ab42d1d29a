"""Is a task's data here, and is it what its card says?"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from avex._core.errors import AvexError, ConfigError
from avex.configs.cards import TaskCard
from avex.data.clips import Clip
from avex.data.loading import locate
from avex.data.presence import missing_files, task_folder
from avex.data.tasks import Task, open_task


@dataclass(frozen=True)
class TaskCheck:
    """What was found of a task.

    Attributes:
        name: The task.
        folder: Where its data are looked for; None if nothing says where.
        parts: Number of clips by part.
        num_classes: Number of classes that occur; 0 if the clips could not be read.
        problems: What is wrong; empty if all is well.
    """

    name: str
    folder: Path | None
    parts: dict[str, int]
    num_classes: int
    problems: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether all is well."""
        return not self.problems


def check_task(card: TaskCard, data: str | os.PathLike[str] | None = None) -> TaskCheck:
    """Verify a local copy against its card: files, recordings, clips, classes, leakage.

    Args:
        card: The card.
        data: Folder that holds the folders of all datasets.
    """
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
    parts = {name: getattr(task, name) for name in ("train", "validation", "test", "folds")}
    sizes = {name: len(clips) for name, clips in parts.items() if clips}
    found = len({label for clip in task.clips for label in clip.labels})
    return TaskCheck(card.name, folder, sizes, found, tuple(_differences(card, task, sizes, found)))


def _differences(card: TaskCard, task: Task, sizes: dict[str, int], found: int) -> list[str]:
    problems = [
        f"{name} has {sizes.get(name, 0)} clips, but the card says {count}."
        for name, count in card.num_clips.items()
        if sizes.get(name, 0) != count
    ]
    if card.num_classes is not None and found != card.num_classes:
        problems.append(f"The clips have {found} classes, but the card says {card.num_classes}.")
    return problems + _unlearnt(task)


def _unlearnt(task: Task) -> list[str]:
    """Classes that are asked for and never taught."""
    if task.folds:
        return []
    taught, asked = _labels(task.train), _labels(task.test)
    missing = sorted(asked - taught)
    if not missing:
        return []
    return [f"{len(missing)} classes of the test are not in the training clips: {', '.join(missing[:5])}."]


def _labels(clips: Sequence[Clip]) -> set[str]:
    return {label for clip in clips for label in clip.labels}
