"""Values of all processes together: means of tensors, and metrics over the clips of a validation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed, nn

from avex.training.metrics import compute_metrics
from avex.training.objectives import LossOutput


def is_distributed() -> bool:
    """Whether several processes train together."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def mean_over_processes(values: Tensor) -> Tensor:
    """Mean of a tensor over all processes; itself if there is one."""
    if not is_distributed():
        return values
    total = values.detach().clone()
    distributed.all_reduce(total)
    return total / distributed.get_world_size()


def gather_objects(value: Any) -> list[Any]:
    """The values of all processes, in order of their ranks."""
    if not is_distributed():
        return [value]
    values: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return values


class Validation:
    """Collects a validation, and computes its metrics over the clips of all processes, each clip once.

    Args:
        metrics: Names of metrics; see `avex.training.metrics`.
    """

    def __init__(self, metrics: Sequence[str]) -> None:
        self.metrics = tuple(metrics)
        self.reset()

    def reset(self) -> None:
        """Forget what was collected."""
        self._logs: list[tuple[int, dict[str, float]]] = []
        self._logits: list[np.ndarray] = []
        self._targets: list[np.ndarray] = []
        self._index: list[int] = []

    def add(self, output: LossOutput, index: Sequence[int]) -> None:
        """Add a batch.

        Args:
            output: Of the objective.
            index: Numbers of the clips.
        """
        logs = {"loss": float(output.loss), **{k: float(v) for k, v in output.logs.items() if k != "loss"}}
        self._logs.append((len(index), logs))
        if "logits" in output.outputs:
            self._logits.append(output.outputs["logits"].float().cpu().numpy())
            self._targets.append(output.outputs["targets"].cpu().numpy())
            self._index += list(index)

    def compute(self, loss: nn.Module | None) -> dict[str, float]:
        """Metrics of everything that was added, on every process.

        Args:
            loss: Turns logits and targets of all clips into the loss; None takes the mean over batches.
        """
        parts = gather_objects((self._logs, self._logits, self._targets, self._index))
        values = _weighted_means([entry for part in parts for entry in part[0]])
        logits = [array for part in parts for array in part[1]]
        if logits:
            index = np.array([i for part in parts for i in part[3]])
            _, once = np.unique(index, return_index=True)
            table = np.concatenate(logits)[once]
            truth = np.concatenate([array for part in parts for array in part[2]])[once]
            values |= compute_metrics(self.metrics, table, truth)
            if loss is not None:
                # What several processes evaluate twice, to have equally many clips, counts once.
                values["loss"] = float(loss(torch.from_numpy(table), torch.from_numpy(truth)))
        return values


def _weighted_means(entries: Sequence[tuple[int, dict[str, float]]]) -> dict[str, float]:
    total = sum(count for count, _ in entries)
    names = entries[0][1] if entries else {}
    return {name: sum(count * logs[name] for count, logs in entries) / total for name in names}
