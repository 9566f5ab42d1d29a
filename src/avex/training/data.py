"""The clips of a training run, with one label map for all of its parts."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from avex._core.errors import ConfigError
from avex.configs.data import DatasetConfig
from avex.configs.training import RunConfig
from avex.data.clips import Clip
from avex.data.concatenation import concatenate
from avex.data.encoder import LabelEncoder
from avex.data.loading import LoadedClips, load_clips
from avex.data.transforms import apply_transforms


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Clips to train and to validate on.

    Attributes:
        train: To learn from.
        validation: To choose by; may be empty.
        test: Not looked at in training; it takes part in the label map.
        encoder: Numbers of the labels; None where there are no classes to learn.
    """

    train: tuple[Clip, ...]
    validation: tuple[Clip, ...]
    test: tuple[Clip, ...]
    encoder: LabelEncoder | None

    @property
    def num_classes(self) -> int:
        """Number of classes; 0 where there are none to learn."""
        return 0 if self.encoder is None else self.encoder.num_classes

    @property
    def parts(self) -> dict[str, tuple[Clip, ...]]:
        """Clips by part, without the empty ones."""
        named = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: clips for name, clips in named.items() if clips}

    def fingerprint(self) -> str:
        """A checksum of the names and the order of the training clips: what a resumed training must find again."""
        names = "\n".join(f"{clip.id}\t{'|'.join(clip.labels)}" for clip in self.train)
        return hashlib.sha256(names.encode()).hexdigest()[:16]


def load_training_data(config: RunConfig) -> TrainingData:
    """Read the tables of a run's datasets; no audio is opened.

    Args:
        config: The run.

    Raises:
        ConfigError: A dataset is missing or empty, or its labels do not fit the loss.
        UnknownNameError: There is no such dataset.
    """
    data = config.dataset_config
    if not data.train_datasets:
        raise ConfigError("There is nothing to train on: dataset_config.train_datasets is empty.")
    for part in ("train", "val", "test"):
        if not getattr(data, f"concatenate_{part}") and len(getattr(data, f"{part}_datasets") or ()) > 1:
            raise ConfigError(
                f"A training takes one list of clips, but there are several {part}_datasets and "
                f"concatenate_{part} is false. Set it to true, or name one dataset."
            )
    named = [data.train_datasets or [], data.val_datasets or [], data.test_datasets or []]
    parts = [[load_clips(dataset) for dataset in datasets] for datasets in named]
    train, validation, test = (_joined(*pair, config) for pair in zip(named, parts, strict=True))
    for name, clips, datasets in (
        ("train", train, data.train_datasets),
        ("val", validation, data.val_datasets),
    ):
        if datasets and not clips:
            raise ConfigError(f"No clips are left in {name}_datasets: {_names(datasets)}.")
    encoder = None
    if config.label_type == "supervised":
        encoder = _encoder(config, parts, (train, validation, test))
    return TrainingData(train, validation, test, encoder)


def _joined(
    datasets: Sequence[DatasetConfig], parts: Sequence[LoadedClips], config: RunConfig
) -> tuple[Clip, ...]:
    """Clips of some datasets as one list, each with an id of its own."""
    named: dict[str, list[Clip]] = {}
    for dataset, part in zip(datasets, parts, strict=True):
        name = dataset.dataset_name
        if name in named:
            name = f"{name}-{len(named) + 1}"
        named[name] = [clip.beginning(part.max_seconds) for clip in part.clips]
    clips = concatenate(named, config.dataset_config.concatenate_method)
    return tuple(apply_transforms(clips, config.dataset_config.transformations).clips)


def _encoder(
    config: RunConfig, loaded: Sequence[Sequence[LoadedClips]], parts: Sequence[tuple[Clip, ...]]
) -> LabelEncoder:
    flat = [item for part in loaded for item in part]
    maps = [item.label_map for item in flat if item.label_map is not None]
    if any(other != maps[0] for other in maps[1:]):
        raise ConfigError(
            "The datasets of this run are given different label maps. Give the same one to all of them: a number "
            "must mean the same class everywhere."
        )
    multi_label = config.multilabel or any(item.multi_label for item in flat)
    if multi_label and config.loss_function == "cross_entropy":
        raise ConfigError(
            "A dataset of this run is multi-label, but loss_function is 'cross_entropy': set loss_function: bce "
            "and multilabel: true."
        )
    if not multi_label:
        _check_single(parts)
    return LabelEncoder.fit(*parts, multi_label=multi_label, label_map=maps[0] if maps else None)


def _check_single(parts: Sequence[tuple[Clip, ...]]) -> None:
    wrong = [clip for part in parts for clip in part if len(clip.labels) != 1]
    if wrong:
        raise ConfigError(
            f"{len(wrong)} clips have no label or several, the first is '{wrong[0].id}' with "
            f"{list(wrong[0].labels)}. Set multilabel: true (with loss_function: bce), or filter these clips out."
        )


def _names(datasets: Sequence[DatasetConfig]) -> str:
    return ", ".join(f"'{dataset.dataset_name}' ({dataset.split})" for dataset in datasets)
