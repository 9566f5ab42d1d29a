"""What to evaluate, on what, and how."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator, model_validator

from avex.configs.base import BaseCLIConfig
from avex.configs.cards import benchmark_of
from avex.configs.data import BenchmarkEvaluationConfig
from avex.configs.model import ModelSpec
from avex.configs.probe import ProbeConfig
from avex.configs.training import RunConfig, TrainingParams

EvalMode = Literal["probe", "finetune", "retrieval", "clustering", "fewshot", "knn"]
Overwrite = Literal["never", "always", "only-missing"]


class OfflineEmbeddingsConfig(BaseModel):
    """How embeddings are kept between experiments.

    They are stored as safetensors files of 64 clips each, which are written one by one and can be read through
    memory maps; so several fields of earlier versions, which stored HDF5, have nothing left to do. They are
    checked and have no effect: `cache_size_limit_gb`, `streaming_chunk_size`, `auto_chunk_size`,
    `max_chunk_size`, `min_chunk_size`, `batch_chunk_size`, `hdf5_compression`, `hdf5_compression_level`.

    Attributes:
        memory_limit_gb: Most memory that the embeddings of a job may take; more is an error.
        overwrite_embeddings: Compute them again.
        use_streaming_embeddings: Read sequences from disk batch by batch, through memory maps; `memory_limit_gb`
            does not count them then.
        cache_size_limit_gb: No effect (the operating system keeps what fits).
        streaming_chunk_size: No effect.
        auto_chunk_size: No effect.
        max_chunk_size: No effect.
        min_chunk_size: No effect.
        batch_chunk_size: No effect.
        probe_storage_aggregation: How each clip is pooled before it is stored. `none` leaves that to the probe: the
            sequence where it reads one, else its `aggregation`.
        hdf5_compression: No effect.
        hdf5_compression_level: No effect.
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    memory_limit_gb: float = Field(default=32, ge=1)
    overwrite_embeddings: bool = False
    use_streaming_embeddings: bool = False
    cache_size_limit_gb: float = Field(default=8.0, ge=1)
    streaming_chunk_size: int = Field(default=1000, ge=100)
    auto_chunk_size: bool = True
    max_chunk_size: int = Field(default=2000, ge=100)
    min_chunk_size: int = Field(default=100, ge=10)
    batch_chunk_size: PositiveInt = 10
    probe_storage_aggregation: Literal["none", "mean", "max", "cls_token"] = "none"
    hdf5_compression: str | None = "gzip"
    hdf5_compression_level: int = Field(default=4, ge=1, le=9)

    @model_validator(mode="after")
    def _in_order(self) -> OfflineEmbeddingsConfig:
        if self.min_chunk_size > self.max_chunk_size:
            raise ValueError(
                f"min_chunk_size ({self.min_chunk_size}) is above max_chunk_size ({self.max_chunk_size})"
            )
        return self


class FewShotConfig(BaseModel):
    """Learning from a few clips per class.

    Attributes:
        shots: Clips per class.
        seeds: Random choices of these, for intervals.
    """

    model_config = ConfigDict(extra="forbid")

    shots: list[PositiveInt] = Field(default=[1, 2, 4, 8, 16], min_length=1)
    seeds: PositiveInt = 5


class ExperimentConfig(BaseModel):
    """A model, and the probe to put on it.

    The model is `model` (a name of `avex list-models`, or a card file), or the `model_spec` of `run_config`, or
    `model_spec` itself. Where several are given, the fields of `model_spec` replace those of the others.

    Attributes:
        run_name: Name in results.
        run_config: The training run that the model is from, or its YAML file.
        model: Name or card of a model.
        model_spec: The model, or fields of it to replace.
        pretrained: Load weights.
        probe_config: The probe; with none, a linear one on `layers`.
        checkpoint_path: Weights to load.
        layers: Older form: layers separated by commas, for a linear probe on their mean.
        frozen: Older form of `probe_config.freeze_backbone`.
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=True, protected_namespaces=())

    run_name: str = Field(min_length=1)
    run_config: RunConfig | None = None
    model: str | None = Field(default=None, min_length=1)
    model_spec: dict[str, Any] | None = None
    pretrained: bool = True
    probe_config: ProbeConfig | None = None
    checkpoint_path: str | None = None
    layers: str | None = None
    frozen: bool | None = None

    @model_validator(mode="before")
    @classmethod
    def _merge(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        values = dict(data)
        run, changes = values.get("run_config"), values.get("model_spec")
        if isinstance(changes, BaseModel):
            changes = values["model_spec"] = changes.model_dump(exclude_unset=True)
        if isinstance(run, BaseModel) and changes:
            run = run.model_dump(exclude_unset=True)
        if isinstance(run, Mapping) and isinstance(changes, Mapping):
            spec = {**run.get("model_spec", {}), **changes}
            values["run_config"] = {**run, "model_spec": spec}
        return values

    @model_validator(mode="after")
    def _complete(self) -> ExperimentConfig:
        if self.run_config is not None and self.model is not None:
            raise ValueError(f"experiment '{self.run_name}' has run_config and model: give one of them")
        if self.run_config is None and self.model is None and "name" not in (self.model_spec or {}):
            raise ValueError(
                f"experiment '{self.run_name}' names no model: give model (a name of `avex list-models`), "
                "run_config, or model_spec with a name"
            )
        if self.model is None and self.run_config is None:
            ModelSpec.model_validate(self.model_spec)
        if self.probe_config is not None and (self.layers is not None or self.frozen is not None):
            raise ValueError(
                f"experiment '{self.run_name}' has probe_config as well as layers or frozen, which are the older "
                "form of it: give probe_config only"
            )
        if self.probe_config is None:
            if self.layers is None:
                raise ValueError(
                    f"experiment '{self.run_name}' has no probe: give probe_config with target_layers, or layers"
                )
            self.get_probe_config()
        return self

    def spec(self) -> ModelSpec | None:
        """The model's spec; None if it is named by `model`."""
        if self.run_config is not None:
            return self.run_config.model_spec
        return None if self.model is not None else ModelSpec.model_validate(self.model_spec)

    def get_probe_config(self) -> ProbeConfig:
        """The probe, also for the older form."""
        if self.probe_config is not None:
            return self.probe_config
        frozen = True if self.frozen is None else self.frozen
        return ProbeConfig(target_layers=self.get_target_layers(), freeze_backbone=frozen)

    def get_target_layers(self) -> list[str | int]:
        """Layers that the probe reads."""
        if self.probe_config is not None:
            return list(self.probe_config.target_layers)
        return [name.strip() for name in (self.layers or "").split(",") if name.strip()]

    def is_frozen(self) -> bool:
        """Whether the backbone stays as it is."""
        return self.get_probe_config().freeze_backbone

    def get_probe_type(self) -> str:
        """Type of the probe."""
        return self.get_probe_config().probe_type

    def get_probe_specific_params(self) -> dict[str, Any]:
        """Fields of the probe that were set, beyond type, layers and reading."""
        common = {"probe_type", "target_layers", "aggregation", "input_processing", "freeze_backbone"}
        return self.get_probe_config().model_dump(exclude_unset=True, exclude=common | {"online_training"})

    def get_aggregation_method(self) -> str:
        """How a clip's features are pooled."""
        return self.get_probe_config().aggregation

    def get_input_processing_method(self) -> str:
        """How the probe reads features."""
        return self.get_probe_config().input_processing

    def get_training_mode(self) -> bool:
        """Whether the probe trains through the backbone (True) or on stored embeddings."""
        return self.get_probe_config().get_training_mode()


def _probe_training() -> TrainingParams:
    return TrainingParams(train_epochs=10, lr=1e-4, batch_size=2, optimizer="adamw", weight_decay=0.01)


class EvaluateConfig(BaseCLIConfig):
    """Experiments and the tasks that they are judged by.

    Attributes:
        experiments: Models and probes.
        dataset_config: Tasks: a benchmark, the YAML file of one, or a name of `avex datasets list`.
        save_dir: Folder for results.
        training_params: Of fine-tuning. Heads on stored embeddings are trained by AdamW with a rate that falls
            along a cosine; of them, `train_epochs`, `batch_size`, `lr`, `weight_decay` and `gradient_clip_val` are
            read, and linear ones need none.
        device: `cpu`, `cuda`, `cuda:N`, `mps`; what is given is what is used.
        seed: Of everything random.
        num_workers: Processes that read clips where a model is trained; embedding reads in its own process.
        probe_num_workers: No effect: stored embeddings are in memory, or mapped.
        eval_modes: What is done with each pair of experiment and task.
        offline_embeddings: How embeddings are kept.
        few_shot: Of the mode `fewshot`.
        knn_neighbors: Of the mode `knn`.
        retrieval_k: Cut-offs of precision@k, mAP@k and nDCG@k.
        retrieval_max_queries: Queries of the mode `retrieval`, drawn with `seed`; None takes all. What they search
            stays whole.
        clustering_scaling: Of embeddings before the mode `clustering`: to `unit` length, to variance 1 in each
            dimension (`standard`), or `none`, as earlier versions did.
        bootstrap_samples: Of confidence intervals.
        overwrite: What becomes of results that are there: kept (`only-missing`), an error (`never`), or made
            anew (`always`).
        data_root: Folder of all datasets, instead of `AVEX_DATA`.
        results_csv_path: Table that gets a line for each result.
        disable_tqdm: No lines of progress, as `--quiet`; they go to the log only.

    Example:
        >>> experiment = {"run_name": "birdnet", "model": "birdnet", "layers": "last_layer"}
        >>> config = EvaluateConfig(experiments=[experiment], dataset_config="animals11", save_dir="out")
        >>> config.eval_modes
        ['probe']
    """

    file_fields: ClassVar[tuple[str, ...]] = ("dataset_config", "run_config", "probe_config")

    experiments: list[ExperimentConfig] = Field(min_length=1)
    dataset_config: BenchmarkEvaluationConfig | str
    save_dir: str
    training_params: TrainingParams = Field(default_factory=_probe_training)
    device: str = Field(default="cpu", pattern=r"^(cpu|cuda|mps|xpu)(:\d+)?$")
    seed: int = 42
    num_workers: int = Field(default=0, ge=0)
    probe_num_workers: int = Field(default=0, ge=0)
    eval_modes: list[EvalMode] = Field(default=["probe"], min_length=1)
    offline_embeddings: OfflineEmbeddingsConfig = Field(default_factory=OfflineEmbeddingsConfig)
    few_shot: FewShotConfig = Field(default_factory=FewShotConfig)
    knn_neighbors: PositiveInt = 5
    retrieval_k: list[PositiveInt] = Field(default=[1, 5, 10], min_length=1)
    retrieval_max_queries: PositiveInt | None = None
    clustering_scaling: Literal["unit", "standard", "none"] = "unit"
    bootstrap_samples: int = Field(default=1000, ge=0)
    overwrite: Overwrite = "only-missing"
    data_root: str | None = None
    results_csv_path: str | None = None
    disable_tqdm: bool = False

    @field_validator("dataset_config", mode="before")
    @classmethod
    def _benchmark(cls, value: Any) -> Any:
        return value if isinstance(value, str) else benchmark_of(value)

    @model_validator(mode="after")
    def _unique(self) -> EvaluateConfig:
        names = [experiment.run_name for experiment in self.experiments]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"experiments need a run_name each; there are several of: {', '.join(twice)}")
        if len(set(self.eval_modes)) != len(self.eval_modes):
            raise ValueError(f"eval_modes names a mode twice: {', '.join(self.eval_modes)}")
        return self
