"""What can be known to be wrong before the first step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from avex._core.errors import AvexError, ConfigError
from avex.configs.augmentation import NoiseAugment
from avex.configs.training import RunConfig
from avex.data.augmentation.noise import find_noise
from avex.data.clips import Clip, missing_recordings
from avex.data.grouping import check_parts
from avex.data.recordings import recording_problems
from avex.models.base_model import ModelBase
from avex.models.utils.factory import pick_device
from avex.training.building import build_run_objective, build_training_model
from avex.training.callbacks import layer_names
from avex.training.checkpoint import monitored
from avex.training.data import TrainingData, load_training_data
from avex.training.loader import texts_of
from avex.training.metrics import METRICS, OfChoices, find_metric
from avex.training.objectives import Objective
from avex.training.processes import find_precision
from avex.training.schedule import optimizer_class
from avex.training.trackers import check_tracker

_SHOWN = 3
_CLASSES = 2  # of a model that is looked at without its data


@dataclass(frozen=True)
class CheckReport:
    """What a check found.

    Attributes:
        problems: What would stop the training or make it worthless.
        notes: What is worth knowing.
    """

    problems: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether there are no problems."""
        return not self.problems


def check_run(config: RunConfig) -> CheckReport:
    """Check everything about a run that can be checked without training.

    All problems are collected, not just the first one. The header of every recording is read.

    Args:
        config: The run.
    """
    problems, notes = _settings(config), unused_settings(config)
    data = None
    try:
        data = load_training_data(config)
    except (AvexError, OSError) as error:
        problems.insert(0, str(error))
    if data is not None:
        problems += find_problems(config, data) + _unreadable(data)
        notes = describe(data) + find_oddities(data) + notes
    try:
        model = build_training_model(config, _CLASSES if data is None else data.num_classes)
        notes.append(_sizes(model))
        if data is not None:
            build_run_objective(config, data, model)
            problems += model_problems(config, data, model)
    except (AvexError, OSError, ValueError, NotImplementedError) as error:
        problems.append(str(error))
    return CheckReport(tuple(problems), tuple(notes))


def ready(config: RunConfig) -> tuple[TrainingData, Objective]:
    """Load and build what a run needs, and refuse to start what cannot end well.

    Raises:
        ConfigError: All problems that were found.
    """
    data = load_training_data(config)
    problems = _settings(config) + find_problems(config, data)
    if not problems:
        model = build_training_model(config, data.num_classes)
        problems = model_problems(config, data, model)
    if problems:
        raise ConfigError(f"This training cannot start: {' '.join(problems)}")
    return data, build_run_objective(config, data, model)


def find_problems(config: RunConfig, data: TrainingData) -> list[str]:
    """Problems of the clips and their labels."""
    problems = []
    for name, clips in data.parts.items():
        if missing := missing_recordings(clips):
            problems.append(
                f"{len(missing)} recordings of the {name} clips are missing: "
                f"{', '.join(map(repr, map(str, missing[:_SHOWN])))}{' ...' if len(missing) > _SHOWN else ''}."
            )
    if config.label_type == "text":
        silent = [
            clip.id for clip in (*data.train, *data.validation) if not texts_of(clip.extra.get("text_label"))
        ]
        if silent:
            problems.append(f"{len(silent)} clips have no text_label, the first is '{silent[0]}'.")
    if data.encoder is not None:
        problems += _label_problems(data)
        problems += _metric_problems(config, data)
    return problems + _validation_problems(config, data)


def _metric_problems(config: RunConfig, data: TrainingData) -> list[str]:
    if not any(len(clip.labels) != 1 for clip in data.validation):
        return []
    known = [name for name in config.metrics if name.lower() in METRICS]
    return [
        f"Metric '{name}' is for one label per clip, but validation clips have several or none. Set metrics: [map] "
        "or [roc_auc]."
        for name in known
        if isinstance(find_metric(name), OfChoices)
    ]


def _validation_problems(config: RunConfig, data: TrainingData) -> list[str]:
    """What is to be measured, and cannot be."""
    problems = []
    clustering = config.clustering_eval
    clusters = clustering is not None and clustering.enabled
    if clustering is not None and clusters and clustering.use_validation_set and not data.validation:
        problems.append("clustering_eval has no clips: give val_datasets, or use_validation_set: false.")
    name = monitored(config) if config.checkpoints.monitor is not None else None
    part = None if name is None else name.partition("/")[0]
    validates = bool(data.validation) and not config.training_params.skip_validation
    if (part == "val" and not validates) or (part == "clustering" and not clusters):
        needed = "val_datasets and a validation" if part == "val" else "clustering_eval: {enabled: true}"
        problems.append(f"checkpoints.monitor is '{name}', which needs {needed}.")
    measured = [f"val/{metric}" for metric in ("loss", "accuracy", *config.metrics)]
    if config.label_type == "supervised" and part == "val" and name not in measured:
        problems.append(
            f"checkpoints.monitor is '{name}', which this run does not measure. It measures: "
            f"{', '.join(dict.fromkeys(measured))}."
        )
    return problems


def _label_problems(data: TrainingData) -> list[str]:
    assert data.encoder is not None
    problems = []
    if data.num_classes < 2 and not data.encoder.multi_label:
        problems.append(
            f"There is one class only, '{data.encoder.classes[0]}': nothing to tell apart. Add classes, or set "
            "multilabel: true for a detector."
        )
    learned = {label for clip in data.train for label in clip.labels}
    for name in ("validation", "test"):
        unseen = {label for clip in data.parts.get(name, ()) for label in clip.labels} - learned
        if unseen:
            problems.append(
                f"{len(unseen)} classes of the {name} clips have no training clip, so they cannot be learned: "
                f"{', '.join(map(repr, sorted(unseen)[:_SHOWN]))}. Add clips, or filter these out."
            )
    return problems


def find_oddities(data: TrainingData) -> list[str]:
    """What is suspicious, but may be meant."""
    notes = []
    try:
        check_parts(data.parts)
    except ConfigError as error:
        notes.append(f"Leakage: {error}")
    if data.encoder is not None:
        learned = {label for clip in data.train for label in clip.labels}
        unused = [name for name in data.encoder.classes if name not in learned]
        if unused:
            notes.append(
                f"{len(unused)} classes of the label map have no training clip, such as '{unused[0]}'."
            )
    return notes


def unused_settings(config: RunConfig) -> list[str]:
    """Settings that were given and that nothing reads."""
    params, data = config.training_params, config.dataset_config
    unused = {
        "preprocessing": config.preprocessing is not None,
        "training_params.warmup_epochs (use scheduler.warmup_steps)": "warmup_epochs"
        in params.model_fields_set,
        "training_params.scheduler_type (use scheduler.name)": "scheduler_type" in params.model_fields_set,
        "sample_rate of a dataset (the model says at what rate it hears)": any(
            dataset.sample_rate is not None
            for part in (data.train_datasets, data.val_datasets, data.test_datasets)
            for dataset in part or ()
        ),
    }
    return [f"A training does not use {name}." for name, given in unused.items() if given]


def model_problems(config: RunConfig, data: TrainingData, model: ModelBase) -> list[str]:
    """Problems of the model with the data."""
    problems = []
    if "sr" in config.model_fields_set and config.sr != model.sample_rate:
        problems.append(
            f"sr is {config.sr} Hz, but the model hears {model.sample_rate} Hz. Recordings are resampled to the "
            "model's rate: leave sr out, or set model_spec.audio_config.sample_rate."
        )
    if model.window_seconds is None and not config.sampling.bucket_by_length and _lengths_differ(data.train):
        problems.append(
            "The model has no window length and clips differ in length. Set "
            "model_spec.audio_config.target_length_seconds, or sampling.bucket_by_length: true."
        )
    if config.clustering_eval is not None and config.clustering_eval.enabled:
        try:
            model.layer_keys(layer_names(config.clustering_eval))
        except AvexError as error:
            problems.append(f"clustering_eval.layers: {error}")
    return problems + _text_problems(config, model)


def _text_problems(config: RunConfig, model: ModelBase) -> list[str]:
    """Whether texts can be read, which may need a package and a vocabulary."""
    encode = getattr(model, "encode_text", None)
    if config.label_type != "text" or encode is None or model.return_features_only:
        return []
    try:
        with torch.no_grad():
            encode(["a bird"])
    except AvexError as error:
        return [str(error)]
    return []


def _lengths_differ(clips: tuple[Clip, ...]) -> bool:
    lengths = {clip.duration_s for clip in clips}
    return len(lengths) > 1 or None in lengths


def _settings(config: RunConfig) -> list[str]:
    problems = []
    checks: list[Callable[[], object]] = [
        partial(check_tracker, config),
        partial(optimizer_class, config.training_params.optimizer),
        partial(find_precision, config, pick_device(None, default=config.device).type),
    ]
    if config.label_type == "supervised":
        checks += [partial(find_metric, name) for name in config.metrics]
    noises = [item for item in config.augmentations if isinstance(item, NoiseAugment)]
    checks += [partial(find_noise, item.noise_dirs) for item in noises]
    for check in checks:
        try:
            check()
        except AvexError as error:
            problems.append(str(error))
    return problems


def _unreadable(data: TrainingData) -> list[str]:
    clips = (*data.train, *data.validation)
    problems = recording_problems(clip for clip in clips if clip.piece is None and clip.path.is_file())
    last: dict[str, int] = {}
    for piece in (clip.piece for clip in clips):
        if piece is not None and Path(piece.archive).is_file():
            last[piece.archive] = max(last.get(piece.archive, 0), piece.offset + piece.size)
    short = [archive for archive, end in last.items() if Path(archive).stat().st_size < end]
    if short:
        problems.append(
            f"{len(short)} shards are cut off, the first is '{short[0]}'. Write or copy them again."
        )
    return problems


def describe(data: TrainingData) -> list[str]:
    """Sizes of the parts."""
    sizes = ", ".join(f"{name} {len(clips)}" for name, clips in data.parts.items())
    classes = f"; {data.num_classes} classes" if data.encoder is not None else ""
    return [f"Clips: {sizes}{classes}."]


def _sizes(model: ModelBase) -> str:
    count = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    seconds = "clips of any length" if model.window_seconds is None else f"{model.window_seconds:g} s"
    return (
        f"Model: {type(model).__name__}, {count:,} trainable parameters, {model.sample_rate} Hz, {seconds}."
    )
