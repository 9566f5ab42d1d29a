"""Task cards and benchmark cards: what there is to be evaluated on, where it is from, and whom to thank."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, model_validator

from avex.configs.base import place
from avex.configs.data import BenchmarkEvaluationConfig, DatasetConfig, EvaluationSet, RetrievalMode

TaskKind = Literal["classification", "detection", "individual", "repertoire", "zero-shot"]


class DataLayout(BaseModel):
    """How the files of a dataset lie on disk, inside the folder of the dataset.

    Attributes:
        folder: Name of the folder inside the data folder.
        importer: What reads it: a name that `DatasetConfig.dataset_name` may have.
        files: Files that must be there, from which the clips are read.
        description: The rest, for people.
    """

    model_config = ConfigDict(extra="forbid")

    folder: str = Field(min_length=1)
    importer: str = "manifest"
    files: list[str] = Field(min_length=1)
    description: str = ""


class TaskCard(BaseModel):
    """One task: data with labels, and what counts.

    Attributes:
        name: The name to evaluate on.
        task: `classification`, `detection` (several labels or none per clip), `individual` (who), `repertoire`
            (which call) or `zero-shot` (classes named by text).
        description: One line.
        train: To learn from.
        validation: To choose by; None holds a part of the training clips out.
        test: To judge by.
        folds: Instead of these: clips with a fold each.
        layout: Files.
        num_classes: Number of classes.
        classes: Their names, in order, where they are published.
        num_clips: Clips by split, where they are published.
        sample_rate: Rate that published results were computed at, Hz.
        max_seconds: Longest clip that published results heard.
        metrics: Names of metrics.
        main_metric: The one that counts.
        retrieval_mode: See `EvaluationSet`.
        version: Of the card; results of different versions are not compared.
        license: Of the data.
        license_note: What a user must know before using them.
        source: Where the data are.
        paper: Where they are described.
        citation: How to cite them.
        obtain: What to do to have them, step by step.
        note: What a reader of results must know.

    Example:
        >>> data = {"dataset_name": "manifest", "split": "all"}
        >>> layout = {"folder": "ponds", "files": ["manifest.csv"]}
        >>> card = TaskCard(name="ponds", task="classification", folds=data, layout=layout, license="CC0",
        ...                 obtain="Ask the frogs.")
        >>> card.evaluation_set().metrics
        ['accuracy']
    """

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1)
    task: TaskKind
    description: str = ""
    train: DatasetConfig | None = None
    validation: DatasetConfig | None = None
    test: DatasetConfig | None = None
    folds: DatasetConfig | None = None
    layout: DataLayout
    num_classes: PositiveInt | None = None
    classes: list[str] | None = None
    num_clips: dict[str, PositiveInt] = {}
    sample_rate: PositiveInt | None = None
    max_seconds: float | None = Field(default=None, gt=0)
    metrics: list[str] = Field(default=["accuracy"], min_length=1)
    main_metric: str | None = None
    retrieval_mode: RetrievalMode = "test_vs_test"
    version: str = "1"
    license: str = Field(min_length=1)
    license_note: str | None = None
    source: str | None = None
    paper: str | None = None
    citation: str | None = None
    obtain: str = Field(min_length=1)
    note: str | None = None

    @model_validator(mode="after")
    def _agree(self) -> TaskCard:
        if self.main_metric is not None and self.main_metric not in self.metrics:
            raise ValueError(f"main_metric '{self.main_metric}' is none of the metrics {self.metrics}")
        if self.classes is not None and self.num_classes not in (None, len(self.classes)):
            raise ValueError(f"num_classes is {self.num_classes}, but there are {len(self.classes)} classes")
        if self.evaluation_set().is_reference:
            raise ValueError(f"card '{self.name}' names no data: give train and test, or folds")
        return self

    def evaluation_set(self) -> EvaluationSet:
        """The task as an evaluation set; the main metric comes first."""
        main = self.main_metric or self.metrics[0]
        return EvaluationSet(
            name=self.name,
            train=self.train,
            validation=self.validation,
            test=self.test,
            folds=self.folds,
            metrics=[main, *(name for name in self.metrics if name != main)],
            retrieval_mode=self.retrieval_mode,
            classes=self.classes,
            max_seconds=self.max_seconds,
            version=self.version,
        )

    def parts(self) -> dict[str, DatasetConfig]:
        """Datasets by what they are for: `train`, `validation`, `test`, `folds`."""
        named = {name: getattr(self, name) for name in ("train", "validation", "test", "folds")}
        return {name: part for name, part in named.items() if part is not None}


class BenchmarkCard(BaseModel):
    """Tasks that are reported together.

    Attributes:
        name: The name to evaluate on.
        description: One line.
        tasks: Names of task cards.
        citation: How to cite it.
        paper: Where it is described.
    """

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1)
    description: str = ""
    tasks: list[str] = Field(min_length=1)
    citation: str | None = None
    paper: str | None = None

    def evaluation_config(self) -> BenchmarkEvaluationConfig:
        """The benchmark with its tasks by name."""
        sets: list[Any] = list(self.tasks)
        return BenchmarkEvaluationConfig(benchmark_name=self.name, evaluation_sets=sets)


def benchmark_of(data: Any) -> BenchmarkEvaluationConfig:
    """Make a benchmark of the content of a file: of one, of a benchmark card, or of a task card.

    Raises:
        ValueError: It is none of these; with the fields that are wrong.

    Example:
        >>> benchmark_of({"name": "two", "tasks": ["animals11", "birds10"]}).benchmark_name
        'two'
    """
    if isinstance(data, BenchmarkEvaluationConfig):
        return data
    keys = data.keys() if isinstance(data, Mapping) else ()
    try:
        if "layout" in keys:
            task = TaskCard.model_validate(data)
            return BenchmarkEvaluationConfig(
                benchmark_name=task.name, evaluation_sets=[task.evaluation_set()]
            )
        if "tasks" in keys:
            return BenchmarkCard.model_validate(data).evaluation_config()
        return BenchmarkEvaluationConfig.model_validate(data)
    except ValidationError as error:
        problems = "; ".join(f"{place(item['loc']) or 'file'}: {item['msg']}" for item in error.errors())
        raise ValueError(problems) from error
