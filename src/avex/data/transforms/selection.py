"""Transformations that keep some clips, or some columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from avex.configs.transforms import (
    DeduplicateConfig,
    FilterConfig,
    SelectColumnsConfig,
    TrainValSplitConfig,
)
from avex.data.clips import Clip
from avex.data.columns import cell_text
from avex.data.grouping import hold_out
from avex.data.transforms.registry import TransformResult


def values_of(clip: Clip, name: str) -> tuple[str, ...]:
    """Values of a column as text: one, or those of a list; none for an empty cell."""
    value = clip.feature(name)
    if isinstance(value, (list, tuple, set)):
        return tuple(cell_text(item) for item in value)
    text = cell_text(value)
    return (text,) if text else ()


def filter_clips(clips: Sequence[Clip], config: FilterConfig) -> TransformResult:
    """Keep clips by the value of a column; see `FilterConfig`."""
    wanted = {cell_text(value) for value in config.values}
    include = config.mode == "include"
    kept = [clip for clip in clips if wanted.isdisjoint(values_of(clip, config.property)) != include]
    return TransformResult(kept, {"removed": len(clips) - len(kept)})


def deduplicate(clips: Sequence[Clip], config: DeduplicateConfig) -> TransformResult:
    """Keep one of the clips that agree in some columns; see `DeduplicateConfig`."""
    order = list(clips) if config.keep_first else list(reversed(clips))
    seen: dict[Any, Clip] = {}
    for clip in order:
        seen.setdefault(_key(clip, config.subset), clip)
    kept = list(seen.values()) if config.keep_first else list(reversed(seen.values()))
    return TransformResult(kept, {"removed": len(clips) - len(kept)})


def _key(clip: Clip, subset: list[str] | None) -> tuple[Any, ...]:
    if subset is None:
        own = (clip.path, clip.start_s, clip.end_s, clip.labels, clip.split, clip.fold, clip.group)
        return (*own, *((name, repr(value)) for name, value in sorted(clip.extra.items())))
    return tuple(values_of(clip, name) for name in subset)


def select_columns(clips: Sequence[Clip], config: SelectColumnsConfig) -> TransformResult:
    """Keep only these further columns; see `SelectColumnsConfig`."""
    own = set(Clip.__dataclass_fields__) | {"label"}
    further = [name for name in config.columns if name not in own]
    return TransformResult(
        [replace(clip, extra={name: clip.feature(name) for name in further}) for clip in clips]
    )


def train_val_split(clips: Sequence[Clip], config: TrainValSplitConfig) -> TransformResult:
    """Keep one side of a split; see `TrainValSplitConfig`.

    Each class gives `max(1, int(n * train_size))` of its recordings (or groups) to the training side, so a class
    with one of them is in the training side only.
    """
    column = config.stratify_column
    classes = None if column is None else ["|".join(values_of(clip, column)) for clip in clips]
    train, validation = hold_out(clips, 1 - config.train_size, classes, config.random_state)
    kept = train if config.subset == "train" else validation
    return TransformResult(
        [clips[i] for i in kept],
        {
            "subset": config.subset,
            "original_size": len(clips),
            "split_size": len(kept),
            "train_size": config.train_size,
            "random_state": config.random_state,
            "stratify_column": column,
        },
    )
