"""BirdSet (Rauch et al. 2024, arXiv:2403.10380): metadata tables and recordings, as on the Hugging Face hub.

The folder holds one folder per region (`HSN`, `NBP`, ...) with `*_metadata_{train,test,test_5s}.parquet`, or
`{train,test,test_5s}.parquet` (or parts of it, `train-00000-of-00002.parquet`), and the unpacked recordings
anywhere below. Audio in a table is not read. A split is `HSN-train`, `HSN-test_5s` (5-second segments with all
species in them) or `HSN-test` (one event each).
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from avex._core.errors import ConfigError, did_you_mean
from avex.audio.suffixes import AUDIO_SUFFIXES
from avex.configs.data import DatasetConfig
from avex.data.clips import Clip, clip_id
from avex.data.columns import cell_labels, cell_path, cell_stretch, find_column
from avex.data.manifest import merge_rows
from avex.data.rows import Row, read_rows

REGIONS = ("HSN", "NBP", "NES", "PER", "POW", "SNE", "SSW", "UHH", "XCM", "XCL")
_PARTS = ("train", "test", "test_5s")
_LABELS = ("ebird_code_multilabel", "ebird_code")
_KEPT = ("lat", "long", "local_time", "quality", "recordist", "license", "source", "call_type", "sex")


def import_birdset(root: Path, config: DatasetConfig) -> list[Clip]:
    """Clips of a region of BirdSet. Labels are eBird codes.

    Raises:
        ConfigError: The tables or recordings are missing, or codes are numbers without names.
    """
    region, part = _split(config.split)
    folder = root / region
    tables = _find_tables(folder, region, part)
    rows = [row for table in tables for row in read_rows(table, without=("audio",))]
    names = _class_names(tables[0])
    choices = (config.label_column,) if config.label_column else _LABELS
    column = find_column(rows[0].values, choices, f"'{tables[0]}'", "labels")
    path = config.audio_path_col or "filepath"
    find_column(rows[0].values, (path,), f"'{tables[0]}'", "recordings")
    files = _recordings(folder)
    clips = ((_clip(row, path, files, column, names, part), row) for row in rows)
    return merge_rows(clips, f"'{tables[0]}'")


def _split(split: str) -> tuple[str, str]:
    region, _, part = split.partition("-")
    if region not in REGIONS or part not in _PARTS:
        known = [f"{region}-{part}" for region in REGIONS for part in _PARTS]
        raise ConfigError(
            f"BirdSet has no split '{split}'.{did_you_mean(split, known)} Expected for instance 'HSN-train' or "
            "'HSN-test_5s'. It has no validation split: leave validation out, and a part of the training clips is "
            "held out."
        )
    return region, part


def _find_tables(folder: Path, region: str, part: str) -> list[Path]:
    choices = [f"{region}_metadata_{part}.parquet", f"{part}.parquet", f"{region}_{part}.parquet"]
    for name in choices:
        if (folder / name).is_file():
            return [folder / name]
    if pieces := sorted(folder.glob(f"{part}-*-of-*.parquet")):
        return pieces
    raise ConfigError(f"BirdSet: none of {', '.join(map(repr, choices))} is in '{folder}'.")


def _class_names(table: Path) -> dict[str, list[str]]:
    """Names of numbered classes by column, which the package `datasets` leaves in the schema of the file."""
    if table.suffix != ".parquet":
        return {}
    import pyarrow.parquet as pq

    metadata = pq.read_schema(table).metadata or {}
    described = json.loads(metadata.get(b"huggingface", b"{}"))
    features = described.get("info", {}).get("features", {})
    return {column: names for column, feature in features.items() if (names := _names(feature))}


def _names(feature: Any) -> list[str] | None:
    if isinstance(feature, list):
        return _names(feature[0]) if feature else None
    if not isinstance(feature, Mapping):
        return None
    if isinstance(feature.get("names"), list):
        return [str(name) for name in feature["names"]]
    return _names(feature.get("feature"))


def _recordings(folder: Path) -> dict[str, Path]:
    """Recordings below a folder by file name."""
    found = {}
    for parent, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            if Path(name).suffix.lower() in AUDIO_SUFFIXES:
                found[name] = Path(parent, name)
    return found


def _clip(
    row: Row, path: str, files: Mapping[str, Path], column: str, names: Mapping[str, list[str]], part: str
) -> Clip:
    values = row.values
    name = Path(cell_path(row, path)).name
    if name not in files:
        raise ConfigError(
            f"{row.place}, column '{path}': '{name}' is not below the region's folder. Unpack its archives. For a "
            "table with the audio in it use avex.data.clips_from_hf, which can write it to files."
        )
    # Training recordings are weakly labelled as a whole, whatever times they carry.
    start, last = cell_stretch(row, None if part == "train" else ("start_time", "end_time"))
    end = None if math.isinf(last) else last
    return Clip(
        files[name],
        start,
        end,
        _codes(row, column, names.get(column)),
        id=clip_id(name, start, end),
        extra={key: values[key] for key in _KEPT if key in values},
    )


def _codes(row: Row, column: str, names: list[str] | None) -> tuple[str, ...]:
    codes = cell_labels(row.values.get(column))
    if not any(code.isdecimal() for code in codes):
        return codes
    if names is None:
        raise ConfigError(
            f"{row.place}, column '{column}': {', '.join(codes)} are numbers, and the file does not name them. "
            "Save the dataset with the package `datasets`, which writes the names into the file."
        )
    return tuple(names[int(code)] for code in codes)
