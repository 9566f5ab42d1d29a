"""A benchmark of one's own: from labelled clips to a manifest with splits, and a task card."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from avex._core.errors import ConfigError
from avex.configs.cards import DataLayout, TaskCard
from avex.configs.data import DatasetConfig
from avex.data.cards import benchmark_names, task_names
from avex.data.clips import Clip
from avex.data.encoder import LabelEncoder
from avex.data.grouping import check_parts, group_numbers
from avex.data.recordings import check_recordings, recording_problems
from avex.data.splits import make_folds, make_split
from avex.data.writing import check_labels, write_manifest
from avex.io.atomic import write_text

MANIFEST = "manifest.csv"


@dataclass(frozen=True)
class Shares:
    """How clips are divided where they are not yet.

    Attributes:
        folds: Number of folds; None makes fixed parts instead.
        test: Share of the test, for fixed parts.
        validation: Share of the validation, for fixed parts.
        seed: Of the order.
    """

    folds: int | None = 5
    test: float = 0.2
    validation: float = 0.1
    seed: int = 42


@dataclass(frozen=True)
class BuiltBenchmark:
    """What `build_benchmark` wrote.

    Attributes:
        card: The task card's file.
        manifest: The manifest's file.
        task: The card.
        counts: Clips by split or fold.
        classes: Clips by class.
    """

    card: Path
    manifest: Path
    task: TaskCard
    counts: dict[str, int]
    classes: dict[str, int]


def build_benchmark(
    clips: Iterable[Clip],
    folder: str | os.PathLike[str],
    name: str,
    *,
    shares: Shares | None = None,
    license: str = "not stated",
    citation: str | None = None,
    overwrite: bool = False,
) -> BuiltBenchmark:
    """Write `manifest.csv` and `NAME.yml` for labelled clips.

    Splits or folds that the clips have are kept. Otherwise they are dealt out class by class; clips of one
    recording, and of one group, stay together. Further columns are kept; one that a manifest would read as
    something else gets `source_` before its name.

    Args:
        clips: Labelled clips.
        folder: Where the two files go; the manifest names recordings relative to it.
        name: Of the task.
        shares: How clips are divided.
        license: Of the recordings.
        citation: How to cite them.
        overwrite: Replace files that are there.

    Raises:
        ConfigError: Labels, recordings or splits are wrong, there is one class only, a recording cannot be read,
            a recording or group is in two parts, a class has too few examples, or the files are there.
    """
    target = Path(folder)
    manifest, card_file = target / MANIFEST, target / f"{name}.yml"
    _check_name(name)
    for file in (manifest, card_file):
        if file.exists() and not overwrite:
            raise ConfigError(f"'{file}' is there already. Choose another folder, or pass --overwrite.")
    given = tuple(clips)
    encoder = LabelEncoder.fit(given)
    _check_labels(encoder)
    check_recordings(given, f"'{name}'")
    if problems := recording_problems(given):
        raise ConfigError(" ".join(problems) + " Replace these recordings, or leave them out.")
    divided = divide(given, encoder, shares or Shares())
    task = _card(name, divided, encoder, license, citation)
    target.mkdir(parents=True, exist_ok=True)
    write_manifest(divided, manifest)
    write_text(card_file, _yaml(task))
    return BuiltBenchmark(card_file, manifest, task, _counts(divided), _class_counts(divided, encoder))


def group_by_name(clips: Iterable[Clip], pattern: str) -> list[Clip]:
    """Put clips into groups by a part of the names of their files.

    Args:
        clips: The clips.
        pattern: Regular expression; its first group, or all that it matches, is the group.

    Raises:
        ConfigError: The expression is wrong, or a name does not match.

    Example:
        >>> group_by_name([Clip(Path("pond3_20240501.wav"))], "^([^_]+)_")[0].group
        'pond3'
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"'{pattern}' is no regular expression: {error}.") from error
    result = []
    for clip in clips:
        match = compiled.search(clip.path.name)
        if match is None:
            raise ConfigError(f"The name '{clip.path.name}' does not match '{pattern}', so it has no group.")
        result.append(replace(clip, group=match[1] if compiled.groups else match[0]))
    return result


def divide(clips: Sequence[Clip], encoder: LabelEncoder, shares: Shares) -> list[Clip]:
    """Give clips their splits or folds, where they have none, and check them.

    Raises:
        ConfigError: Some clips have a split or fold and others not, a class has too few examples, or a recording
            or group is in two parts.
    """
    column = next((name for name in ("fold", "split") if any(getattr(clip, name) for clip in clips)), None)
    if column is not None:
        without = [clip.id for clip in clips if not getattr(clip, column)]
        if without:
            raise ConfigError(
                f"{len(without)} clips have no {column}, the first is '{without[0]}'. Fill the column in, "
                "or leave it out."
            )
        result = list(clips)
    else:
        result = _deal(clips, encoder, shares)
        column = "fold" if shares.folds is not None else "split"
    parts: dict[str, list[Clip]] = {}
    for clip in result:
        parts.setdefault(f"{getattr(clip, column)}", []).append(clip)
    check_parts(parts)
    if column == "split" and not {"train", "test"} <= set(parts):
        raise ConfigError(
            f"The splits are {', '.join(sorted(parts))}; expected train and test, and perhaps validation."
        )
    return result


def _deal(clips: Sequence[Clip], encoder: LabelEncoder, shares: Shares) -> list[Clip]:
    targets, groups = encoder.encode_all(clips), group_numbers(clips)
    if shares.folds is not None:
        numbers = make_folds(targets, shares.folds, groups=groups, seed=shares.seed, classes=encoder.classes)
        return [replace(clip, fold=str(int(number) + 1)) for clip, number in zip(clips, numbers, strict=True)]
    split = make_split(
        targets,
        validation=shares.validation,
        test=shares.test,
        groups=groups,
        seed=shares.seed,
        classes=encoder.classes,
    )
    named = {int(i): part for part, indices in split.parts().items() for i in indices}
    return [replace(clip, split=named[i]) for i, clip in enumerate(clips)]


def _check_labels(encoder: LabelEncoder) -> None:
    check_labels(encoder.classes)
    if encoder.num_classes == 1 and not encoder.multi_label:
        raise ConfigError(
            f"All clips have the label '{encoder.classes[0]}', so there is nothing to tell apart. Add clips of "
            "another class, or clips without a label."
        )


def _check_name(name: str) -> None:
    if not name or any(not (character.isalnum() or character in "-_.") for character in name):
        raise ConfigError(
            f"'{name}' cannot name a task. Choose a name (--name) of letters, digits, '-' and '_'."
        )
    if name in (*task_names(), *benchmark_names()):
        raise ConfigError(f"avex has a task or benchmark '{name}' already. Choose another name.")


def _card(
    name: str, clips: Sequence[Clip], encoder: LabelEncoder, license: str, citation: str | None
) -> TaskCard:
    several = encoder.multi_label
    common: dict[str, Any] = {"dataset_name": "manifest", "data_root": MANIFEST}
    common["type"] = "detection" if several else "classification"
    splits = {clip.split for clip in clips}
    parts: dict[str, DatasetConfig] = {}
    if clips[0].fold is not None:
        parts["folds"] = DatasetConfig(split="all", **common)
    else:
        for part in ("train", "validation", "test"):
            if part in splits:
                parts[part] = DatasetConfig(split=part, **common)
    return TaskCard(
        name=name,
        task="detection" if several else "classification",
        layout=DataLayout(folder=name, files=[MANIFEST]),
        num_classes=encoder.num_classes,
        classes=list(encoder.classes),
        metrics=["mAP"] if several else ["accuracy", "balanced_accuracy"],
        license=license,
        citation=citation,
        obtain="The recordings are where manifest.csv says, relative to its folder.",
        **parts,  # type: ignore[arg-type]
    )


def _yaml(card: TaskCard) -> str:
    data = card.model_dump(exclude_defaults=True, exclude_none=True)
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=110)


def _counts(clips: Sequence[Clip]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for clip in clips:
        part = f"fold {clip.fold}" if clip.fold is not None else str(clip.split)
        counts[part] = counts.get(part, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: (len(item[0]), item[0])))  # fold 10 after fold 9


def _class_counts(clips: Sequence[Clip], encoder: LabelEncoder) -> dict[str, int]:
    counts = dict.fromkeys(encoder.classes, 0)
    for clip in clips:
        for label in clip.labels:
            counts[label] += 1
    return counts
