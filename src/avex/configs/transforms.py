"""Transformations of clip tables, as data: names and fields of the public package alp-data and of avex 1.x."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveInt,
    SerializeAsAny,
    ValidationError,
)

from avex._core.errors import did_you_mean

Value = str | int | float | bool
Share = Annotated[float, Field(ge=0, le=1)]


class TransformConfig(BaseModel):
    """A step that makes a table of clips into another; `type` says which."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: str


class LabelFromFeatureConfig(TransformConfig):
    """Take the label from a column; clips without a value are left out.

    Attributes:
        feature: The column.
        label_map: Number of each label; None numbers them in alphabetical order.
        output_feature: Column to write; `label` and `labels` are the labels of the clips.
        override: Replace what is there already.
    """

    type: Literal["label_from_feature"] = "label_from_feature"
    feature: str
    label_map: dict[Value, int] | None = None
    output_feature: str = "label"
    override: bool = False


class LabelsFromFeaturesConfig(TransformConfig):
    """Take several labels from columns that hold a value, a list, or text separated by `;` or `|`.

    Attributes:
        features: The columns.
        label_map: As for one label.
        output_feature: As for one label.
        override: As for one label.
        allow_missing_labels: Keep clips without labels.
    """

    type: Literal["labels_from_features"] = "labels_from_features"
    features: str | list[str]
    label_map: dict[Value, int] | None = None
    output_feature: str = "label"
    override: bool = False
    allow_missing_labels: bool = True


class TextLabelFromFeaturesConfig(TransformConfig):
    """Make a text of columns, for training with captions.

    Attributes:
        features: The columns; empty ones are left out.
        output_feature: Column to write.
        override: Replace what is there already.
        listify: Keep one text per column (True), to choose from; or join them into one.
        join_with: What stands between them when they are joined.
    """

    type: Literal["text_label_from_features"] = "text_label_from_features"
    features: str | list[str]
    output_feature: str = "text_label"
    override: bool = False
    listify: bool = True
    join_with: str = ", "


class FillLabelsFromAnswerConfig(TransformConfig):
    """Make a list of labels of a text with commas, where the list is empty.

    Attributes:
        source: Column of the text.
        target: Column of the list.
        ignore_answers: Texts that mean no label.
    """

    type: Literal["fill_labels_from_answer"] = "fill_labels_from_answer"
    source: str = "answer"
    target: str = "labels_as_list"
    ignore_answers: list[str] = ["None"]


class FilterConfig(TransformConfig):
    """Keep, or leave out, clips by the value of a column (for several labels: by any of them)."""

    type: Literal["filter"] = "filter"
    mode: Literal["include", "exclude"] = "include"
    property: str
    values: list[Value]


class DeduplicateConfig(TransformConfig):
    """Keep the first (or last) of the clips that agree in some columns; None is all columns."""

    type: Literal["deduplicate"] = "deduplicate"
    subset: list[str] | None = None
    keep_first: bool = True


class SubsampleConfig(TransformConfig):
    """Keep a share of the clips of each value of a column; `other` is for all values that are not named."""

    type: Literal["subsample"] = "subsample"
    property: str
    ratios: dict[Value, Share]
    seed: int = 42


class RandomSubsampleConfig(TransformConfig):
    """Keep a share of all clips, or at most so many."""

    type: Literal["rl_subsample"] = "rl_subsample"
    ratio: Share | None = None
    max_samples: PositiveInt | None = None
    random_state: int = 42


class BalancedSampleConfig(TransformConfig):
    """Bring the values of a column to about the same number of clips, with repetitions where there are too few.

    Attributes:
        property: The column.
        strategy: The number: of the rarest value, the most frequent, the median, the mean, or each value's own
            but within `range_fraction` of the median.
        range_fraction: Of `median_with_range`.
        seed: Of the choice.
    """

    type: Literal["balanced_sample"] = "balanced_sample"
    property: str
    strategy: Literal["min", "max", "median", "mean", "median_with_range"] = "median"
    range_fraction: Share = 0.2
    seed: int = 42


class UniformSampleConfig(TransformConfig):
    """Keep a share of the clips, the same number of every value of a column; nothing is repeated."""

    type: Literal["uniform_sample"] = "uniform_sample"
    property: str
    ratio: float = Field(default=1.0, gt=0, le=1)
    seed: int = 42


class LongTailUpsampleConfig(TransformConfig):
    """Repeat clips of rare values until there are enough, each at most `max_repeats` times."""

    type: Literal["long_tail_upsample"] = "long_tail_upsample"
    property: str
    sufficient_threshold: PositiveInt
    max_repeats: PositiveInt
    seed: int = 42


class SelectColumnsConfig(TransformConfig):
    """Keep only these further columns."""

    type: Literal["select_columns"] = "select_columns"
    columns: list[str]


class TrainValSplitConfig(TransformConfig):
    """Keep one side of a split. Clips of one recording, or of one group, stay on one side.

    Attributes:
        subset: The side to keep.
        train_size: Share of the training side.
        random_state: Of the order; both sides must name the same.
        stratify_column: Column whose values are to have the same share on both sides.
    """

    type: Literal["train_val_split"] = "train_val_split"
    subset: Literal["train", "validation", "val"]
    train_size: float = Field(default=0.8, gt=0, lt=1)
    random_state: int = 42
    stratify_column: str | None = None


TRANSFORM_CONFIGS: dict[str, type[TransformConfig]] = {
    cls.model_fields["type"].default: cls
    for cls in (
        LabelFromFeatureConfig,
        LabelsFromFeaturesConfig,
        TextLabelFromFeaturesConfig,
        FillLabelsFromAnswerConfig,
        FilterConfig,
        DeduplicateConfig,
        SubsampleConfig,
        RandomSubsampleConfig,
        BalancedSampleConfig,
        UniformSampleConfig,
        LongTailUpsampleConfig,
        SelectColumnsConfig,
        TrainValSplitConfig,
    )
}
"""Schemas by `type`; `avex.data.register_transform` adds further ones."""


def parse_transform(data: Any) -> TransformConfig:
    """Make a transformation of a mapping with a `type`.

    Raises:
        ValueError: No such type, or its fields are wrong.

    Example:
        >>> parse_transform({"type": "filter", "property": "site", "values": ["pond"]}).mode
        'include'
    """
    if isinstance(data, TransformConfig):
        return data
    if not isinstance(data, Mapping) or not isinstance(data.get("type"), str):
        raise ValueError(f"a transformation is a mapping with a 'type', such as 'filter'; got {data!r}")
    name = data["type"]
    if name not in TRANSFORM_CONFIGS:
        known = ", ".join(TRANSFORM_CONFIGS)
        raise ValueError(
            f"unknown transformation '{name}'.{did_you_mean(name, TRANSFORM_CONFIGS)} Known: {known}"
        )
    try:
        return TRANSFORM_CONFIGS[name].model_validate(dict(data))
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise ValueError(f"transformation '{name}': {problems}") from error


Transform = Annotated[SerializeAsAny[TransformConfig], BeforeValidator(parse_transform)]
