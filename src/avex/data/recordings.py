"""Are the recordings of clips there, and can they be read?"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from avex._core.errors import AudioError, ConfigError
from avex.data.clips import Clip, missing_recordings

_LAST_S = 0.01
_SHOWN = 3


def check_recordings(clips: Iterable[Clip], what: str) -> None:
    """Check that all recordings are there; none is opened.

    Raises:
        ConfigError: Some are missing; with the first of them.
    """
    missing = missing_recordings(clips)
    if missing:
        raise ConfigError(
            f"{len(missing)} recordings of {what} are missing, the first is '{missing[0]}'. Complete the download, "
            "or correct the paths."
        )


def recording_problems(clips: Iterable[Clip]) -> list[str]:
    """What is wrong with recordings: damaged, cut off, or ended before a clip of theirs begins.

    Of each, the header and the last hundredth of a second are read: about a millisecond per file.

    Returns:
        A sentence for each kind of problem, with how many there are and the first of them.
    """
    begins: dict[Path, Clip] = {}
    for clip in clips:
        if clip.piece is not None:
            continue
        latest = begins.setdefault(clip.path, clip)
        if clip.start_s > latest.start_s:
            begins[clip.path] = clip
    broken: list[str] = []
    late: list[str] = []
    for path, clip in begins.items():
        try:
            duration = _read_end(path)
        except AudioError as error:
            broken.append(str(error))
            continue
        if clip.start_s >= duration:
            late.append(f"'{clip.id}' begins at {clip.start_s:g} s, but its recording lasts {duration:g} s")
    return [
        *_listed(broken, "recordings cannot be read"),
        *_listed(late, "recordings are shorter than their clips say"),
    ]


def _read_end(path: Path) -> float:
    """Length in seconds of a recording that can be read to its end."""
    from avex.audio import info, read

    duration = info(path).duration_s
    read(path, start_s=max(0.0, duration - _LAST_S))
    return duration


def _listed(found: list[str], what: str) -> list[str]:
    if not found:
        return []
    more = f" And {len(found) - _SHOWN} more." if len(found) > _SHOWN else ""
    return [f"{len(found)} {what}: {' '.join(text.rstrip('.') + '.' for text in found[:_SHOWN])}{more}"]
