"""How a model is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator, model_validator

from avex.configs.base import BaseCLIConfig
from avex.configs.data import DatasetCollectionConfig
from avex.configs.model import ModelSpec

Loss = Literal["cross_entropy", "bce", "contrastive", "clip", "focal"]
LabelType = Literal["supervised", "text", "self_supervised"]
_TEXT_LOSSES = ("contrastive", "clip")


class TrainingParams(BaseModel):
    """Numbers of a training run.

    Attributes:
        train_epochs: Passes over the training data.
        lr: Learning rate.
        batch_size: Clips per step and process.
        optimizer: `adamw`, `adam`, or `adamw8bit` (needs bitsandbytes and CUDA).
        weight_decay: Of the optimiser.
        adam_betas: Decay rates of the moments.
        amp: Automatic mixed precision.
        amp_dtype: Its type.
        log_steps: Steps between log lines.
        gradient_checkpointing: Less memory for more computation.
        gradient_clip_val: Largest gradient norm; None clips nothing.
        freeze_backbone_epochs: Epochs in which only the classifier learns.
        second_stage_lr: Learning rate after these.
        second_stage_warmup_steps: Steps of warm-up after these.
        skip_validation: Validate never.
        warmup_epochs: Epochs of warm-up of a fine-tuned probe.
        scheduler_type: Learning rate of a probe after the warm-up.
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    train_epochs: PositiveInt
    lr: float = Field(gt=0)
    batch_size: PositiveInt
    optimizer: Literal["adamw", "adam", "adamw8bit"] = "adamw"
    weight_decay: float = Field(default=0.0, ge=0)
    adam_betas: tuple[float, float] | None = None
    amp: bool = False
    amp_dtype: Literal["bf16", "fp16"] = "bf16"
    log_steps: PositiveInt = 100
    gradient_checkpointing: bool = False
    gradient_clip_val: float | None = Field(default=None, ge=0)
    freeze_backbone_epochs: int = Field(default=0, ge=0)
    second_stage_lr: float | None = Field(default=None, ge=0)
    second_stage_warmup_steps: int | None = Field(default=None, ge=0)
    skip_validation: bool = False
    warmup_epochs: int = Field(default=5, ge=0)
    scheduler_type: Literal["none", "cosine", "linear", "step"] = "cosine"

    @field_validator("adam_betas")
    @classmethod
    def _decay_rates(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and not all(0 <= beta < 1 for beta in value):
            raise ValueError(f"adam_betas are decay rates of at least 0 and below 1, not {list(value)}")
        return value


class SchedulerConfig(BaseModel):
    """Learning rate over the steps of a training run."""

    model_config = ConfigDict(extra="forbid")

    name: Literal["cosine", "linear", "none"] = "none"
    warmup_steps: int = Field(default=0, ge=0)
    min_lr: float = Field(default=0.0, ge=0)


class NoiseAugment(BaseModel):
    """Add noise from recordings.

    Attributes:
        noise_dirs: Folders of noise recordings.
        snr_db_range: Lowest and highest signal-to-noise ratio, dB.
        augmentation_prob: Share of the clips that get noise.
        mask_signal_prob: Share of these that become noise alone.
    """

    model_config = ConfigDict(extra="forbid")

    kind: Literal["noise"] = "noise"
    noise_dirs: list[str] = Field(min_length=1)
    snr_db_range: tuple[float, float]
    augmentation_prob: float = Field(ge=0, le=1)
    mask_signal_prob: float = Field(default=0.0, ge=0, le=1)

    @field_validator("snr_db_range")
    @classmethod
    def _in_order(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] > value[1]:
            raise ValueError(f"snr_db_range goes from the lowest to the highest, not {list(value)}")
        return value


class MixupAugment(BaseModel):
    """Mix clips and their labels.

    Attributes:
        alpha: Of the Beta distribution of the weights.
        n_mixup: Clips that are mixed in.
        augmentation_prob: Share of the clips that are mixed.
    """

    model_config = ConfigDict(extra="forbid")

    kind: Literal["mixup"] = "mixup"
    alpha: float = Field(gt=0)
    n_mixup: PositiveInt = 1
    augmentation_prob: float = Field(ge=0, le=1)


Augment = Annotated[NoiseAugment | MixupAugment, Field(discriminator="kind")]
_KINDS = ("noise", "mixup")


class ClusteringEvalConfig(BaseModel):
    """Clustering of embeddings during training.

    Attributes:
        enabled: Do it.
        frequency: Epochs between.
        layers: Layers, separated by commas.
        use_validation_set: On validation rather than training clips.
        max_samples: At most so many clips.
        run_before_training: Also before the first epoch.
    """

    model_config = ConfigDict(extra="forbid")

    enabled: bool = False
    frequency: PositiveInt = 5
    layers: str = "last_layer"
    use_validation_set: bool = True
    max_samples: int | None = Field(default=None, ge=100)
    run_before_training: bool = False


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

    @field_validator("loss_function", mode="before")
    @classmethod
    def _short_name(cls, value: Any) -> Any:
        return "bce" if value == "binary_cross_entropy" else value

    @field_validator("augmentations", mode="before")
    @classmethod
    def _kind_as_key(cls, value: Any) -> Any:
        if not isinstance(value, list):
            return value
        return [_unfold(item) for item in value]

    @model_validator(mode="after")
    def _agree(self) -> RunConfig:
        if self.label_type == "self_supervised":
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
        if self.label_type == "text" and self.loss_function not in _TEXT_LOSSES:
            raise ValueError(
                f"label_type='text' needs loss_function 'contrastive' or 'clip', not '{self.loss_function}'"
            )
        return self


def _unfold(item: Any) -> Any:
    """`{noise: {...}}` means `{kind: noise, ...}`."""
    if isinstance(item, Mapping) and len(item) == 1:
        kind, fields = next(iter(item.items()))
        if kind in _KINDS and isinstance(fields, Mapping):
            return {"kind": kind, **fields}
    return item
