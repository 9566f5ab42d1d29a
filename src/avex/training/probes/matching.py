"""Which rows of a label table speak of which recordings of a store."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import PurePath

from avex._core.errors import ConfigError
from avex.data import LabelTable

_SHOWN = 3
_FRAGMENT = "#t="


def base_name(recording: str) -> str:
    """The file behind a name in a store: without `#t=start,end`."""
    return recording.partition(_FRAGMENT)[0]


def match_recordings(table: LabelTable, recordings: Sequence[str]) -> list[str | None]:
    """Find the recording that each row of a table speaks of.

    Names match if they are the same file; else if one ends in the other, whole folders and file names
    compared; else if their file names are the same.

    Args:
        table: The labels.
        recordings: Names in the store, without `#t=` parts.

    Returns:
        For each row the name of its recording in the store, or None.

    Raises:
        ConfigError: A name fits several recordings, two different names fit the same one, or nothing matches.
    """
    finder = _Finder(recordings)
    found = {name: finder.find(name, table) for name in dict.fromkeys(table.recordings)}
    owners: dict[str, str] = {}
    for name, recording in found.items():
        if recording is None:
            continue
        other = owners.setdefault(recording, name)
        if other != name and os.path.normpath(other) != os.path.normpath(name):
            raise ConfigError(
                f"In the {table.source}, '{other}' and '{name}' both fit the recording '{recording}'. Write "
                "the paths that the store has."
            )
    if not owners:
        raise ConfigError(
            f"No recording of the {table.source} is in the store. The table says {_examples(found)}; the "
            f"store says {_examples(recordings)}. Embed these recordings, or correct the paths."
        )
    return [found[name] for name in table.recordings]


class _Finder:
    """Recordings of a store by several names."""

    def __init__(self, recordings: Sequence[str]) -> None:
        self._exact = set(recordings)
        self._by_path = {os.path.abspath(name): name for name in recordings}
        self._by_file: dict[str, list[str]] = defaultdict(list)
        for name in recordings:
            self._by_file[PurePath(name).name].append(name)

    def find(self, name: str, table: LabelTable) -> str | None:
        if name in self._exact:
            return name
        places = [os.path.abspath(name)]
        if table.folder is not None:
            places.insert(0, os.path.abspath(table.folder / name))
        for place in places:
            if place in self._by_path:
                return self._by_path[place]
        same_file = self._by_file.get(PurePath(name).name, [])
        ending = [other for other in same_file if _one_ends_in_the_other(name, other)]
        candidates = ending or same_file
        if len(candidates) > 1:
            raise ConfigError(
                f"'{name}' in the {table.source} fits {len(candidates)} recordings of the store: "
                f"{_examples(candidates)}. "
                "Write enough of the path to tell them apart."
            )
        return candidates[0] if candidates else None


def _one_ends_in_the_other(a: str, b: str) -> bool:
    parts, others = PurePath(a).parts, PurePath(b).parts
    shorter = min(len(parts), len(others))
    return parts[-shorter:] == others[-shorter:]


def _examples(names: Sequence[str] | dict[str, str | None]) -> str:
    shown = ", ".join(f"'{name}'" for name in list(names)[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
