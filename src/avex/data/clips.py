"""Clips: stretches of recordings with their labels, the unit that datasets, splits and benchmarks are made of."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from avex._core.errors import ConfigError, did_you_mean
from avex.io import is_remote

_OWN = ("path", "start_s", "end_s", "split", "fold", "group", "id")
LABEL_NAMES = ("label", "labels")


@dataclass(frozen=True, slots=True)
class Piece:
    """A recording that is a part of an archive, such as a shard.

    Attributes:
        archive: Path or URI of the archive.
        offset: Where the recording begins in it, bytes.
        size: Its length, bytes.
        sample_rate: Hz.
        frames: Samples.
    """

    archive: str
    offset: int
    size: int
    sample_rate: int
    frames: int


@dataclass(frozen=True, slots=True)
class Clip:
    """A stretch `[start_s, end_s)` of a recording and what is known of it.

    Attributes:
        path: The recording.
        start_s: Begin in seconds.
        end_s: End in seconds; None is the end of the recording.
        labels: What it holds, without repetitions; empty for "nothing of interest".
        split: `train`, `validation`, `test`, or another word.
        fold: Fold of a cross-validation, as text.
        group: What must stay on one side of a split (a site, an individual, a recordist); None if the recording
            itself is all that has to stay together.
        id: Unique name; by default the path, with the times if there are any.
        extra: Further columns of the table that the clip is from.
        piece: Where the recording is, if `path` is no file of its own but a part of an archive.

    Raises:
        ConfigError: The times are impossible.

    Example:
        >>> clip = Clip(Path("dawn.wav"), 3.0, 6.0, ("wren",))
        >>> clip.id, clip.duration_s
        ('dawn.wav#3-6', 3.0)
    """

    path: Path
    start_s: float = 0.0
    end_s: float | None = None
    labels: tuple[str, ...] = ()
    split: str | None = None
    fold: str | None = None
    group: str | None = None
    id: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)
    piece: Piece | None = None

    def __post_init__(self) -> None:
        end = math.inf if self.end_s is None else self.end_s
        if not (math.isfinite(self.start_s) and 0 <= self.start_s < end):
            raise ConfigError(
                f"A clip of '{self.path}' runs from {self.start_s!r} to {self.end_s!r} s. Expected "
                "0 <= start_s < end_s, in seconds."
            )
        if self.end_s is not None and not math.isfinite(self.end_s):
            object.__setattr__(self, "end_s", None)
        if not self.id:
            object.__setattr__(self, "id", clip_id(self.path.as_posix(), self.start_s, self.end_s))

    @property
    def duration_s(self) -> float | None:
        """Length in seconds; None if the clip goes on to the end of the recording."""
        return None if self.end_s is None else self.end_s - self.start_s

    def beginning(self, seconds: float | None) -> Clip:
        """The clip without what goes beyond some seconds; as it is, if it is shorter or there is no limit."""
        if seconds is None or (self.duration_s is not None and self.duration_s <= seconds):
            return self
        return replace(self, end_s=self.start_s + seconds)

    @property
    def label(self) -> str:
        """The only label.

        Raises:
            ConfigError: There is none, or several.
        """
        if len(self.labels) != 1:
            raise ConfigError(
                f"Clip '{self.id}' has {len(self.labels)} labels ({', '.join(self.labels) or 'none'}); expected "
                "one. Treat the data as multi-label, or correct the table."
            )
        return self.labels[0]

    def feature(self, name: str) -> Any:
        """Value of a column: a further column first, then the clip's own; None where it is empty.

        Raises:
            ConfigError: There is no such column.
        """
        if name in self.extra:
            value = self.extra[name]
            return None if value == "" else value
        if name in LABEL_NAMES:
            if name == "labels" or len(self.labels) > 1:
                return self.labels
            return self.labels[0] if self.labels else None
        if name in _OWN:
            value = getattr(self, name)
            return value.as_posix() if isinstance(value, Path) else value
        known = [*_OWN, *LABEL_NAMES, *self.extra]
        raise ConfigError(
            f"Clip '{self.id}' has no column '{name}'.{did_you_mean(name, known)} Columns: {', '.join(known)}."
        )

    def with_extra(self, **values: Any) -> Clip:
        """A copy with further columns added or replaced."""
        return replace(self, extra={**self.extra, **values})


def clip_id(path: str, start_s: float, end_s: float | None) -> str:
    """Name of a clip: its path, and its times unless it is the whole recording.

    Example:
        >>> clip_id("a.wav", 0.0, None), clip_id("a.wav", 2.5, None)
        ('a.wav', 'a.wav#2.5-')
    """
    if not start_s and end_s is None:
        return path
    return f"{path}#{_number(start_s)}-{'' if end_s is None else _number(end_s)}"


def _number(seconds: float) -> str:
    return repr(int(seconds)) if float(seconds).is_integer() else repr(float(seconds))


def classes_of(clips: Iterable[Clip]) -> tuple[str, ...]:
    """All labels that occur, sorted."""
    return tuple(sorted({label for clip in clips for label in clip.labels}))


def check_unique(clips: Sequence[Clip], source: str) -> None:
    """Check that every clip has a name of its own.

    Raises:
        ConfigError: Two clips share an id.
    """
    seen: set[str] = set()
    for clip in clips:
        if clip.id in seen:
            raise ConfigError(
                f"{source}: the id '{clip.id}' belongs to two clips. Give each clip an id of its own, or leave "
                "the column 'id' out."
            )
        seen.add(clip.id)


def select(clips: Iterable[Clip], *, split: str | None = None, fold: str | None = None) -> list[Clip]:
    """Clips of a split and of a fold; None takes all.

    Example:
        >>> clips = [Clip(Path("a.wav"), fold="1"), Clip(Path("b.wav"), fold="2")]
        >>> [clip.id for clip in select(clips, fold="2")]
        ['b.wav']
    """
    return [
        clip
        for clip in clips
        if (split is None or clip.split == split) and (fold is None or clip.fold == fold)
    ]


def missing_recordings(clips: Iterable[Clip]) -> list[Path]:
    """Recordings, or archives of recordings, that are not there, each once, in order; URIs are not looked for."""
    archives = (clip.piece.archive if clip.piece else clip.path for clip in clips)
    files = (Path(file) for file in dict.fromkeys(archives) if isinstance(file, Path) or not is_remote(file))
    return [file for file in files if not file.is_file()]
