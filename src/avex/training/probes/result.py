"""What a fit gives: the probe, how good it is, and everything that says how it came about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from avex._core.version import __version__
from avex.configs.probe import ProbeConfig
from avex.detection.scores import sigmoid, softmax
from avex.embedding.stores import StoreHeader
from avex.metrics import ClassScores, ScoreSet, class_scores, confusion_matrix, score_predictions
from avex.models.probes import Probe, save_probe
from avex.training.probes.examples import Examples, as_features
from avex.training.probes.loop import Epoch, predict_logits
from avex.training.probes.options import FitOptions
from avex.training.probes.strength import StrengthChoice
from avex.training.probes.targets import Targets

# What of a store's header a probe must know to be used on new recordings.
_HEADER_FIELDS = ("sample_rate", "resampler", "window_s", "hop_s", "channel", "precision", "pooling")
THRESHOLD = 0.5


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Predictions for examples that the probe did not learn from, and their metrics.

    Attributes:
        names: (N) name of each example.
        targets: What they are.
        probabilities: (N, C) what the probe says.
        metrics: Name to value with its confidence interval.
    """

    names: tuple[str, ...]
    targets: Targets
    probabilities: npt.NDArray[np.float32]
    metrics: ScoreSet

    @classmethod
    def of(
        cls, examples: Examples, probabilities: npt.NDArray[np.float32], *, resamples: int, seed: int
    ) -> Evaluation:
        """Score predictions; examples of one file are resampled as one."""
        grouped = len(set(examples.groups)) < len(examples.groups)
        metrics = score_predictions(
            examples.targets.values,
            probabilities,
            classes=examples.targets.classes,
            groups=[str(group) for group in examples.groups] if grouped else None,
            resamples=resamples,
            seed=seed,
            threshold=THRESHOLD,
        )
        return cls(examples.names, examples.targets, probabilities, metrics)

    @property
    def confusion(self) -> npt.NDArray[np.int64] | None:
        """(C, C) counts, true classes in rows; None for several labels per example."""
        if self.targets.task == "multi-label":
            return None
        return confusion_matrix(self.targets.values, self.probabilities.argmax(1), len(self.targets.classes))

    @property
    def per_class(self) -> tuple[ClassScores, ...]:
        """Precision, recall and F1 of each class (several labels: from a probability of 0.5 on)."""
        if self.targets.task == "multi-label":
            said = self.probabilities >= THRESHOLD
        else:
            said = self.probabilities.argmax(1)[:, None] == np.arange(len(self.targets.classes))
        return class_scores(self.targets.table(), said, self.targets.classes)


@dataclass(frozen=True, eq=False)
class ProbeFit:
    """A trained probe and the evidence for it.

    Attributes:
        probe: The probe, in eval mode, for embeddings.
        classes: Names, in the order of the logits.
        task: `single-label` or `multi-label`.
        config: What was built.
        options: How it was trained.
        seed: Of everything random.
        sizes: Examples in each part (`train`, `validation`, `test`, or `out of fold`).
        evaluation: Predictions and metrics of the test part, or out of fold; None without either.
        fold_metrics: Metric values of each fold, if it was cross-validated.
        history: Epochs, of heads that are trained in mini-batches.
        strength: What was found for a linear probe whose regularisation was not given.
        header: Settings of the store that the embeddings are from.
        unit: What an example is: a recording, or a window.
        is_sequence: Whether an example is a sequence of vectors.
        notes: What was left out, for people.
        seconds: How long it took.
    """

    probe: Probe
    classes: tuple[str, ...]
    task: str
    config: ProbeConfig
    options: FitOptions
    seed: int
    sizes: Mapping[str, int]
    evaluation: Evaluation | None
    seconds: float
    fold_metrics: tuple[Mapping[str, float], ...] = ()
    history: tuple[Epoch, ...] = ()
    strength: StrengthChoice | None = None
    header: StoreHeader | None = None
    unit: str = "window"
    is_sequence: bool = False
    notes: tuple[str, ...] = field(default=())

    @property
    def metrics(self) -> Mapping[str, Any]:
        """Metrics of the test part, or out of fold: name to value with its interval; empty without either."""
        return {} if self.evaluation is None else self.evaluation.metrics

    @property
    def confusion(self) -> npt.NDArray[np.int64] | None:
        """(C, C) counts of the evaluation, true classes in rows; None for several labels."""
        return None if self.evaluation is None else self.evaluation.confusion

    @property
    def per_class(self) -> tuple[ClassScores, ...]:
        """Precision, recall and F1 of each class in the evaluation."""
        return () if self.evaluation is None else self.evaluation.per_class

    def predict_proba(self, embeddings: Any) -> npt.NDArray[np.float32]:
        """Probabilities (N, C) of embeddings: (N, D), (N, T, D) or a list of (T, D)."""
        return probabilities(predict_logits(self.probe, as_features(embeddings)), self.task)

    def predict(self, embeddings: Any) -> list[str] | list[tuple[str, ...]]:
        """The class of each embedding; for several labels those with a probability of at least 0.5."""
        scores = self.predict_proba(embeddings)
        if self.task == "single-label":
            return [self.classes[int(i)] for i in scores.argmax(1)]
        return [tuple(np.array(self.classes, object)[row >= THRESHOLD]) for row in scores]

    def save(self, path: str | Path) -> None:
        """Write the probe to one `.safetensors` file, with its classes, its model and its metrics.

        Args:
            path: Target; its folder must exist.
        """
        header = self.header
        save_probe(
            self.probe,
            path,
            labels=self.classes,
            card=header.card if header else None,
            weights=header.weights_sha256 if header else None,
            metadata=self.metadata(),
        )

    def metadata(self) -> dict[str, Any]:
        """JSON values that say how the probe came about."""
        header = self.header
        stated = {} if header is None else {name: getattr(header, name) for name in _HEADER_FIELDS}
        return {
            **stated,
            "layers": None if header is None else list(header.layers),
            "task": self.task,
            "activation": "softmax" if self.task == "single-label" else "sigmoid",
            "unit": self.unit,
            "sequence": self.is_sequence,
            "seed": self.seed,
            "examples": dict(self.sizes),
            "metrics": {
                name: [_json(s.value), _json(s.low), _json(s.high)] for name, s in self.metrics.items()
            },
            "strength": self.options.strength if self.strength is None else self.strength.strength,
            "avex_version": __version__,
        }

    def report(self, folder: str | Path) -> list[Path]:
        """Write a report: `report.html` (one file, no requests), `confusion.png` and tables as CSV.

        Args:
            folder: Created if needed.

        Returns:
            The files.

        Raises:
            MissingExtraError: matplotlib is not installed.
        """
        from avex.training.probes.report import write_report

        return write_report(self, Path(folder))


def probabilities(logits: npt.NDArray[np.float32], task: str) -> npt.NDArray[np.float32]:
    """Softmax for classes that exclude each other, else sigmoid."""
    return (softmax(logits) if task == "single-label" else sigmoid(logits)).astype(np.float32)


def mean_and_deviation(fold_metrics: Sequence[Mapping[str, float]]) -> dict[str, tuple[float, float]]:
    """Mean of each metric over folds, and its standard deviation (n - 1)."""
    names = fold_metrics[0] if fold_metrics else ()
    values = {name: np.array([fold[name] for fold in fold_metrics]) for name in names}
    return {
        name: (float(v.mean()), float(v.std(ddof=1)) if len(v) > 1 else 0.0) for name, v in values.items()
    }


def _json(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
