"""Datasets of the package alp-data (extra `data`) as clips; audio is not decoded on the way."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from avex._core.errors import ConfigError, UnknownNameError, did_you_mean
from avex._core.optional import require
from avex.configs.data import DatasetConfig
from avex.data.clips import Clip
from avex.data.manifest import clips_from_rows
from avex.data.rows import Row

_PATH_COLUMNS = ("local_path", "audio_path", "path", "audio_filepath", "file_path")
_LABEL_COLUMNS = ("labels_as_list", "labels", "label")


def load_alp_dataset(config: DatasetConfig) -> list[Clip]:
    """Clips of a registered dataset of alp-data.

    Args:
        config: Its name, split, and `data_root`: the folder that the recordings lie in.

    Raises:
        MissingExtraError: alp-data is not installed.
        UnknownNameError: It knows no such dataset.
        ConfigError: It cannot load it, or the recordings are not on this machine.
    """
    alp = require("alp_data", "data", f"Reading the dataset '{config.dataset_name}'")
    known = list(alp.list_registered_datasets())
    if config.dataset_name not in known:
        raise UnknownNameError(
            f"alp-data has no dataset '{config.dataset_name}'.{did_you_mean(config.dataset_name, known)} Known: "
            f"{', '.join(sorted(known))}."
        )
    asked = {"dataset_name": config.dataset_name, "split": config.split, "data_root": config.data_root}
    try:
        dataset, _ = alp.dataset_from_config(alp.DatasetConfig(**asked))
    except (LookupError, OSError, ValueError) as error:
        raise ConfigError(
            f"alp-data cannot load '{config.dataset_name}' ({config.split}): {error}. Its lists may lie in a "
            "private store; if you have the data, make a manifest of them and give data_root."
        ) from error
    return clips_from_alp(dataset, label_column=config.label_column, path_column=config.audio_path_col)


def clips_from_alp(
    dataset: Any,
    *,
    data_root: str | Path | None = None,
    label_column: str | None = None,
    path_column: str | None = None,
) -> list[Clip]:
    """Clips of a dataset object of alp-data.

    Args:
        dataset: An `alp_data.Dataset`.
        data_root: Folder of the recordings; None is the dataset's own.
        label_column: Column of the labels; None takes `labels_as_list`, `labels` or `label` if there is one.
        path_column: Column of the recordings; None takes `local_path` and the like.

    Raises:
        ConfigError: It has no table of rows, no column of recordings, or its recordings are not on this machine.
    """
    table = getattr(dataset, "_data", None)  # iterating over the dataset itself would decode every recording
    if table is None:
        raise ConfigError(f"{type(dataset).__name__} holds no rows. Expected a dataset of alp-data.")
    root = data_root if data_root is not None else getattr(dataset, "data_root", None)
    if root is None or "://" in str(root):
        raise ConfigError(
            f"The recordings of {type(dataset).__name__} are at '{root}', not on this machine. Copy them, and give "
            "data_root."
        )
    name = type(dataset).__name__
    rows = [Row(_plain(row), name, number, "row") for number, row in enumerate(_rows(table), start=1)]
    columns = rows[0].values if rows else {}
    path = path_column or _first(columns, _PATH_COLUMNS)
    if path is None:
        raise ConfigError(f"{name} has no column of recordings. Its columns: {', '.join(columns)}.")
    labels = label_column or _first(columns, _LABEL_COLUMNS)
    return clips_from_rows(rows, Path(root), name, label_column=labels, path_column=path)


def _rows(table: Any) -> Any:
    if hasattr(table, "to_dict") and hasattr(table, "columns"):
        return table.to_dict("records")
    return (table[index] for index in range(len(table)))


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    return {str(key): value for key, value in row.items()}


def _first(columns: Mapping[str, Any], choices: tuple[str, ...]) -> str | None:
    return next((name for name in choices if name in columns), None)
