"""Transformations that draw clips at random. Same seed, same clips; their order is kept."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from avex._core.errors import ConfigError
from avex.configs.transforms import (
    BalancedSampleConfig,
    LongTailUpsampleConfig,
    RandomSubsampleConfig,
    SubsampleConfig,
    UniformSampleConfig,
)
from avex.data.clips import Clip
from avex.data.columns import cell_text
from avex.data.transforms.registry import TransformResult
from avex.data.transforms.selection import values_of

_OTHER = "other"


def subsample(clips: Sequence[Clip], config: SubsampleConfig) -> TransformResult:
    """Keep a share of the clips of each value of a column; see `SubsampleConfig`."""
    ratios = {cell_text(value): ratio for value, ratio in config.ratios.items()}
    rng = np.random.default_rng(config.seed)
    kept: list[int] = []
    for value, members in _by_value(clips, config.property).items():
        ratio = ratios.get(value, ratios.get(_OTHER, 1.0))
        kept += _draw(members, round(ratio * len(members)), rng)
    return TransformResult([clips[i] for i in sorted(kept)], {"original_size": len(clips)})


def random_subsample(clips: Sequence[Clip], config: RandomSubsampleConfig) -> TransformResult:
    """Keep a share of all clips, or at most so many; see `RandomSubsampleConfig`."""
    count = len(clips) if config.ratio is None else int(config.ratio * len(clips))
    if config.max_samples is not None:
        count = min(count, config.max_samples)
    kept = sorted(_draw(range(len(clips)), count, np.random.default_rng(config.random_state)))
    return TransformResult([clips[i] for i in kept], {"original_size": len(clips)})


def balanced_sample(clips: Sequence[Clip], config: BalancedSampleConfig) -> TransformResult:
    """Bring values to about the same number of clips; see `BalancedSampleConfig`."""
    counts = {value: len(members) for value, members in _by_value(clips, config.property).items()}
    if not counts:
        return TransformResult([])
    median = statistics.median(counts.values())
    low, high = int(median * (1 - config.range_fraction)), int(median * (1 + config.range_fraction))
    rules: dict[str, Callable[[int], int]] = {
        "min": lambda _: min(counts.values()),
        "max": lambda _: max(counts.values()),
        "median": lambda _: int(median),
        "mean": lambda _: round(statistics.mean(counts.values())),
        "median_with_range": lambda count: max(low, min(high, count)),
    }
    rule = rules[config.strategy]
    return _resample(
        clips, config.property, {value: rule(count) for value, count in counts.items()}, config.seed
    )


def uniform_sample(clips: Sequence[Clip], config: UniformSampleConfig) -> TransformResult:
    """Keep the same number of clips of every value; see `UniformSampleConfig`."""
    counts = {value: len(members) for value, members in _by_value(clips, config.property).items()}
    if not counts:
        return TransformResult([])
    each = min(min(counts.values()), max(1, int(config.ratio * len(clips) / len(counts))))
    return _resample(clips, config.property, dict.fromkeys(counts, each), config.seed)


def long_tail_upsample(clips: Sequence[Clip], config: LongTailUpsampleConfig) -> TransformResult:
    """Repeat clips of rare values; see `LongTailUpsampleConfig`."""
    enough = config.sufficient_threshold
    wanted = {
        value: max(len(members), min(enough, len(members) * config.max_repeats))
        for value, members in _by_value(clips, config.property).items()
    }
    return _resample(clips, config.property, wanted, config.seed)


def _by_value(clips: Sequence[Clip], name: str) -> dict[str, list[int]]:
    """Indices of the clips of each value, values in alphabetical order."""
    members: dict[str, list[int]] = defaultdict(list)
    for i, clip in enumerate(clips):
        values = values_of(clip, name)
        if len(values) > 1:
            raise ConfigError(
                f"Clip '{clip.id}' has several values of '{name}' ({', '.join(values)}), so it cannot be "
                "counted for one. Choose a column with one value per clip."
            )
        members[values[0] if values else ""].append(i)
    return dict(sorted(members.items()))


def _draw(members: Sequence[int], count: int, rng: np.random.Generator) -> list[int]:
    return [members[i] for i in rng.permutation(len(members))[:count]]


def _resample(clips: Sequence[Clip], name: str, wanted: Mapping[str, int], seed: int) -> TransformResult:
    """Draw the wanted number of each value: without repetition, or all of them and some again."""
    rng = np.random.default_rng(seed)
    before = _by_value(clips, name)
    chosen: list[int] = []
    for value, members in before.items():
        rounds, rest = divmod(wanted[value], len(members))
        chosen += members * rounds + _draw(members, rest, rng)
    metadata = {
        "histogram_before": {value: len(members) for value, members in before.items()},
        "histogram_after": {value: wanted[value] for value in before},
    }
    return TransformResult(_numbered([clips[i] for i in sorted(chosen)]), metadata)


def _numbered(clips: Sequence[Clip]) -> list[Clip]:
    """Give repeated clips names of their own."""
    seen: dict[str, int] = defaultdict(int)
    result = []
    for clip in clips:
        again = seen[clip.id]
        seen[clip.id] += 1
        result.append(replace(clip, id=f"{clip.id}~{again}") if again else clip)
    return result
