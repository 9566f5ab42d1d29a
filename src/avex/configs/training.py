"""How a model is trained."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, PositiveInt, field_validator, model_validator
from typing_extensions import Self

from avex.configs.augmentation import Augment, MixupAugment, NoiseAugment, unfold
from avex.configs.base import BaseCLIConfig
from avex.configs.data import DatasetCollectionConfig
from avex.configs.model import ModelSpec
from avex.configs.training_parts import (
    CheckpointConfig,
    ClusteringEvalConfig,
    ObjectiveConfig,
    SamplingConfig,
    SchedulerConfig,
    TrainingParams,
)

__all__ = [
    "CheckpointConfig",
    "ClusteringEvalConfig",
    "MixupAugment",
    "NoiseAugment",
    "ObjectiveConfig",
    "RunConfig",
    "SamplingConfig",
    "SchedulerConfig",
    "TrainingParams",
]

Loss = Literal["cross_entropy", "bce", "contrastive", "clip", "focal"]
LabelType = Literal["supervised", "text", "self_supervised"]
_TEXT_LOSSES = ("contrastive", "clip")


class RunConfig(BaseCLIConfig):
    """A training run.

    Attributes:
        model_spec: What is trained.
        training_params: Numbers.
        dataset_config: Data, or the YAML file that names them.
        output_dir: Folder for checkpoints and logs.
        preprocessing: Kept for older files.
        sr: Sample rate of the data, Hz.
        logging: Where metrics go.
        logging_uri: Address of the tracking server.
        label_type: `supervised` (classes), `text` (captions) or `self_supervised`.
        resume_from_checkpoint: Checkpoint to go on from.
        distributed: Several processes.
        distributed_backend: How they talk.
        distributed_port: Where.
        augmentations: Changes of the training clips.
        loss_function: `cross_entropy`, `bce` (`binary_cross_entropy`), `contrastive`, `clip` or `focal`.
        multilabel: Clips may have several labels or none.
        metrics: Names of metrics.
        device: `cpu`, `cuda`, `cuda:N`, `mps`.
        seed: Of everything random.
        num_workers: Processes that read clips.
        run_name: Name in logs.
        wandb_project: Project of Weights & Biases.
        scheduler: Learning rate over the steps.
        clustering_eval: Clustering during training.
        debug_mode: A few batches only.
        checkpoint_path: Weights to start from, instead of those of `model_spec`.
        objective: What is learned, beyond `label_type` and `loss_function`.
        class_weights: Factor on each class in the loss: `balanced` for the inverse of its frequency, or numbers
            in the order of the label map.
        sampling: Which clips an epoch takes.
        checkpoints: When the state is kept.
        strategy: `ddp` (a copy of the model per process), `fsdp` (a share of it); `auto` is `ddp` where there are
            several processes.
        num_devices: Processes per node that are started here; under torchrun or SLURM those decide.
        num_nodes: Machines.
        sync_batchnorm: Batch statistics of all processes instead of each one's own.

    Raises:
        pydantic.ValidationError: (a `ValueError`) A field is unknown, missing or contradicts another.
    """

    file_fields: ClassVar[tuple[str, ...]] = ("dataset_config",)

    model_spec: ModelSpec
    training_params: TrainingParams
    dataset_config: DatasetCollectionConfig
    output_dir: str
    preprocessing: str | None = None
    sr: PositiveInt = 16000
    logging: Literal["mlflow", "wandb", "none"] = "mlflow"
    logging_uri: str | None = "http://127.0.0.1:5000/"
    label_type: LabelType = "supervised"
    resume_from_checkpoint: str | None = None
    distributed: bool = False
    distributed_backend: Literal["nccl", "gloo"] = "nccl"
    distributed_port: PositiveInt = 29500
    augmentations: list[Augment] = Field(default_factory=list)
    loss_function: Loss
    multilabel: bool = False
    metrics: list[str] = Field(default=["accuracy"], min_length=1)
    device: str = "cuda"
    seed: int = 42
    num_workers: int = Field(default=4, ge=0)
    run_name: str | None = None
    wandb_project: str = "audio-experiments"
    scheduler: SchedulerConfig = SchedulerConfig()
    clustering_eval: ClusteringEvalConfig | None = None
    debug_mode: bool = False
    checkpoint_path: str | None = None
    objective: ObjectiveConfig = ObjectiveConfig()
    class_weights: Literal["balanced"] | list[float] | None = None
    sampling: SamplingConfig = SamplingConfig()
    checkpoints: CheckpointConfig = CheckpointConfig()
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    num_devices: PositiveInt = 1
    num_nodes: PositiveInt = 1
    sync_batchnorm: bool = False

    @classmethod
    def from_sources(cls, yaml_file: str | Path, cli_args: Iterable[str] = (), **fields: Any) -> Self:
        """Read a file and change single values of it; `training.lr` means `training_params.lr`.

        Args:
            yaml_file: The YAML file.
            cli_args: Patches such as `training_params.lr=1e-4`.
            **fields: Values of top-level fields, as they are; None leaves what the file says.

        Raises:
            ConfigError: A file is missing or is not YAML, a patch leads nowhere, or a value is wrong.
        """
        patches = [patch.removeprefix("--") for patch in cli_args]
        long = [
            f"training_params.{patch.removeprefix('training.')}" if patch.startswith("training.") else patch
            for patch in patches
        ]
        return super().from_sources(yaml_file, long, **fields)

    @model_validator(mode="before")
    @classmethod
    def _documented_alias(cls, data: Any) -> Any:
        if not isinstance(data, dict) or "training" not in data:
            return data
        if "training_params" in data:
            raise ValueError("'training' and 'training_params' are one thing: give training_params only")
        return {"training_params": data["training"]} | {k: v for k, v in data.items() if k != "training"}

    @field_validator("loss_function", mode="before")
    @classmethod
    def _short_name(cls, value: Any) -> Any:
        return "bce" if value == "binary_cross_entropy" else value

    @field_validator("augmentations", mode="before")
    @classmethod
    def _kind_as_key(cls, value: Any) -> Any:
        return [unfold(item) for item in value] if isinstance(value, list) else value

    @field_validator("class_weights")
    @classmethod
    def _factors(cls, value: Any) -> Any:
        if isinstance(value, list) and not all(0 <= weight < math.inf for weight in value):
            raise ValueError(f"class_weights are numbers of at least 0, not {value}")
        return value

    @model_validator(mode="after")
    def _agree(self) -> RunConfig:
        _check_stages(self.training_params)
        if self.strategy == "fsdp":
            _check_sharding(self)
        if self.label_type == "self_supervised":
            _check_self_supervised(self)
            return self
        if self.multilabel and self.loss_function not in ("bce", "focal"):
            raise ValueError(
                f"multilabel=True needs loss_function 'bce' or 'focal', not '{self.loss_function}': the classes "
                "of a clip do not exclude each other"
            )
        if self.loss_function in _TEXT_LOSSES and self.label_type != "text":
            raise ValueError(
                f"loss_function='{self.loss_function}' compares sound with text: set label_type='text'"
            )
        if self.label_type == "text":
            _check_text(self)
        return self


def _check_stages(params: TrainingParams) -> None:
    frozen = params.freeze_backbone_epochs
    if not frozen and (params.second_stage_lr is not None or params.second_stage_warmup_steps is not None):
        raise ValueError(
            "second_stage_lr and second_stage_warmup_steps are for what follows freeze_backbone_epochs, which is 0"
        )
    if frozen >= params.train_epochs and frozen:
        raise ValueError(
            f"freeze_backbone_epochs={frozen} leaves nothing of train_epochs={params.train_epochs} for the backbone"
        )
    if frozen and params.lora_rank is not None:
        raise ValueError("lora_rank keeps the backbone frozen for good: leave freeze_backbone_epochs at 0")


def _check_sharding(config: RunConfig) -> None:
    if config.training_params.freeze_backbone_epochs:
        raise ValueError("strategy='fsdp' cannot unfreeze a backbone: use 'ddp', or freeze_backbone_epochs=0")
    if config.objective.settings.get("target_layer") is not None:
        raise ValueError(
            "strategy='fsdp' cannot cluster a layer of an encoder before the first step, when every process holds "
            "a share of it: use 'ddp'"
        )
    if config.clustering_eval is not None and config.clustering_eval.enabled:
        raise ValueError(
            "strategy='fsdp' cannot embed clips between epochs: use 'ddp', or no clustering_eval"
        )


def _check_self_supervised(config: RunConfig) -> None:
    if config.training_params.freeze_backbone_epochs:
        raise ValueError(
            "self-supervised training has no classifier to train alone: freeze_backbone_epochs=0"
        )
    if config.class_weights is not None or config.sampling.balanced:
        raise ValueError(
            "self-supervised training uses no classes: leave out class_weights and sampling.balanced"
        )


def _check_text(config: RunConfig) -> None:
    if config.loss_function not in _TEXT_LOSSES:
        raise ValueError(
            f"label_type='text' needs loss_function 'contrastive' or 'clip', not '{config.loss_function}'"
        )
    if any(isinstance(item, MixupAugment) for item in config.augmentations):
        raise ValueError("mixup mixes labels, and label_type='text' has none: leave mixup out")
    if config.class_weights is not None or config.sampling.balanced:
        raise ValueError("label_type='text' has no classes: leave out class_weights and sampling.balanced")
