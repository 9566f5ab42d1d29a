"""A validation: what is collected batch by batch on every process, and the metrics of all of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from avex.training.metrics import compute_metrics
from avex.training.objectives import LossOutput
from avex.training.objectives.losses import ClassificationLoss
from avex.training.reduction import gather_objects
from avex.training.scores import ScoreTable

_Weighted = dict[str, tuple[float, float]]  # sum of weight * value, and of weights


class Validation:
    """Collects a validation, and computes its metrics over the clips of all processes, each clip once.

    To have equally many clips, processes may evaluate some of each other's; what is computed from logits leaves
    these out.

    Args:
        metrics: Names of metrics; see `avex.training.metrics`.
        loss: Of logits and targets; None takes the objective's own mean over batches.
        rank: Number of this process.
        world_size: Number of processes, of which each evaluates every `world_size`-th clip.
    """

    def __init__(
        self,
        metrics: Sequence[str],
        loss: ClassificationLoss | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.metrics = tuple(metrics)
        self.loss = loss
        self.rank, self.world_size = rank, world_size
        self._sums: _Weighted = {}
        self._table: ScoreTable | None = None

    def add(self, output: LossOutput, index: Sequence[int]) -> None:
        """Add a batch.

        Args:
            output: Of the objective.
            index: Numbers of the clips.
        """
        logs = {**output.logs, "loss": output.loss}
        if "logits" in output.outputs:
            self._add_logits(output.outputs, index)
            if self.loss is not None:
                del logs["loss"]
        self._add(logs, len(index))

    def compute(self) -> dict[str, float]:
        """Metrics of everything that was added, on every process."""
        values = _means(gather_objects(self._sums))
        if self._table is not None:
            values |= compute_metrics(self.metrics, self._table)
        return values

    def _add_logits(self, outputs: Mapping[str, Tensor], index: Sequence[int]) -> None:
        if self._table is None:
            self._table = ScoreTable()
        own = [row for row, clip in enumerate(index) if clip % self.world_size == self.rank]
        logits, targets = outputs["logits"][own], outputs["targets"][own]
        if not own:
            return
        self._table.add(logits.float().cpu().numpy(), targets.cpu().numpy())
        if self.loss is not None:
            self._add({"loss": self.loss(logits, targets)}, self.loss.total_weight(targets))

    def _add(self, values: Mapping[str, Tensor], weight: float) -> None:
        for name, value in values.items():
            total, weights = self._sums.get(name, (0.0, 0.0))
            self._sums[name] = total + weight * float(value), weights + weight


def _means(parts: Sequence[_Weighted]) -> dict[str, float]:
    names = dict.fromkeys(name for part in parts for name in part)
    sums = {name: [part[name] for part in parts if name in part] for name in names}
    return {name: sum(v for v, _ in pairs) / sum(w for _, w in pairs) for name, pairs in sums.items()}
