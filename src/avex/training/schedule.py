"""The optimiser, and its learning rate as a function of the step, so that a resumed training has no state of it."""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass
from typing import Any

import torch

from avex._core.errors import ConfigError
from avex._core.optional import available
from avex.configs.training import RunConfig

_FIRST = 0.1  # where a warm-up starts, as a share of the learning rate


@dataclass(frozen=True)
class Stage:
    """A stretch of steps with its own learning rate.

    Attributes:
        start: First step.
        steps: Number of steps.
        lr: Highest learning rate.
        warmup_steps: Steps in which it rises from a tenth.
        min_lr: Where it ends.
        shape: `cosine`, `linear` or `none`.
    """

    start: int
    steps: int
    lr: float
    warmup_steps: int = 0
    min_lr: float = 0.0
    shape: str = "none"

    def __call__(self, step: int) -> float:
        """Learning rate of a step, counted from the start of the training."""
        done = step - self.start
        if done < self.warmup_steps:
            return self.lr * (_FIRST + (1 - _FIRST) * done / self.warmup_steps)
        if self.shape == "none":
            return self.lr
        left = max(1, self.steps - self.warmup_steps)
        share = min(1.0, (done - self.warmup_steps) / left)
        low = min(self.min_lr, self.lr)
        fall = (1 + math.cos(math.pi * share)) / 2 if self.shape == "cosine" else 1 - share
        return low + (self.lr - low) * fall


@dataclass(frozen=True)
class LearningRate:
    """Learning rate over a whole training, of one or two stages.

    Attributes:
        stages: In order.

    Example:
        >>> rate = LearningRate((Stage(0, 10, 0.1, shape="linear"),))
        >>> [round(rate(step), 3) for step in (0, 5, 10)]
        [0.1, 0.05, 0.0]
    """

    stages: tuple[Stage, ...]

    def __call__(self, step: int) -> float:
        """Learning rate of a step."""
        current = self.stages[0]
        for stage in self.stages:
            if step >= stage.start:
                current = stage
        return current(step)


def learning_rate(config: RunConfig, total_steps: int, steps_per_epoch: int) -> LearningRate:
    """The learning rate that a configuration describes.

    With `freeze_backbone_epochs` the first stage falls over the frozen epochs, and the second one, at
    `second_stage_lr` (a tenth of the first where it is not said) over the rest.

    Args:
        config: The run.
        total_steps: Optimiser steps of the training.
        steps_per_epoch: Optimiser steps of an epoch.
    """
    params, scheduler = config.training_params, config.scheduler
    boundary = params.freeze_backbone_epochs * steps_per_epoch
    common = {"min_lr": scheduler.min_lr, "shape": scheduler.name}
    if not boundary:
        return LearningRate((Stage(0, total_steps, params.lr, scheduler.warmup_steps, **common),))  # type: ignore[arg-type]
    second_lr = 0.1 * params.lr if params.second_stage_lr is None else params.second_stage_lr
    second_warmup = params.second_stage_warmup_steps
    first = Stage(0, boundary, params.lr, scheduler.warmup_steps, **common)  # type: ignore[arg-type]
    second = Stage(
        boundary,
        max(1, total_steps - boundary),
        second_lr,
        scheduler.warmup_steps if second_warmup is None else second_warmup,
        **common,  # type: ignore[arg-type]
    )
    return LearningRate((first, second))


def optimizer_class(name: str) -> Any:
    """The class of an optimiser by its name in configurations.

    Raises:
        ConfigError: `adamw8bit` without the package bitsandbytes.
    """
    if name == "adamw8bit":
        if not available("bitsandbytes"):
            raise ConfigError(
                "The optimiser 'adamw8bit' needs a CUDA GPU and the package bitsandbytes: pip install "
                "bitsandbytes, or set training_params.optimizer: adamw."
            )
        return importlib.import_module("bitsandbytes").optim.PagedAdamW8bit
    return {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[name]
