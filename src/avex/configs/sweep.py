"""The search space of a sweep."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from avex.configs.base import BaseCLIConfig


class FloatRange(BaseModel):
    """Numbers between two others."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["float"] = "float"
    low: float
    high: float
    log: bool = False

    @model_validator(mode="after")
    def _in_order(self) -> FloatRange:
        if self.low > self.high or (self.log and self.low <= 0):
            raise ValueError(
                f"a range goes from the lowest to the highest, above 0 with log, not {self.low} to {self.high}"
            )
        return self


class IntRange(BaseModel):
    """Whole numbers between two others, both included."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["int"] = "int"
    low: int
    high: int
    log: bool = False

    @model_validator(mode="after")
    def _in_order(self) -> IntRange:
        if self.low > self.high or (self.log and self.low <= 0):
            raise ValueError(
                f"a range goes from the lowest to the highest, above 0 with log, not {self.low} to {self.high}"
            )
        return self


class Choices(BaseModel):
    """One of some values."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["choice"] = "choice"
    values: list[Any] = Field(min_length=1)


Dimension = Annotated[FloatRange | IntRange | Choices, Field(discriminator="type")]


class SweepConfig(BaseCLIConfig):
    """A search for good settings of a training run.

    Attributes:
        run_config: What is varied: a mapping, or the path of a run's YAML file.
        search_space: Values to try, by the place in the run's configuration that patches name.
        trials: Number of trainings in all, resumed ones included.
        metric: What to judge by; None takes the run's monitored metric.
        direction: `maximize` or `minimize`; None follows from the metric's name.
        study: Name of the study, and of its folder in the run's `output_dir`.
        seed: Of the search.

    Example:
        >>> space = {"training_params.lr": {"type": "float", "low": 1e-5, "high": 1e-2, "log": True}}
        >>> SweepConfig(run_config={"sr": 16000}, search_space=space, trials=20).study
        'sweep'
    """

    file_fields: ClassVar[tuple[str, ...]] = ("run_config", "dataset_config")

    run_config: dict[str, Any]
    search_space: dict[str, Dimension] = Field(min_length=1)
    trials: PositiveInt = 20
    metric: str | None = None
    direction: Literal["maximize", "minimize"] | None = None
    study: str = "sweep"
    seed: int = 42
