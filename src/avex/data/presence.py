"""Where a task's data are looked for, and whether they seem to be there. Reads no data and imports little."""

from __future__ import annotations

import os
from pathlib import Path

from avex._core.errors import ConfigError
from avex.configs.cards import TaskCard
from avex.data.roots import dataset_folder


def task_folder(card: TaskCard, data: str | os.PathLike[str] | None = None) -> Path:
    """The folder that a task's data are looked for in, whether it exists or not.

    Raises:
        ConfigError: Nothing says where data are.
    """
    part = next(iter(card.parts().values()))
    if part.data_root is not None:
        root = Path(part.data_root)
        return root.parent if root.suffix else root
    return dataset_folder(card.layout.folder, data)


def is_present(card: TaskCard, data: str | os.PathLike[str] | None = None) -> bool:
    """Whether the files that a card names are there; nothing is read."""
    try:
        folder = task_folder(card, data)
    except ConfigError:
        return False
    return not missing_files(card, folder)


def missing_files(card: TaskCard, folder: Path) -> tuple[str, ...]:
    """Files that a card names and that are not in a folder."""
    return tuple(name for name in card.layout.files if not (folder / name).exists())
