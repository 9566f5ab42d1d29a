"""How tables are named, and which recording a table's name speaks of."""

from __future__ import annotations

import os
import re
from pathlib import PurePath

from avex._core.errors import ConfigError

_BIRDNET = re.compile(r"birdnet([-_ ]?v?\d+(\.\d+)*)?", re.IGNORECASE)
_ENDINGS = re.compile(
    r"(\.[^.]+)?\.(selection\.table|results)\.(txt|csv|kaleidoscope\.csv|parquet|json)$"  # ours, BirdNET's
    r"|(\.Table\.\d+)?\.selections\.txt$"  # Raven's
    r"|\.(txt|csv|tsv)$",
    re.IGNORECASE,
)


def table_stem(recording_stem: str, model_name: str) -> str:
    """Return `<recording>.<model>`, with BirdNET spelled as its users know it.

    Raises:
        ConfigError: A part is empty or would leave the output folder.
    """
    parts = PurePath(recording_stem).parts
    if not parts or PurePath(recording_stem).is_absolute() or ".." in parts:
        raise ConfigError(
            f"A table cannot be named after '{recording_stem}'. Expected the recording's name without its "
            "extension, with folders below the output folder at most."
        )
    if not model_name or "/" in model_name or "\\" in model_name:
        raise ConfigError(
            f"A table cannot carry the model name '{model_name}'. Expected the name of a card, such as 'birdnet'."
        )
    return f"{recording_stem}.{'BirdNET' if _BIRDNET.fullmatch(model_name) else model_name}"


def recording_of_table(path: str | os.PathLike[str]) -> str:
    """Return the name of the recording that a table of one recording is called after, without extension.

    Example:
        >>> recording_of_table("out/dawn.BirdNET.results.csv")
        'dawn'
    """
    name = PurePath(path).name
    return _ENDINGS.sub("", name) or name
