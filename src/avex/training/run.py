"""A training run from its configuration to a model that `load_model` reads."""

from __future__ import annotations

import inspect
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, Strategy
from torch.nn.parallel import DistributedDataParallel

from avex._core.errors import ConfigError
from avex.configs.training import RunConfig
from avex.io.atomic import is_temporary
from avex.training.building import build_run_objective, build_training_model
from avex.training.callbacks import ClusteringCallback, RunFactsCallback
from avex.training.checkpoint import (
    BEST,
    FOLDER,
    AtomicCheckpointIO,
    Checkpointer,
    find_checkpoint,
    stored_checkpoints,
)
from avex.training.curves import write_curves
from avex.training.data import TrainingData
from avex.training.datamodule import TrainingDataModule
from avex.training.module import TrainingModule
from avex.training.objectives import Objective
from avex.training.preflight import describe, find_oddities, ready, unused_settings
from avex.training.processes import Processes, find_precision, find_processes
from avex.training.result import CARD, export_model
from avex.training.safety import TrainingStoppedError
from avex.training.trackers import METRICS, build_loggers, read_metrics

logger = logging.getLogger(__name__)

_RUN_FOLDER = "AVEX_RUN_FOLDER"
_DEBUG_BATCHES = 2
_CHATTY = ("lightning", "lightning.pytorch", "lightning.pytorch.utilities.rank_zero", "lightning.fabric")
_ADVICE = (
    ".*does not have many workers.*",
    ".*GPU available but not used.*",
    ".*`isinstance\\(treespec, LeafSpec\\)`.*",
    ".*in eval mode at the start of training.*",
    ".*Starting from v1.9.0.*",
    ".*The ``srun`` command is available.*",
    ".*find_unused_parameters=True was specified.*",
    ".*No device id is provided.*",
)


@dataclass(frozen=True)
class TrainingResult:
    """What a training leaves behind.

    Attributes:
        folder: Folder of the run.
        model: Card of the trained model, for `load_model`; None on processes other than the first.
        metrics: Latest value of each metric.
        best: Best value of the monitored metric, None without a validation.
        monitor: Its name.
        steps: Optimiser steps done.
    """

    folder: Path
    model: Path | None
    metrics: dict[str, float]
    best: float | None
    monitor: str
    steps: int


def train(config: RunConfig, *, resume: bool = False, progress: bool = False) -> TrainingResult:
    """Train a model.

    The run's folder is `output_dir/run_name`, or `output_dir/TIME` without a name.

    Args:
        config: The run.
        resume: Go on from the newest checkpoint in the run's folder, or start if there is none.
        progress: Show a progress bar.

    Returns:
        Where everything is, and how good it is.

    Raises:
        ConfigError: The training cannot start; with all reasons.
        TrainingDivergedError: The loss is no longer a number.
        TrainingStoppedError: Ctrl-C or SIGTERM.

    Example:
        >>> result = train(RunConfig.from_sources("run.yml"))      # doctest: +SKIP
        >>> load_model(result.model)                               # doctest: +SKIP
    """
    processes = find_processes(config)
    if "distributed_port" in config.model_fields_set:
        os.environ.setdefault("MASTER_PORT", str(config.distributed_port))  # torchrun has chosen one already
    data, objective = ready(config)
    for note in describe(data):
        logger.info(note)
    for note in [*find_oddities(data), *unused_settings(config)] if processes.first else ():
        logger.warning(note)
    folder, checkpoint = _folder(config, resume, processes)
    if processes.first:
        folder.mkdir(parents=True, exist_ok=True)
        _clear(folder, anew=checkpoint is None)
    module = TrainingModule(config, data, objective)
    datamodule = TrainingDataModule(config, data, objective.model)
    checkpointer = Checkpointer(folder, config)
    loggers = build_loggers(config, folder)
    callbacks = [RunFactsCallback(folder, config, data.encoder), checkpointer]
    trainer = _trainer(config, processes, folder, callbacks, loggers, bool(data.validation), progress)
    try:
        with quiet_lightning():
            path = str(checkpoint) if checkpoint else None
            trainer.fit(module, datamodule, ckpt_path=path, weights_only=True)
    except SystemExit as stop:  # what Lightning makes of Ctrl-C and SIGTERM; without a word, and as a success
        raise TrainingStoppedError(
            f"The training in '{folder}' was stopped at step {trainer.global_step}. Go on with --resume from its "
            "newest checkpoint."
        ) from stop
    card = None
    if trainer.is_global_zero:
        card = _export(config, data, objective, folder)
        write_curves(read_metrics(folder / METRICS), folder)
    trainer.strategy.barrier("the model is written")
    return TrainingResult(
        folder, card, module.latest, checkpointer.best, checkpointer.monitor, trainer.global_step
    )


def _export(config: RunConfig, data: TrainingData, objective: Objective, folder: Path) -> Path:
    """Write the best model of a run, or the last one where there was no validation."""
    best = folder / FOLDER / BEST
    checkpoint = best if best.is_file() else None
    if config.strategy == "fsdp":
        # This process holds a share of the weights; the checkpoints hold all of them.
        objective = build_run_objective(config, data, build_training_model(config, data.num_classes))
        checkpoint = checkpoint or stored_checkpoints(folder / FOLDER)[-1]
    return export_model(folder, config, data, objective, checkpoint)


def _folder(config: RunConfig, resume: bool, processes: Processes) -> tuple[Path, Path | None]:
    """Folder of the run, and the checkpoint to go on from."""
    if config.resume_from_checkpoint is not None:
        checkpoint = find_checkpoint(config.resume_from_checkpoint)
        folder = checkpoint.parent.parent if checkpoint.parent.name == FOLDER else checkpoint.parent
        return folder, checkpoint
    if config.run_name is None and resume:
        raise ConfigError("--resume needs run_name: without one every run gets a folder of its own.")
    if config.run_name is None and processes.world_size > 1 and _RUN_FOLDER not in os.environ:
        raise ConfigError("Several processes need run_name, to agree on the folder of the run.")
    name = config.run_name or os.environ.get(_RUN_FOLDER) or datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    folder = Path(config.output_dir).expanduser() / name
    found = stored_checkpoints(folder / FOLDER)
    if resume and found:
        return folder, found[-1]
    if (found or (folder / CARD).exists()) and processes.first:
        going_on = "Go on with it (--resume), choose" if found else "Its checkpoints are gone: choose"
        raise ConfigError(
            f"There is a training in '{folder}' already. {going_on} another run_name, or remove it."
        )
    return folder, None


def _clear(folder: Path, *, anew: bool) -> None:
    """Remove what a killed training left behind: half checkpoints and, before its first whole one, everything."""
    left = [file for file in (folder / FOLDER).glob("*") if is_temporary(file)]
    for file in [*left, folder / METRICS, folder / FOLDER / BEST] if anew else left:
        file.unlink(missing_ok=True)


def _trainer(
    config: RunConfig,
    processes: Processes,
    folder: Path,
    callbacks: list[pl.Callback],
    loggers: list[Any],
    validates: bool,
    progress: bool,
) -> pl.Trainer:
    params = config.training_params
    clustering = config.clustering_eval
    if clustering is not None and clustering.enabled:
        callbacks = [ClusteringCallback(clustering), *callbacks]
    validates = validates and not params.skip_validation
    with quiet_lightning():
        return pl.Trainer(
            accelerator=processes.accelerator,
            devices=processes.devices,
            num_nodes=processes.num_nodes,
            strategy=_strategy(config, processes),
            precision=find_precision(config, processes.accelerator),
            max_epochs=1 if config.debug_mode else params.train_epochs,
            max_steps=params.max_steps or -1,
            limit_train_batches=_DEBUG_BATCHES if config.debug_mode else 1.0,
            limit_val_batches=(_DEBUG_BATCHES if config.debug_mode else 1.0) if validates else 0,
            accumulate_grad_batches=params.accumulate_grad_batches,
            gradient_clip_val=params.gradient_clip_val,
            callbacks=callbacks,
            logger=loggers,
            plugins=[AtomicCheckpointIO()],
            log_every_n_steps=1,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            sync_batchnorm=config.sync_batchnorm,
            enable_checkpointing=False,
            enable_progress_bar=progress and processes.first,
            enable_model_summary=False,
            default_root_dir=folder,
        )


def _strategy(config: RunConfig, processes: Processes) -> str | Strategy:
    if processes.world_size == 1 and config.strategy == "auto" and not config.distributed:
        return "auto"
    backend = "gloo" if processes.accelerator == "cpu" else config.distributed_backend
    if config.strategy == "fsdp":
        return ModelParallelStrategy(
            data_parallel_size=processes.world_size,
            tensor_parallel_size=1,
            save_distributed_checkpoint=False,
            process_group_backend=backend,
        )
    # Parts that take no part in a step (a frozen stage, a layer that is dropped) are common in this field. Batch
    # statistics are averaged before a validation instead of being sent around in every step.
    # torch 2.13 gave the switch another name.
    known = inspect.signature(DistributedDataParallel).parameters
    quiet = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    return DDPStrategy(process_group_backend=backend, find_unused_parameters=True, **{quiet: False})  # type: ignore[arg-type]


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Leave out advice of Lightning that does not apply here, or that the configuration has decided."""
    chatty = [logging.getLogger(name) for name in _CHATTY]
    levels = [log.level for log in chatty]
    for log in chatty:
        log.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for message in _ADVICE:
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        for log, level in zip(chatty, levels, strict=True):
            log.setLevel(level)
