"""Checkpoints that are whole or not there, the newest few and the best one."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from avex._core.errors import ConfigError, WeightsError
from avex.configs.training import RunConfig
from avex.io import atomic_path
from avex.training.metrics import better_is_more
from avex.weights.sniff import DAMAGE

FOLDER, SUFFIX, BEST = "checkpoints", ".ckpt", "best.ckpt"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints in one step, and reads tensors and plain data only: no code of a file is ever run."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint beside its place, flush it to the disk, and rename it.

        Raises:
            OSError: There is no room for it; those that were there before are as they were.
        """
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with atomic_path(target) as temporary:
                torch.save(checkpoint, temporary)
        except RuntimeError as error:  # torch's name of a write that failed
            raise OSError(
                f"Checkpoint '{target}' could not be written ({error}). Is the disk full? Free some space and go "
                "on with --resume."
            ) from error

    def load_checkpoint(
        self, path: Any, map_location: Callable[..., Any] | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint to the CPU.

        Raises:
            WeightsError: The file is damaged, or holds more than tensors and plain data.
        """
        if not Path(path).is_file():
            raise ConfigError(f"There is no checkpoint at '{path}'.")
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except DAMAGE as error:
            raise WeightsError(
                f"Checkpoint '{path}' cannot be read: {error}. Resume from an older one."
            ) from error
        return state


class Checkpointer(pl.Callback):
    """Stores the state of a training.

    `checkpoints/step-000001200.ckpt` after epochs and, if wanted, after numbers of steps, of which the newest few
    are kept; and `checkpoints/best.ckpt` after the epoch with the best value of the monitored metric. There is no
    best one where losses cannot be compared (`Objective.comparable`) and no metric is chosen.

    Args:
        folder: Folder of the run.
        config: When, how many, and which metric.
    """

    def __init__(self, folder: Path, config: RunConfig) -> None:
        self.folder = folder / FOLDER
        self.options = config.checkpoints
        self.monitor = monitored(config)
        mode = config.checkpoints.mode
        self.more_is_better = better_is_more(self.monitor) if mode is None else mode == "max"
        self.best: float | None = None
        self.best_step: int | None = None
        self._seen = 0

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Note the step that training starts or goes on at."""
        self._seen = trainer.global_step

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        """Store every so many steps, but for the end of an epoch, which is stored when it is over."""
        every = self.options.every_n_steps
        stepped, self._seen = trainer.global_step != self._seen, trainer.global_step
        if every is None or not stepped or trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            return
        if trainer.global_step % every == 0:
            self._save(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Store the best epoch, and every so many epochs."""
        latest = getattr(module, "latest", {})
        self._check_monitor(trainer, latest)
        value = latest.get(self.monitor)
        objective: Any = getattr(module, "objective", None)
        comparable = self.options.monitor is not None or getattr(objective, "comparable", True)
        if comparable and value is not None and self._is_better(value):
            self.best, self.best_step = value, trainer.global_step
            trainer.save_checkpoint(self.folder / BEST)
        last = trainer.current_epoch + 1 == trainer.max_epochs or trainer.global_step >= _limit(trainer)
        if last or (trainer.current_epoch + 1) % self.options.every_n_epochs == 0:
            self._save(trainer)

    def state_dict(self) -> dict[str, Any]:
        """What was the best so far."""
        return {"best": self.best, "best_step": self.best_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with what was the best so far."""
        self.best, self.best_step = state_dict["best"], state_dict["best_step"]

    def _is_better(self, value: float) -> bool:
        if value != value:
            return False
        return self.best is None or (value > self.best if self.more_is_better else value < self.best)

    def _check_monitor(self, trainer: pl.Trainer, latest: dict[str, float]) -> None:
        validated = any(name.startswith("val/") for name in latest)
        if self.options.monitor is not None and validated and self.monitor not in latest:
            raise ConfigError(
                f"checkpoints.monitor is '{self.monitor}', which this run does not measure. It measures: "
                f"{', '.join(sorted(latest))}."
            )

    def _save(self, trainer: pl.Trainer) -> None:
        trainer.save_checkpoint(self.folder / f"step-{trainer.global_step:09d}{SUFFIX}")
        if trainer.is_global_zero:
            for old in stored_checkpoints(self.folder)[: -self.options.keep]:
                trainer.strategy.remove_checkpoint(old)


def monitored(config: RunConfig) -> str:
    """The metric that says which checkpoint is the best."""
    if config.checkpoints.monitor is not None:
        name = config.checkpoints.monitor
        return name if "/" in name else f"val/{name}"
    return f"val/{config.metrics[0]}" if config.label_type == "supervised" else "val/loss"


def stored_checkpoints(folder: Path) -> list[Path]:
    """Checkpoints of a run in order of their steps, without the best one."""
    return sorted(folder.glob(f"step-*{SUFFIX}"))


def find_checkpoint(path: str | os.PathLike[str]) -> Path:
    """The checkpoint that a path means: the file, or the newest one of a run's folder.

    Raises:
        ConfigError: There is none.
    """
    given = Path(path).expanduser()
    if given.is_file():
        return given
    found = [*stored_checkpoints(given), *stored_checkpoints(given / FOLDER)]
    if not found:
        raise ConfigError(f"There is no checkpoint at '{path}'. Give a .ckpt file, or the folder of a run.")
    return max(found, key=lambda file: file.name)


def _limit(trainer: pl.Trainer) -> float:
    return float("inf") if trainer.max_steps < 0 else trainer.max_steps
