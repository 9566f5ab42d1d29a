"""Clips of several datasets as one list, with columns that agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from avex._core.errors import ConfigError
from avex.data.clips import Clip

Method = Literal["hard", "overlap", "soft"]


def concatenate(parts: Mapping[str, Sequence[Clip]], method: Method = "soft") -> list[Clip]:
    """Put the clips of several datasets together.

    Ids that occur in more than one dataset get the name of the dataset in front.

    Args:
        parts: Clips by name of their dataset.
        method: What becomes of further columns: `soft` keeps all, with None where a dataset has none of that
            name; `overlap` keeps those that all datasets have; `hard` insists that all have the same.

    Raises:
        ConfigError: The columns differ, and `method` is `hard`.

    Example:
        >>> from pathlib import Path
        >>> a, b = Clip(Path("a.wav"), extra={"x": 1}), Clip(Path("b.wav"), extra={"y": 2})
        >>> [dict(clip.extra) for clip in concatenate({"first": [a], "second": [b]})]
        [{'x': 1, 'y': None}, {'x': None, 'y': 2}]
    """
    columns = {
        name: dict.fromkeys(key for clip in clips for key in clip.extra) for name, clips in parts.items()
    }
    kept = _kept({name: found for name, found in columns.items() if parts[name]}, method)
    shared = _shared_ids(parts)
    return [
        replace(clip, id=f"{name}/{clip.id}" if clip.id in shared else clip.id, extra=_extra(clip, kept))
        for name, clips in parts.items()
        for clip in clips
    ]


def _kept(columns: Mapping[str, Mapping[str, Any]], method: Method) -> list[str]:
    every = list(dict.fromkeys(key for found in columns.values() for key in found))
    common = [key for key in every if all(key in found for found in columns.values())]
    if method == "soft":
        return every
    if method == "hard" and common != every:
        differing = sorted(set(every) - set(common))
        raise ConfigError(
            f"The datasets {', '.join(map(repr, columns))} do not have the same columns: {', '.join(differing)}. "
            "Set concatenate_method to 'soft' (keeps all) or 'overlap' (keeps what all have)."
        )
    return common


def _shared_ids(parts: Mapping[str, Sequence[Clip]]) -> set[str]:
    seen: set[str] = set()
    shared: set[str] = set()
    for clips in parts.values():
        own = {clip.id for clip in clips}
        shared |= own & seen
        seen |= own
    return shared


def _extra(clip: Clip, kept: Sequence[str]) -> dict[str, Any]:
    return {key: clip.extra.get(key) for key in kept}
