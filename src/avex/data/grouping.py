"""What must stay together when clips are split: clips of one recording, and of one group."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from avex.data.clips import Clip
from avex.data.splits import Indices, check_leakage


def group_numbers(clips: Sequence[Clip]) -> Indices:
    """(N,) number of what each clip belongs to: clips that share a recording or a group share a number.

    Example:
        >>> from pathlib import Path
        >>> a, b = Path("a.wav"), Path("b.wav")
        >>> group_numbers([Clip(a, 0, 1), Clip(a, 1, 2, group="pond"), Clip(b, group="pond")]).tolist()
        [0, 0, 0]
    """
    parent = list(range(len(clips)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first: dict[tuple[str, str], int] = {}
    for i, clip in enumerate(clips):
        keys = [("recording", _recording(clip))]
        if clip.group is not None:
            keys.append(("group", clip.group))
        for key in keys:
            a, b = root(first.setdefault(key, i)), root(i)
            parent[max(a, b)] = min(a, b)
    numbers: dict[int, int] = {}
    return np.array([numbers.setdefault(root(i), len(numbers)) for i in range(len(clips))], np.int64)


def hold_out(
    clips: Sequence[Clip], share: float, classes: Sequence[str] | None = None, seed: int = 42
) -> tuple[list[int], list[int]]:
    """Set a share of the clips aside; what belongs together stays together.

    Each class (of the first clip of what belongs together) gives `max(1, int(n * (1 - share)))` to the training
    side, so nothing that is rare is lost to learning.

    Args:
        clips: The clips.
        share: Share to set aside.
        classes: (N,) class of each clip; None takes no account of classes.
        seed: Of the order.

    Returns:
        Sorted indices of the clips to keep, and of those set aside.
    """
    numbers = group_numbers(clips)
    _, firsts = np.unique(numbers, return_index=True)
    strata: dict[str, list[int]] = defaultdict(list)
    for i, first in enumerate(firsts):
        strata["" if classes is None else classes[int(first)]].append(i)
    rng = np.random.default_rng(seed)
    kept = np.zeros(len(firsts), bool)
    for _, own in sorted(strata.items()):
        members = rng.permutation(own)
        # What comes out as 3.9999999 from a share that was written as 0.2 means 4.
        kept[members[: max(1, int(len(members) * (1 - share) + 1e-9))]] = True
    inside = kept[numbers] if len(clips) else np.zeros(0, bool)
    return np.flatnonzero(inside).tolist(), np.flatnonzero(~inside).tolist()


def check_parts(parts: Mapping[str, Sequence[Clip]]) -> None:
    """Check that no recording and no group is in two parts.

    Args:
        parts: Clips of each split or fold, by name.

    Raises:
        ConfigError: One is; with its name and the parts.

    Example:
        >>> from pathlib import Path
        >>> check_parts({"train": [Clip(Path("a.wav"))], "test": [Clip(Path("b.wav"))]})
    """
    clips = [clip for part in parts.values() for clip in part]
    ends = np.cumsum([0, *map(len, parts.values())])
    named = {name: np.arange(ends[i], ends[i + 1]) for i, name in enumerate(parts)}
    check_leakage(named, [_recording(clip) for clip in clips], "recording")
    if any(clip.group is not None for clip in clips):
        grouped = {
            name: np.array([i for i in indices if clips[i].group is not None], np.int64)
            for name, indices in named.items()
        }
        check_leakage(grouped, [clip.group or "" for clip in clips], "group")


def _recording(clip: Clip) -> str:
    """One name for a recording, also where tables of two folders both say `../wav/a.wav`, or one is relative."""
    return os.path.abspath(clip.path)
