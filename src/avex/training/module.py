"""An objective as a Lightning module: steps, schedule, stages, validation, and what must not go wrong unseen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor, nn

from avex._core.errors import ConfigError
from avex.configs.training import RunConfig
from avex.data.augmentation import BatchAugmenter
from avex.training.data import TrainingData
from avex.training.loader import ResumableLoader
from avex.training.objectives import Objective
from avex.training.reduction import mean_over_processes
from avex.training.safety import LossGuard, check_same_weights, seed_step
from avex.training.schedule import learning_rate, optimizer_class
from avex.training.sharding import shard
from avex.training.trackers import FileLogger
from avex.training.validation import Validation

_STATE = "avex"


class TrainingModule(pl.LightningModule):
    """Trains an objective as a configuration says.

    Metrics go to the loggers as `train/...` every `log_steps` steps and as `val/...` after each validation; the
    step is the number of optimiser steps done.

    Args:
        config: The run.
        data: Its clips; for the label map, and to tell a resumed training from another one.
        objective: What is trained.
    """

    def __init__(self, config: RunConfig, data: TrainingData, objective: Objective) -> None:
        super().__init__()
        self.config = config
        self.objective = objective
        self.classes = data.num_classes
        self.fingerprint = data.fingerprint()
        self.augment = BatchAugmenter(
            config.augmentations, objective.model.sample_rate, config.seed, data.num_classes
        )
        self.guard = LossGuard()
        self._validation: Validation | None = None
        self.latest: dict[str, float] = {}
        self._logged = -1
        self._place: dict[str, int] | None = None
        self._groups: list[dict[str, Any]] = []

    def configure_model(self) -> None:
        """Spread the weights over the processes, with `strategy: fsdp`."""
        if self.device_mesh is not None:
            shard(self.objective, self.device_mesh["data_parallel"])

    # -- training ----------------------------------------------------------------------------------------

    def on_train_start(self) -> None:
        """Enter the stage and the place in the epoch that training starts at, or goes on from."""
        self.objective.train()  # Lightning leaves modes as they are, and models come in eval mode
        self._enter_stage()
        if self._place is not None:
            # Lightning may have made the loader before it read the checkpoint; nothing was taken from it yet.
            self._loader().load_state_dict(self._place)
            self._place = None
            self._apply_settings()
            for logger in self.trainer.loggers:
                if isinstance(logger, FileLogger):
                    logger.rewind(self.global_step)
        seed_step(self.config.seed, 0, 0, self.global_rank, stage=2)
        self.objective.prepare(self._first_look())

    def on_train_epoch_start(self) -> None:
        """Unfreeze the backbone when its time has come."""
        self._enter_stage()

    def on_train_batch_start(self, batch: Mapping[str, Any], batch_idx: int) -> None:
        """Seed everything that is random in this batch."""
        seed_step(self.config.seed, self.current_epoch, batch_idx, self.global_rank)

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> Tensor:
        """Loss of a batch."""
        output = self.objective(self.augment(batch))
        self.guard.watch(output.loss, batch["id"], self.global_step + 1)
        if self.global_step != self._logged and self.global_step % self.config.training_params.log_steps == 0:
            self._logged = self.global_step  # of several batches that make a step, the first one
            self._log_step(output.loss, output.logs)
        return output.loss

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Make a step, and what the objective does after it."""
        super().optimizer_step(*args, **kwargs)
        self.objective.after_step(self.global_step + 1, self.total_steps)

    def on_train_epoch_end(self) -> None:
        """Look at the last loss before anything is stored."""
        self.guard.settle()

    def configure_optimizers(self) -> Any:
        """Optimiser over all stages, and the learning rate of every step."""
        params = self.config.training_params
        groups = self.objective.parameter_groups(params.lr, params.weight_decay, params.layer_decay)
        options: dict[str, Any] = {} if params.adam_betas is None else {"betas": params.adam_betas}
        optimizer = optimizer_class(params.optimizer)(groups, lr=params.lr, **options)
        self._groups = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
        total = self.total_steps  # also makes Lightning count the batches of an epoch
        per_epoch = -(-int(self.trainer.num_training_batches) // params.accumulate_grad_batches)
        rate = learning_rate(self.config, total, per_epoch)
        # A plain function is not stored with the scheduler, so a resumed training may be given more epochs.
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step) / params.lr)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole training."""
        return int(self.trainer.estimated_stepping_batches)

    # -- validation --------------------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        """Give every process the same batch statistics."""
        metrics = self.config.metrics if self.config.label_type == "supervised" else ()
        loss = getattr(self.objective, "loss", None)
        self._validation = Validation(metrics, loss, self.global_rank, self.trainer.world_size)
        for buffer in self.objective.model.buffers():
            if buffer.is_floating_point():
                buffer.copy_(mean_over_processes(buffer))

    def validation_step(self, batch: Mapping[str, Any], batch_idx: int) -> None:
        """Collect what the metrics need; masks and the like are the same in every validation."""
        seed_step(self.config.seed, 0, batch_idx, self.global_rank, stage=1)
        assert self._validation is not None
        output = self.objective(batch)
        self.guard.watch(output.loss, batch["id"], self.global_step, validation=True)
        self._validation.add(output, batch["index"])

    def on_validation_epoch_end(self) -> None:
        """Compute the metrics over the clips of all processes."""
        assert self._validation is not None
        self.guard.settle()
        self.record({f"val/{name}": value for name, value in self._validation.compute().items()})

    def record(self, values: Mapping[str, float]) -> None:
        """Send metrics to the loggers, and keep the latest value of each in `latest`."""
        self.latest.update(values)
        for logger in self.trainer.loggers:
            logger.log_metrics(dict(values), step=self.global_step)

    # -- state -------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say which training the state is of."""
        self.guard.settle()
        checkpoint[_STATE] = {
            "identity": self._identity(),
            "latest": dict(self.latest),
            "place": self._loader().state_dict(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse the state of another training.

        Raises:
            ConfigError: The model, the optimiser, the seed, the batches or the clips are others.
        """
        state = checkpoint.get(_STATE)
        if state is None:
            raise ConfigError("This checkpoint was not written by avex train; resume from one that was.")
        self.latest, self._place = dict(state["latest"]), dict(state["place"])
        now = self._identity()
        for name, value in state["identity"].items():
            if now[name] != value:
                raise ConfigError(
                    f"The checkpoint is of a training with another {name}: {value}, now {now[name]}. It would not "
                    "go on where it stopped. Start anew, with checkpoint_path for the weights."
                )
        # With fsdp the strategy reads the weights, and sees to it that all fit.
        if "state_dict" in checkpoint:
            check_same_weights(checkpoint["state_dict"], self.state_dict())

    def _identity(self) -> dict[str, Any]:
        params = self.config.training_params
        return {
            "seed": self.config.seed,
            "total batch size": params.batch_size * self.trainer.world_size,
            "accumulate_grad_batches": params.accumulate_grad_batches,
            "list of training clips": self.fingerprint,
            "sampling": self.config.sampling.model_dump(mode="json"),
            "optimizer": params.optimizer,
            "layer_decay": params.layer_decay,
        }

    def _apply_settings(self) -> None:
        """Let the configuration's learning rate and the like hold, where the checkpoint brought its own."""
        scheduler: Any = self.trainer.lr_scheduler_configs[0].scheduler
        scheduler.base_lrs = [group["lr"] for group in self._groups]
        groups = self.trainer.optimizers[0].param_groups
        for group, settings, factor in zip(groups, self._groups, scheduler.lr_lambdas, strict=True):
            group.update(settings | {"lr": settings["lr"] * factor(scheduler.last_epoch)})

    # -- parts -------------------------------------------------------------------------------------------

    def _first_look(self) -> Iterator[dict[str, Any]]:
        """Training clips in random order, for what an objective must know of them; read only if it asks."""
        datamodule: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        clips = datamodule.data.train
        order = np.random.default_rng(self.config.seed).permutation(len(clips))
        yield from datamodule.evaluation_loader(tuple(clips[i] for i in order))

    def _loader(self) -> ResumableLoader:
        loader = self.trainer.train_dataloader
        assert isinstance(loader, ResumableLoader)
        return loader

    def _enter_stage(self) -> None:
        frozen = self.config.training_params.freeze_backbone_epochs
        if not frozen:
            return
        learning = self.current_epoch >= frozen
        model = self.objective.model
        for name, parameter in model.named_parameters():
            if not name.startswith(model.head_prefixes):
                parameter.requires_grad_(learning)
        backbone: nn.Module | None = getattr(model, "backbone", None)
        if backbone is not None:
            backbone.train(learning)  # frozen batch statistics stay what they are

    def _log_step(self, loss: Tensor, logs: Mapping[str, Tensor]) -> None:
        names = ["loss", *(name for name in logs if name != "loss")]
        values = torch.stack([loss.detach().float(), *(logs[name].detach().float() for name in names[1:])])
        means = mean_over_processes(values).tolist()
        rate = self.trainer.optimizers[0].param_groups
        highest = max(group["lr"] for group in rate)
        metrics = {f"train/{name}": value for name, value in zip(names, means, strict=True)}
        self.record({**metrics, "train/lr": highest, "epoch": float(self.current_epoch)})
