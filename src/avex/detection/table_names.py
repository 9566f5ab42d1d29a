"""What the tables of recordings are called."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Mapping, Sequence

from avex.embedding.sources import Source


def table_names(sources: Sequence[Source], known: Mapping[str, str]) -> dict[str, str]:
    """What the tables of each recording are called: its folder mirrored, its file's stem as name.

    Args:
        sources: All recordings of the run.
        known: Names that recordings of this output have already; they keep them, and nobody else gets them.

    Returns:
        `{recording: "folder/stem"}`, all different. Two recordings of a run that differ only in their suffix keep
        it; a name that is taken gets a number.

    Example:
        >>> table_names([Source("in/a.wav"), Source("in/b/a.wav")], {})["in/b/a.wav"]
        'b/a'
    """
    folders = {os.path.dirname(os.path.abspath(source.path)) for source in sources}
    drives = {os.path.splitdrive(folder)[0] for folder in folders}
    root = os.path.commonpath(folders) if len(drives) == 1 else None
    wished = {source.name: _wished(source, root) for source in sources}
    counts = Counter(stem for stem, _ in wished.values())
    # As file systems that ignore case see it; "combined" is the name of the table over all recordings.
    used = {name.casefold() for name in known.values()} | {"combined"}
    names = {}
    for recording, (stem, full) in wished.items():
        if recording in known:
            names[recording] = known[recording]
            continue
        name = stem if counts[stem] == 1 else full
        candidates = itertools.chain([name, full], (f"{full}_{number}" for number in itertools.count(2)))
        names[recording] = next(name for name in candidates if name.casefold() not in used)
        used.add(names[recording].casefold())
    return names


def _wished(source: Source, root: str | None) -> tuple[str, str]:
    """The name without and with the file's suffix, below a folder that mirrors that of the recording."""
    folder = os.path.dirname(os.path.abspath(source.path))
    inside = os.path.relpath(folder, root) if root else folder.replace(os.sep, "_").replace(":", "")
    base = os.path.basename(source.path)
    part = source.name[len(source.path) :]
    names = (os.path.splitext(base)[0] + part, base + part)
    stem, full = (os.path.normpath(os.path.join(inside, name)) for name in names)
    return stem, full
