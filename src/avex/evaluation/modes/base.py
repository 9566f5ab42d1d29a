"""The contract between the runner and the modes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from avex._core.registry import load_attribute
from avex.configs import ProbeConfig
from avex.configs.evaluation import EvaluateConfig
from avex.evaluation.results import Saved
from avex.evaluation.tasks import Task
from avex.metrics import Score
from avex.models.base_model import ModelBase
from avex.training.probes.examples import Features
from avex.training.probes.options import FitOptions

Floats = npt.NDArray[np.float32]

MODES: Mapping[str, str] = {
    "probe": "avex.evaluation.modes.probe:run",
    "finetune": "avex.evaluation.modes.online:run",
    "retrieval": "avex.evaluation.modes.retrieval:run",
    "clustering": "avex.evaluation.modes.clustering:run",
    "fewshot": "avex.evaluation.modes.fewshot:run",
    "knn": "avex.evaluation.modes.knn:run",
}
"""Mode to the function that runs it."""


class Embeddings(Protocol):
    """Embeddings of a task's clips, from the cache."""

    def vectors(self, layer: str) -> Floats:
        """(N, D) of a layer."""
        ...

    def sequences(self, layer: str) -> list[Floats]:
        """N sequences (T, D) of a layer that is stored without pooling."""
        ...


@dataclass(frozen=True)
class Context:
    """All that a mode may use.

    Attributes:
        task: The task.
        embeddings: Embeddings of its clips; None for modes that train through the model.
        layers: Names of the layers that the experiment reads, in order.
        probe: The experiment's probe.
        config: The evaluation.
        device: Where to train.
        seed: Of everything random.
        load_model: Loads the model anew, with its weights; for modes that train it.
        resampler: Resampler of the model.
    """

    task: Task
    embeddings: Embeddings | None
    layers: tuple[str, ...]
    probe: ProbeConfig
    config: EvaluateConfig
    device: str
    seed: int
    load_model: Callable[[], ModelBase]
    resampler: Any = "soxr_hq"

    def stored(self) -> Embeddings:
        """The embeddings, which a mode that asks for them was given."""
        assert self.embeddings is not None
        return self.embeddings

    def features(self) -> Features:
        """What the experiment's probe reads: layers side by side, or the sequence of its only layer."""
        stored = self.stored()
        if self.probe.reads_sequences:
            return stored.sequences(self.layers[-1])
        return np.concatenate([stored.vectors(layer) for layer in self.layers], axis=1)

    def tested_groups(self, clips: npt.NDArray[np.int64]) -> list[str]:
        """Groups of some clips."""
        groups = self.task.groups
        return [groups[int(i)] for i in clips]

    def fit_options(self) -> FitOptions:
        """How heads are trained, as the evaluation says."""
        params = self.config.training_params
        return FitOptions(
            epochs=params.train_epochs,
            batch_size=params.batch_size,
            learning_rate=params.lr,
            weight_decay=params.weight_decay,
            max_grad_norm=params.gradient_clip_val or 1.0,
            resamples=0,
        )


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a mode found.

    Attributes:
        scores: Metric to value with interval.
        main_metric: The one that counts.
        details: Further findings as JSON values.
        saved: Predictions, of modes that have any.
        train: Metrics of the training and validation parts, for the summary.
    """

    scores: Mapping[str, Score]
    main_metric: str
    details: Mapping[str, Any] = field(default_factory=dict)
    saved: Saved | None = None
    train: Mapping[str, float] = field(default_factory=dict)


def run_mode(mode: str, context: Context) -> Outcome:
    """Run a mode."""
    run: Any = load_attribute(MODES[mode])
    found: Outcome = run(context)
    return found


def not_applicable(mode: str, task: Task) -> str | None:
    """Why a mode makes no sense for a task; None if it does."""
    if mode == "clustering" and task.multi_label:
        return "clusters are compared with one label per clip, and this task has several"
    if mode == "clustering" and len(task.tested()) <= len(task.classes):
        return "there are no more clips than classes"
    return None


def round_scores(rounds: Sequence[str], score: Callable[[npt.NDArray[np.int64]], float]) -> dict[str, float]:
    """A metric in each round."""
    names = np.array(rounds)
    return {str(name): score(np.flatnonzero(names == name)) for name in dict.fromkeys(rounds)}
