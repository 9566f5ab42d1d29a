"""Clips to manifests: the other way round than `avex.data.manifest`."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

from avex._core.errors import ConfigError
from avex.data.clips import Clip
from avex.data.columns import LABEL_COLUMNS, RECORDING_COLUMNS, TIME_COLUMNS, cell_labels
from avex.io.atomic import write_text

_COLUMNS = ("path", "start_s", "end_s", "labels", "split", "fold", "group", "id")
_READ = frozenset({*_COLUMNS, *RECORDING_COLUMNS, *LABEL_COLUMNS, *chain.from_iterable(TIME_COLUMNS)})


def write_manifest(clips: Iterable[Clip], path: str | os.PathLike[str]) -> Path:
    """Write clips to a CSV file that `read_manifest` reads back.

    Args:
        clips: The clips. Further columns are kept; one that a manifest would read as something else gets `source_`
            before its name.
        path: The file; recordings are named relative to its folder.

    Raises:
        ConfigError: A label cannot be written.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> written = write_manifest([Clip(folder / "a.wav", 0.5, 2, ("wren",))], folder / "clips.csv")
        >>> print(written.read_text().splitlines()[1])
        a.wav,0.5,2,wren,,,,...a.wav#0.5-2
    """
    target = Path(path)
    given = list(clips)
    check_labels(dict.fromkeys(label for clip in given for label in clip.labels))
    target.parent.mkdir(parents=True, exist_ok=True)
    write_text(target, _table(given, target.parent))
    return target


def check_labels(labels: Iterable[str]) -> None:
    """Check that a manifest can hold these labels.

    Raises:
        ConfigError: One would be read as something else.
    """
    for label in labels:
        if cell_labels(label) != (label,):
            raise ConfigError(
                f"The label '{label}' cannot be written to a manifest, where ';' and '|' separate labels and "
                "spaces around them do not count. Rename it."
            )


def _table(clips: list[Clip], folder: Path) -> str:
    extra = list(dict.fromkeys(name for clip in clips for name in clip.extra))
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([*_COLUMNS, *(f"source_{name}" if name in _READ else name for name in extra)])
    for clip in clips:
        own = (
            Path(os.path.relpath(clip.path, folder)).as_posix(),
            repr(clip.start_s),
            None if clip.end_s is None else repr(clip.end_s),
            ";".join(clip.labels),
            clip.split,
            clip.fold,
            clip.group,
            clip.id,
        )
        writer.writerow([*("" if cell is None else cell for cell in own), *(_cell(clip, n) for n in extra)])
    return stream.getvalue()


def _cell(clip: Clip, name: str) -> Any:
    value = clip.extra.get(name, "")
    return ";".join(map(str, value)) if isinstance(value, (list, tuple)) else value
