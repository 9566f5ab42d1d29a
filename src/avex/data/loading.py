"""From a `DatasetConfig` to clips: find the folder, import, transform."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from avex._core.errors import ConfigError, UnknownNameError
from avex._core.optional import available
from avex.configs.data import DatasetConfig
from avex.data.cards import task_card, task_names
from avex.data.clips import Clip
from avex.data.columns import cell_text
from avex.data.importers import IMPORTERS, import_clips
from avex.data.importers.prepared import find_table
from avex.data.roots import dataset_folder
from avex.data.transforms import apply_transforms

_GENERIC = ("manifest", "folder", "shards")


@dataclass(frozen=True, eq=False)
class LoadedClips:
    """Clips of a dataset's split.

    Attributes:
        clips: The clips.
        label_map: Number of each label, if a transformation was given one.
        multi_label: Whether clips may have several labels or none, as far as the config says.
        max_seconds: What goes beyond this is not heard; None for all of it.
    """

    clips: tuple[Clip, ...]
    label_map: dict[str, int] | None
    multi_label: bool
    max_seconds: float | None = None


def load_clips(config: DatasetConfig, data: str | os.PathLike[str] | None = None) -> LoadedClips:
    """Read and transform the clips of a dataset's split; no audio is opened.

    Args:
        config: The dataset.
        data: Folder that holds the folders of all datasets, if the config states no `data_root`.

    Raises:
        UnknownNameError: There is no dataset, layout or split of this name.
        ConfigError: The data are missing or wrong.

    Example:
        >>> load_clips(DatasetConfig(dataset_name="manifest", data_root="clips.csv"))  # doctest: +SKIP
    """
    importer, root = locate(config, data)
    if importer is None:
        from avex.data.adapters.alp import load_alp_dataset

        clips = load_alp_dataset(config)
    else:
        clips = import_clips(importer, root, config)
    result = apply_transforms(_columns(clips, config), config.transformations)
    if not result.clips:
        raise ConfigError(
            f"Nothing is left of '{config.dataset_name}' ({config.split}) after its transformations."
        )
    return LoadedClips(
        tuple(result.clips), _label_map(config), config.is_multi_label, config.audio_max_length_seconds
    )


def locate(config: DatasetConfig, data: str | os.PathLike[str] | None = None) -> tuple[str | None, Path]:
    """Name of the importer of a dataset, and its folder; None for what the package alp-data reads.

    Raises:
        UnknownNameError: There is no dataset or layout of this name.
        ConfigError: Nothing says where the data are.
    """
    name = config.dataset_name
    if name in _GENERIC and config.data_root is None:
        raise ConfigError(f"dataset_name '{name}' needs data_root: the table or folder of the clips.")
    if name in IMPORTERS:
        folder = "birdset" if name == "birdset_train" else name
        return name, _root(config, folder, data)
    if name in task_names():
        layout = task_card(name).layout
        return layout.importer, _root(config, layout.folder, data)
    if config.data_root is not None:
        return "manifest", Path(config.data_root).expanduser()
    prepared = _prepared(name, config, data)
    if prepared is not None:
        return "manifest", prepared
    if available("alp_data"):
        return None, Path()
    raise UnknownNameError(
        f"Dataset '{name}' was not found. Put it into the data folder (--data or AVEX_DATA) as "
        f"'{name}/manifest.csv' with the columns path, label and split, or install what reads it: pip install "
        f"'avex[data]'. Layouts that can be read: {', '.join(IMPORTERS)}."
    )


def _root(config: DatasetConfig, folder: str, data: str | os.PathLike[str] | None) -> Path:
    if config.data_root is not None:
        return Path(config.data_root).expanduser()
    return dataset_folder(folder, data)


def _prepared(name: str, config: DatasetConfig, data: str | os.PathLike[str] | None) -> Path | None:
    """The folder of a dataset that was made ready under its own name."""
    try:
        folder = dataset_folder(name, data)
    except ConfigError:
        return None
    return folder if folder.is_dir() and find_table(folder, config.split) else None


def _columns(clips: list[Clip], config: DatasetConfig) -> list[Clip]:
    """Rename and keep columns, as `output_take_and_give` says."""
    if config.output_take_and_give is None:
        return clips
    names = config.output_take_and_give.items()
    return [replace(clip, extra={new: clip.feature(old) for old, new in names}) for clip in clips]


def _label_map(config: DatasetConfig) -> dict[str, int] | None:
    for step in reversed(config.transformations or []):
        given = getattr(step, "label_map", None)
        if given is not None:
            return {cell_text(label): int(index) for label, index in given.items()}
    return None
