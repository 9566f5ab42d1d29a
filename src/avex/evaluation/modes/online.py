"""Training through the model: fine-tuning, and probes that are not trained on stored embeddings.

AdamW in up to two stages (first the head alone, if `freeze_backbone_epochs` says so), a linear warm-up, a
schedule. After each epoch the validation clips are scored in eval mode; the state that did best there is the
one that is tested, once.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader

from avex._core.errors import ConfigError, TrainingDivergedError
from avex.configs.training import TrainingParams
from avex.data.dataset import ClipDataset, collate
from avex.evaluation.encoder import model_window
from avex.evaluation.modes.base import Context, Outcome
from avex.evaluation.modes.probe import outcome
from avex.evaluation.predicting import Predictions
from avex.evaluation.tasks import Indices, Round
from avex.models.base_model import ModelBase
from avex.models.probes import Probe, build_probe_from_config
from avex.training.probes.crossval import VALIDATION_FRACTION, hold_out
from avex.training.probes.examples import Examples
from avex.training.probes.fitting import primary_score
from avex.training.probes.loop import make_loss
from avex.training.probes.result import probabilities
from avex.training.probes.targets import Targets
from avex.training.schedule import optimizer_class

_FINAL_SHARE = 0.01


def run(context: Context) -> Outcome:
    """Train the experiment's probe on its model in every round of the task; each starts from the loaded weights."""
    found, histories = [], {}
    for round_ in context.task.rounds():
        trainer = _Trainer(context, *_validated(context, round_))
        histories[round_.name] = trainer.fit()
        found.append(trainer.predict(round_.test))
    rounds = context.task.rounds()
    order = np.concatenate([round_.test for round_ in rounds])
    names = [round_.name for round_ in rounds for _ in round_.test]
    ascending = np.argsort(order)
    table = probabilities(np.concatenate(found)[ascending], context.task.targets().task)
    predictions = Predictions(order[ascending], table, tuple(names[int(i)] for i in ascending))
    details = {"history": histories, "trained_backbone": not context.probe.freeze_backbone}
    return outcome(context, predictions, details)


def _validated(context: Context, round_: Round) -> tuple[Indices, Indices]:
    """Training and validation clips; without a validation part some of the former are held out."""
    if len(round_.validation) or context.config.training_params.skip_validation:
        return round_.train, round_.validation
    if round_.inner is not None:
        first = round_.inner == np.unique(round_.inner)[0]
        return round_.train[~first], round_.train[first]
    task = context.task
    names = tuple(clip.id for clip in task.clips)
    examples = Examples(np.zeros((len(names), 1), np.float32), task.targets(), names, task.groups)
    return hold_out(examples, round_.train, VALIDATION_FRACTION, context.seed)


class _Trainer:
    """One training of a probe on its model."""

    def __init__(self, context: Context, train: Indices, validation: Indices) -> None:
        self._context = context
        self._params = context.config.training_params
        self._train, self._validation = train, validation
        self._targets = context.task.targets()
        torch.manual_seed(context.seed)
        model = context.load_model()
        if self._params.gradient_checkpointing and not context.probe.freeze_backbone:
            model.enable_gradient_checkpointing()
        self._dataset = _dataset(context, model)
        length = self._dataset.target_seconds
        self._probe: Probe = build_probe_from_config(
            context.probe,
            len(context.task.classes),
            context.device,
            base_model=model,
            target_length=None if length is None else round(length * self._dataset.sample_rate),
        )
        self._device = torch.device(context.device)

    def fit(self) -> list[dict[str, float]]:
        """Train; the best state by validation is left in the probe."""
        history: list[dict[str, float]] = []
        best, best_state = -math.inf, copy.deepcopy(self._probe.state_dict())
        for stage in _stages(self._params, self._context.probe.freeze_backbone):
            backbone = self._backbone_parameters()
            for parameter in backbone:
                parameter.requires_grad_(stage.backbone)
            optimiser = _optimiser(self._probe, stage, self._params)
            steps = max(1, math.ceil(len(self._train) / self._params.batch_size))
            schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, _schedule(self._params, stage, steps))
            for number in range(stage.first, stage.last):
                loss = self._epoch(number, stage, optimiser, schedule)
                score = self._score() if len(self._validation) else math.nan
                rate = float(schedule.get_last_lr()[0])
                history.append(
                    {
                        "epoch": number + 1,
                        "train_loss": loss,
                        "validation_score": score,
                        "learning_rate": rate,
                    }
                )
                # NaN, where no class has a validation clip, is not below anything: then the last state counts.
                if len(self._validation) and not score <= best:
                    best, best_state = score, copy.deepcopy(self._probe.state_dict())
        if len(self._validation):
            self._probe.load_state_dict(best_state)
        return history

    def _epoch(self, number: int, stage: _Stage, optimiser: Any, schedule: Any) -> float:
        self._probe.train()
        if not stage.backbone and self._probe.base_model is not None:
            self._probe.base_model.eval()
        order = np.random.default_rng((self._context.seed, number)).permutation(self._train)
        loss = make_loss(self._targets, None, self._device)
        total = 0.0
        for rows, batch in self._batches(order):
            with self._autocast():
                logits = self._probe(*_inputs(batch, self._device))
                value = loss(logits.float(), _truth(self._targets, rows, self._device))
            if not torch.isfinite(value):
                raise TrainingDivergedError(
                    f"The loss became {float(value)} in epoch {number + 1}. Lower training_params.lr (now "
                    f"{self._params.lr:g}), or set training_params.gradient_clip_val=1.0."
                )
            optimiser.zero_grad(set_to_none=True)
            value.backward()
            if self._params.gradient_clip_val:
                torch.nn.utils.clip_grad_norm_(self._probe.parameters(), self._params.gradient_clip_val)
            optimiser.step()
            schedule.step()
            total += float(value.detach()) * len(rows)
        return total / len(order)

    def _score(self) -> float:
        values = self._targets.values[self._validation]
        return primary_score(Targets(values, self._targets.classes), self.predict(self._validation))

    @torch.inference_mode()
    def predict(self, clips: Indices) -> npt.NDArray[np.float32]:
        """Logits (N, C) of clips, in eval mode."""
        self._probe.eval()
        rows = []
        for _, batch in self._batches(clips):
            with self._autocast():
                rows.append(self._probe(*_inputs(batch, self._device)).float().cpu().numpy())
        return np.concatenate(rows)

    def _batches(self, order: Indices) -> Iterator[tuple[Indices, dict[str, Any]]]:
        size = self._params.batch_size
        batches = [order[start : start + size] for start in range(0, len(order), size)]
        loader: DataLoader[Any] = DataLoader(
            self._dataset,
            batch_sampler=[[int(i) for i in batch] for batch in batches],
            collate_fn=collate,
            num_workers=self._context.config.num_workers,
        )
        yield from zip(batches, loader, strict=True)

    def _backbone_parameters(self) -> list[torch.nn.Parameter]:
        base = self._probe.base_model
        if base is None or self._context.probe.freeze_backbone:
            return []
        return [p for name, p in base.named_parameters() if not name.startswith(base.head_prefixes)]

    def _autocast(self) -> Any:
        params = self._params
        dtype = torch.bfloat16 if params.amp_dtype == "bf16" else torch.float16
        return torch.autocast(self._device.type, dtype, enabled=params.amp)


@dataclass(frozen=True)
class _Stage:
    """Epochs `first` to `last` (half open) with one learning rate."""

    first: int
    last: int
    rate: float
    backbone: bool
    warmup_steps: int | None = None


def _stages(params: TrainingParams, frozen: bool) -> list[_Stage]:
    head_only = 0 if frozen else min(params.freeze_backbone_epochs, params.train_epochs)
    stages = [_Stage(0, head_only, params.lr, False)] if head_only else []
    if head_only < params.train_epochs:
        second = params.lr if params.second_stage_lr is None else params.second_stage_lr
        rate = second if head_only else params.lr
        warmup = params.second_stage_warmup_steps if head_only else None
        stages.append(_Stage(head_only, params.train_epochs, rate, not frozen, warmup))
    return stages


def _schedule(params: TrainingParams, stage: _Stage, steps: int) -> Any:
    """Share of the learning rate at each step: linear warm-up, then as the scheduler says, down to 1 %."""
    total = steps * (stage.last - stage.first)
    default = min(params.warmup_epochs * steps, total // 2)
    warmup = default if stage.warmup_steps is None else min(stage.warmup_steps, total // 2)

    def share(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        done = min(1.0, (step - warmup) / max(1, total - warmup))
        if params.scheduler_type == "cosine":
            return _FINAL_SHARE + (1 - _FINAL_SHARE) * (1 + math.cos(math.pi * done)) / 2
        if params.scheduler_type == "linear":
            return 1 - (1 - _FINAL_SHARE) * done
        if params.scheduler_type == "step":
            return 0.5 ** min(2, int(3 * done))
        return 1.0

    return share


def _optimiser(probe: Probe, stage: _Stage, params: TrainingParams) -> torch.optim.Optimizer:
    trained = [p for p in probe.parameters() if p.requires_grad]
    if not trained:
        raise ConfigError(
            f"A '{probe.probe_type}' probe has nothing to train. Use the mode 'knn', or a linear probe."
        )
    options: dict[str, Any] = {"lr": stage.rate, "weight_decay": params.weight_decay}
    if params.adam_betas is not None:
        options["betas"] = params.adam_betas
    optimiser: torch.optim.Optimizer = optimizer_class(params.optimizer)(trained, **options)
    return optimiser


def _dataset(context: Context, model: ModelBase) -> ClipDataset:
    window, fixed = model_window(model)
    limits = [seconds for seconds in (window if not fixed else None, context.task.max_seconds) if seconds]
    return ClipDataset(
        context.task.clips,
        model.sample_rate,
        target_seconds=min(limits, default=None),
        resampler=context.resampler,
        seed=context.seed,
    )


def _inputs(batch: dict[str, Any], device: torch.device) -> tuple[torch.Tensor, torch.Tensor | None]:
    mask = batch["padding_mask"]
    return batch["raw_wav"].to(device), mask.to(device) if bool(mask.any()) else None


def _truth(targets: Targets, rows: Indices, device: torch.device) -> torch.Tensor:
    values = torch.from_numpy(targets.values[rows]).to(device)
    return values if targets.task == "single-label" else values.float()
