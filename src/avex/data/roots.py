"""Where datasets lie on this machine."""

from __future__ import annotations

import os
from pathlib import Path

from avex._core.errors import ConfigError

VARIABLE = "AVEX_DATA"
_VARIABLES = (VARIABLE, "AVEX_TEST_DATA")


def data_folder(given: str | os.PathLike[str] | None = None) -> Path | None:
    """The folder that holds the folders of all datasets: as given, else what `AVEX_DATA` names, else None.

    `AVEX_TEST_DATA`, the recordings of the tests, is looked at last.
    """
    if given is not None:
        return Path(given).expanduser()
    for name in _VARIABLES:
        if value := os.environ.get(name):
            return Path(value).expanduser()
    return None


def dataset_folder(name: str, given: str | os.PathLike[str] | None = None) -> Path:
    """The folder of a dataset inside the data folder, whether it exists or not.

    Raises:
        ConfigError: Nothing says where data are.

    Example:
        >>> dataset_folder("beans", "/data").as_posix()
        '/data/beans'
    """
    folder = data_folder(given)
    if folder is None:
        raise ConfigError(
            f"Nothing says where the data of '{name}' are. Pass --data FOLDER (data_root in a config), or set the "
            f"environment variable {VARIABLE} to the folder that holds '{name}'."
        )
    return folder / name
