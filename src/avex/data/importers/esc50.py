"""ESC-50 (Piczak 2015): `meta/esc50.csv` and `audio/`, as in its repository."""

from __future__ import annotations

from pathlib import Path

from avex._core.errors import ConfigError
from avex.configs.data import DatasetConfig
from avex.data.clips import Clip
from avex.data.importers.prepared import ALL
from avex.data.rows import read_rows

TABLE = "meta/esc50.csv"
_COLUMNS = ("filename", "fold", "category")


def import_esc50(root: Path, config: DatasetConfig) -> list[Clip]:
    """Clips of ESC-50 with its official folds; excerpts of one Freesound recording are a group.

    The split is `all`, `fold1` to `fold5`, or `esc10` for the ten classes of the small set.

    Raises:
        ConfigError: The table is missing or has other columns, or there is no such split.
    """
    table = root / TABLE
    if not table.is_file():
        raise ConfigError(
            f"ESC-50 has no '{TABLE}' in '{root}'. Expected the folder of a clone or download of its repository."
        )
    clips = []
    for row in read_rows(table):
        values = row.values
        missing = [name for name in _COLUMNS if not values.get(name)]
        if missing:
            raise ConfigError(f"{row.place}: nothing in the column '{missing[0]}' of ESC-50.")
        extra = {name: value for name, value in values.items() if name not in _COLUMNS}
        clips.append(
            Clip(
                root / "audio" / values["filename"],
                labels=(values["category"],),
                fold=values["fold"],
                group=values.get("src_file") or None,
                id=values["filename"],
                extra=extra,
            )
        )
    return _of_split(clips, config.split)


def _of_split(clips: list[Clip], split: str) -> list[Clip]:
    if split == ALL:
        return clips
    if split == "esc10":
        return [clip for clip in clips if str(clip.extra.get("esc10")).lower() == "true"]
    kept = [clip for clip in clips if f"fold{clip.fold}" == split]
    if not kept:
        raise ConfigError(f"ESC-50 has no split '{split}'. Expected 'all', 'esc10', or 'fold1' to 'fold5'.")
    return kept
