"""Transformations that make labels and texts of columns."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from avex._core.errors import ConfigError
from avex.configs.transforms import (
    FillLabelsFromAnswerConfig,
    LabelFromFeatureConfig,
    LabelsFromFeaturesConfig,
    TextLabelFromFeaturesConfig,
)
from avex.data.clips import LABEL_NAMES, Clip
from avex.data.columns import cell_labels, cell_text
from avex.data.transforms.registry import TransformResult

_log = logging.getLogger(__name__)


def label_from_feature(clips: Sequence[Clip], config: LabelFromFeatureConfig) -> TransformResult:
    """Take the label from a column; see `LabelFromFeatureConfig`."""
    values = [cell_text(clip.feature(config.feature)) for clip in clips]
    kept = [_put(clip, config, (value,)) for clip, value in zip(clips, values, strict=True) if value]
    if len(kept) < len(clips):
        _log.warning("%d clips have no '%s' and are left out.", len(clips) - len(kept), config.feature)
    label_map = _label_map(config.label_map, {value for value in values if value})
    return TransformResult(kept, _metadata(config.feature, label_map))


def labels_from_features(clips: Sequence[Clip], config: LabelsFromFeaturesConfig) -> TransformResult:
    """Take several labels from columns; see `LabelsFromFeaturesConfig`."""
    features = _as_list(config.features)
    found = [
        tuple(dict.fromkeys(label for name in features for label in cell_labels(clip.feature(name))))
        for clip in clips
    ]
    kept = [
        _put(clip, config, labels)
        for clip, labels in zip(clips, found, strict=True)
        if labels or config.allow_missing_labels
    ]
    label_map = _label_map(config.label_map, {label for labels in found for label in labels})
    return TransformResult(kept, _metadata(config.features, label_map))


def text_label_from_features(clips: Sequence[Clip], config: TextLabelFromFeaturesConfig) -> TransformResult:
    """Make a text of columns; see `TextLabelFromFeaturesConfig`."""
    result = []
    for clip in clips:
        _check_free(clip, config.output_feature, config.override)
        texts = [cell_text(clip.feature(name)) for name in _as_list(config.features)]
        texts = [text for text in texts if text]
        value: Any = texts if config.listify else config.join_with.join(texts)
        result.append(clip.with_extra(**{config.output_feature: value}))
    return TransformResult(result, {"label_feature": config.features})


def fill_labels_from_answer(clips: Sequence[Clip], config: FillLabelsFromAnswerConfig) -> TransformResult:
    """Make lists of labels of texts with commas; see `FillLabelsFromAnswerConfig`."""
    ignored = {text.strip() for text in config.ignore_answers}
    result, filled = [], 0
    for clip in clips:
        labels = list(cell_labels(clip.extra.get(config.target)))
        if not labels:
            parts = [part.strip() for part in cell_text(clip.feature(config.source)).split(",")]
            labels = [part for part in parts if part and part not in ignored]
            filled += bool(labels)
        result.append(clip.with_extra(**{config.target: labels}))
    return TransformResult(result, {"filled": filled})


def _put(
    clip: Clip, config: LabelFromFeatureConfig | LabelsFromFeaturesConfig, labels: tuple[str, ...]
) -> Clip:
    """Write labels where the config says."""
    name = config.output_feature
    source = config.feature if isinstance(config, LabelFromFeatureConfig) else config.features
    if name not in LABEL_NAMES:
        _check_free(clip, name, config.override)
        return clip.with_extra(**{name: list(labels)})
    if clip.labels and clip.labels != labels and not config.override and source not in LABEL_NAMES:
        raise ConfigError(
            f"Clip '{clip.id}' has the labels {list(clip.labels)} already. Set override: true to replace them "
            f"by '{source}'."
        )
    return replace(clip, labels=labels)


def _check_free(clip: Clip, name: str, override: bool) -> None:
    if name in clip.extra and not override:
        raise ConfigError(
            f"Clip '{clip.id}' has a column '{name}' already. Set override: true to replace it, or choose "
            "another output_feature."
        )


def _label_map(given: Mapping[Any, int] | None, found: set[str]) -> dict[str, int]:
    if given is None:
        return {label: index for index, label in enumerate(sorted(found))}
    label_map = {cell_text(label): index for label, index in given.items()}
    missing = sorted(found - set(label_map))
    if missing:
        raise ConfigError(
            f"The label map has no '{missing[0]}'"
            f"{f' nor {len(missing) - 1} further labels' if missing[1:] else ''} "
            "of the clips. Add them to it, or filter these clips out first."
        )
    return label_map


def _metadata(feature: str | list[str], label_map: dict[str, int]) -> dict[str, Any]:
    return {"label_feature": feature, "label_map": label_map, "num_classes": len(label_map)}


def _as_list(names: str | list[str]) -> list[str]:
    return [names] if isinstance(names, str) else names
