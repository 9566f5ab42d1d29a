"""The parts of a training run's configuration."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator


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
        accumulate_grad_batches: Batches whose gradients are averaged into one step.
        max_steps: Optimiser steps at most; None for all of `train_epochs`.
        layer_decay: Factor on the learning rate from each layer to the one below it; None for one rate.
        lora_rank: Train low-rank changes of this rank and the head only; None trains everything.
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
    accumulate_grad_batches: PositiveInt = 1
    max_steps: PositiveInt | None = None
    layer_decay: float | None = Field(default=None, gt=0, le=1)
    lora_rank: PositiveInt | None = None

    @field_validator("adam_betas")
    @classmethod
    def _decay_rates(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and not all(0 <= beta < 1 for beta in value):
            raise ValueError(f"adam_betas are decay rates of at least 0 and below 1, not {list(value)}")
        return value


class SchedulerConfig(BaseModel):
    """Learning rate over the steps of a training run.

    Attributes:
        name: `cosine` or `linear` fall from the learning rate to `min_lr`; `none` stays.
        warmup_steps: Steps in which it rises from a tenth.
        min_lr: Learning rate at the end.
    """

    model_config = ConfigDict(extra="forbid")

    name: Literal["cosine", "linear", "none"] = "none"
    warmup_steps: int = Field(default=0, ge=0)
    min_lr: float = Field(default=0.0, ge=0)


class ObjectiveConfig(BaseModel):
    """What the model is trained to do, beyond what `label_type` and `loss_function` say.

    Attributes:
        name: `supervised`, `contrastive`, `eat`, `mae`, `hubert`, `beats`, ...; None follows from `label_type` and
            the model.
        settings: Settings of that objective.
    """

    model_config = ConfigDict(extra="forbid")

    name: str | None = None
    settings: dict[str, Any] = Field(default_factory=dict)


class SamplingConfig(BaseModel):
    """Which clips an epoch takes, and in what order.

    Attributes:
        balanced: Draw clips so that each class is as likely as any other, with repetition.
        bucket_by_length: Put clips of similar length into one batch; for models without a fixed window.
        clips_per_epoch: Clips of an epoch; None for as many as there are.
        mixed_shards: Shards that are read, and whose clips are mixed, at a time; others come after them. Balanced
            sampling draws from all of them.
    """

    model_config = ConfigDict(extra="forbid")

    balanced: bool = False
    bucket_by_length: bool = False
    clips_per_epoch: PositiveInt | None = None
    mixed_shards: PositiveInt = 4


class CheckpointConfig(BaseModel):
    """When the state of a training is kept.

    Attributes:
        every_n_epochs: Epochs between checkpoints.
        every_n_steps: Optimiser steps between further checkpoints, inside epochs; None for none.
        keep: Newest checkpoints to keep; the best one is kept beside them.
        monitor: Metric that says which one is best; None takes the first of `metrics`, else the loss.
        mode: Whether more or less of it is better; None follows from its name.
    """

    model_config = ConfigDict(extra="forbid")

    every_n_epochs: PositiveInt = 1
    every_n_steps: PositiveInt | None = None
    keep: PositiveInt = 2
    monitor: str | None = None
    mode: Literal["min", "max"] | None = None


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
