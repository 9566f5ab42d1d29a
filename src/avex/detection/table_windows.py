"""Selection tables of long recordings to labelled windows, which benchmarks and training take."""

from __future__ import annotations

import inspect
import os
from dataclasses import dataclass, replace
from pathlib import Path

from avex._core.errors import ConfigError
from avex._core.registry import load_attribute
from avex.audio.suffixes import AUDIO_SUFFIXES
from avex.data.clips import Clip
from avex.data.windows import windows_from_events
from avex.detection.read import sniff_format
from avex.detection.records import Detection


@dataclass(frozen=True)
class TableWindows:
    """How annotated recordings are cut.

    Attributes:
        window_s: Length of a window in seconds.
        hop_s: Distance of two; None is the length.
        min_overlap: See `avex.data.windows.window_labels`.
        label_column: Column of the labels, in tables that may have several.
    """

    window_s: float = 5.0
    hop_s: float | None = None
    min_overlap: float = 0.2
    label_column: str | None = None


def clips_from_tables(
    folder: str | os.PathLike[str], tables: str, windows: TableWindows | None = None
) -> list[Clip]:
    """Cut the recordings that selection tables annotate into windows with the labels of the events in them.

    A table names its recording in a column or by its own name (`dawn.Table.1.selections.txt` is of `dawn.wav`).
    Of recordings with the same name, the one in the table's folder is meant. A table without rows says that
    nothing calls in its recording; recordings without a table are left out.

    Args:
        folder: Folder of recordings and tables, with folders in it.
        tables: Pattern of the tables, such as `*.txt`: Raven, Audacity, Kaleidoscope, BirdNET and the like.
        windows: How recordings are cut.

    Raises:
        ConfigError: There are no such tables, one cannot be read, or its recording is not there or not certain.
        AudioError: A recording cannot be read.

    Example:
        >>> clips_from_tables("dawn", "*.txt", TableWindows(window_s=3))  # doctest: +SKIP
    """
    options = windows or TableWindows()
    root = Path(folder)
    if not root.is_dir():
        raise ConfigError(f"Selection tables are looked for in a folder, but '{root}' is none.")
    files = sorted(file for file in root.rglob(tables) if file.is_file())
    if not files:
        raise ConfigError(f"No file in '{root}' matches '{tables}'.")
    found = _recordings(root)
    events: list[Detection] = []
    names: dict[str, None] = {}
    for table in files:
        rows = _read(table, options.label_column)
        own = [replace(row, recording=_recording(row.recording, table, root, found)) for row in rows]
        names |= dict.fromkeys([row.recording for row in own] or [_named_by(table, root, found)])
        events += own
    return windows_from_events(
        events,
        _durations(names, root),
        window_s=options.window_s,
        hop_s=options.hop_s,
        min_overlap=options.min_overlap,
        root=root,
    )


def _read(table: Path, label_column: str | None) -> list[Detection]:
    if not table.read_bytes().strip():
        return []  # what Audacity writes where there are no labels
    kind = sniff_format(table)
    takes = inspect.signature(load_attribute(f"{kind.module}:read")).parameters  # type: ignore[arg-type]
    if label_column is None or "label_column" not in takes:
        return kind.read(table)
    return kind.read(table, label_column=label_column)


def _recordings(folder: Path) -> dict[str, list[Path]]:
    """Recordings below a folder, relative to it, by file name and by that without its ending."""
    found: dict[str, list[Path]] = {}
    for file in sorted(folder.rglob("*")):
        if file.suffix.lower() in AUDIO_SUFFIXES and not file.name.startswith("."):
            for key in dict.fromkeys((file.name, file.stem)):
                found.setdefault(key, []).append(file.relative_to(folder))
    return found


def _recording(name: str, table: Path, root: Path, found: dict[str, list[Path]]) -> str:
    """The recording that a table speaks of; it may name it without folder or ending."""
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    choices = found.get(last) or found.get(Path(last).stem) or []
    beside = [path for path in choices if root / path.parent == table.parent]
    chosen = beside or choices
    if len(chosen) != 1:
        either = " or ".join(f"'{path.as_posix()}'" for path in chosen)
        said = f"could be {either}" if chosen else f"is not in '{root}'"
        raise ConfigError(f"Table '{table}' speaks of '{name}', which {said}.")
    return chosen[0].as_posix()


def _named_by(table: Path, root: Path, found: dict[str, list[Path]]) -> str:
    """The recording of a table without rows: the longest beginning of the table's name that is one."""
    parts = table.name.split(".")
    names = [".".join(parts[:count]) for count in range(len(parts) - 1, 0, -1)]
    return _recording(next((name for name in names if name in found), table.stem), table, root, found)


def _durations(names: dict[str, None], folder: Path) -> dict[str, float]:
    from avex.audio import info

    return {name: info(folder / name).duration_s for name in sorted(names)}
