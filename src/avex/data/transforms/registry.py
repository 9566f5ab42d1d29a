"""The table of transformations, and how a list of them is applied."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from avex._core.errors import ConfigError
from avex._core.registry import Registry
from avex.configs.transforms import TRANSFORM_CONFIGS, TransformConfig, parse_transform
from avex.data.clips import Clip


@dataclass(frozen=True)
class TransformResult:
    """What a transformation makes.

    Attributes:
        clips: The clips.
        metadata: What it found out, such as `label_map` and `num_classes`.
    """

    clips: list[Clip]
    metadata: dict[str, Any] = field(default_factory=dict)


TransformFunction = Callable[[Sequence[Clip], Any], TransformResult]

_HOME = "avex.data.transforms"
TRANSFORMS: Registry[TransformFunction] = Registry(
    "transformation",
    {
        "label_from_feature": f"{_HOME}.labels:label_from_feature",
        "labels_from_features": f"{_HOME}.labels:labels_from_features",
        "text_label_from_features": f"{_HOME}.labels:text_label_from_features",
        "fill_labels_from_answer": f"{_HOME}.labels:fill_labels_from_answer",
        "filter": f"{_HOME}.selection:filter_clips",
        "deduplicate": f"{_HOME}.selection:deduplicate",
        "select_columns": f"{_HOME}.selection:select_columns",
        "train_val_split": f"{_HOME}.selection:train_val_split",
        "subsample": f"{_HOME}.sampling:subsample",
        "rl_subsample": f"{_HOME}.sampling:random_subsample",
        "balanced_sample": f"{_HOME}.sampling:balanced_sample",
        "uniform_sample": f"{_HOME}.sampling:uniform_sample",
        "long_tail_upsample": f"{_HOME}.sampling:long_tail_upsample",
    },
)


def register_transform(config: type[TransformConfig], function: TransformFunction) -> None:
    """Make a transformation of one's own known, in files too.

    Args:
        config: Its fields; the default of `type` is its name.
        function: Takes clips and such a config, and returns a `TransformResult`.

    Raises:
        ConfigError: `type` has no default.

    Example:
        >>> class Loudest(TransformConfig):
        ...     type: str = "loudest"
        >>> register_transform(Loudest, lambda clips, config: TransformResult(list(clips)))
        >>> len(apply_transforms([], [{"type": "loudest"}]).clips)
        0
    """
    name = config.model_fields["type"].default
    if not isinstance(name, str):
        raise ConfigError(
            f"{config.__name__} needs a default for its field 'type': the name of the transformation."
        )
    TRANSFORM_CONFIGS[name] = config
    TRANSFORMS.register(name, function)


def apply_transforms(
    clips: Iterable[Clip], steps: Iterable[TransformConfig | Mapping[str, Any]] | None
) -> TransformResult:
    """Apply transformations in order.

    Args:
        clips: The clips.
        steps: Configs, or mappings with a `type`.

    Returns:
        The clips, and the metadata of each step by its `type`.

    Raises:
        ConfigError: A step is unknown, or does not fit the clips; with its number and type.

    Example:
        >>> from pathlib import Path
        >>> clips = [Clip(Path("a.wav"), extra={"species": "frog"}), Clip(Path("b.wav"), extra={"species": ""})]
        >>> result = apply_transforms(clips, [{"type": "label_from_feature", "feature": "species"}])
        >>> [clip.labels for clip in result.clips], result.metadata["label_from_feature"]["label_map"]
        ([('frog',)], {'frog': 0})
    """
    current, metadata = list(clips), {}
    for number, step in enumerate(steps or (), start=1):
        try:
            config = parse_transform(step)
            result = TRANSFORMS[config.type](current, config)
        except ValueError as error:  # ConfigError and pydantic's errors are both
            raise ConfigError(f"Transformation {number}: {error}") from error
        current, metadata[config.type] = result.clips, result.metadata
    return TransformResult(current, metadata)
