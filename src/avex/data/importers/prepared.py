"""Data that were made ready: a manifest, one manifest per split, or a folder per class."""

from __future__ import annotations

from pathlib import Path

from avex._core.errors import ConfigError
from avex.configs.data import DatasetConfig
from avex.data.clips import Clip, select
from avex.data.manifest import SPLIT_FOLDERS, read_folder, read_manifest
from avex.data.rows import TABLE_SUFFIXES

ALL = "all"


def import_manifest(root: Path, config: DatasetConfig) -> list[Clip]:
    """Clips of a table, or of a folder with `manifest.csv` or a table named after the split.

    Raises:
        ConfigError: There is no table, or it has no clips of the split.
    """
    table = find_table(root, config.split) if root.is_dir() else root
    if table is None:
        raise ConfigError(
            f"Folder '{root}' holds neither 'manifest.csv' nor '{config.split}.csv' (or .tsv, .jsonl, .parquet). "
            "For a folder per class set dataset_name: folder."
        )
    clips = read_manifest(table, label_column=config.label_column, path_column=config.audio_path_col)
    if table.stem == config.split:
        return clips
    return of_split(clips, config.split, f"'{table}'")


def import_folder(root: Path, config: DatasetConfig) -> list[Clip]:
    """Clips of a folder that holds a folder for each class, directly or in `train`, `validation` and `test`."""
    return of_split(read_folder(root), config.split, f"Folder '{root}'")


def find_table(folder: Path, split: str) -> Path | None:
    """The table of a split in a folder: the split's own, else `manifest`."""
    for stem in (split, "manifest"):
        for suffix in TABLE_SUFFIXES:
            if (table := folder / f"{stem}{suffix}").is_file():
                return table
    return None


def of_split(clips: list[Clip], split: str, source: str) -> list[Clip]:
    """Clips of a split; `all` is all of them.

    Raises:
        ConfigError: There are none.
    """
    if split == ALL:
        return clips
    words = sorted({clip.split for clip in clips if clip.split})
    same = {word: SPLIT_FOLDERS.get(word.strip().lower(), word) for word in words}
    wanted = SPLIT_FOLDERS.get(split.lower(), split)
    kept = [clip for word in words if same[word] == wanted for clip in select(clips, split=word)]
    if not kept:
        raise ConfigError(
            f"{source} has no clips of the split '{split}'. Its splits: {', '.join(words) or 'none'}. Use split: "
            "all for all clips, or correct the column 'split'."
        )
    return kept
