"""Few shots: how good is a linear probe that learned from n clips per class?"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from avex.configs import ProbeConfig
from avex.evaluation.modes.base import Context, Outcome
from avex.evaluation.modes.probe import scores_of
from avex.evaluation.predicting import predict_rounds
from avex.evaluation.tasks import Indices, Round, Task
from avex.metrics import Score
from avex.training.probes.fitting import Recipe
from avex.training.probes.options import FitOptions

# A handful of clips cannot choose a regularisation.
STRENGTH = 0.1
# 97.5 % points of Student's t by degrees of freedom.
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
_T_MANY = 2.0


def run(context: Context) -> Outcome:
    """Draw n clips of each class `seeds` times; the interval is that of the mean over the draws.

    A class with fewer training clips gives all of them; numbers that no class has are left out. The probe is
    linear, with a fixed regularisation, on the last layer chosen.
    """
    settings = context.config.few_shot
    x = context.stored().vectors(context.layers[-1])
    options = FitOptions(strength=STRENGTH, resamples=0)
    recipe = Recipe(ProbeConfig(target_layers=["embeddings"]), options, None, context.seed, context.device)
    quick = context.config.model_copy(update={"bootstrap_samples": 0})
    plain = replace(context, config=quick)
    curve: list[dict[str, Any]] = []
    scores: dict[str, Score] = {}
    main = ""
    for shots in _possible(context.task, settings.shots):
        values = []
        for draw in range(settings.seeds):
            chosen = _Draw(context.task, shots, (context.seed, draw, shots))
            found = predict_rounds(context.task, x, recipe, chosen)
            metrics, metric = scores_of(plain, found)
            values.append(metrics[metric].value)
        main = f"fewshot_{shots}_{metric}"
        scores[main] = mean_interval(values)
        score = scores[main]
        curve.append(
            {"shots": shots, "value": score.value, "low": score.low, "high": score.high, "values": values}
        )
    return Outcome(scores, main, {"shots": curve, "layer": context.layers[-1]})


def _possible(task: Task, shots: list[int]) -> list[int]:
    """Numbers of shots that at least one class has in every round; at least the smallest."""
    table = task.targets().table()
    most = min(int(table[round_.train].sum(0).max()) for round_ in task.rounds())
    ascending = sorted(set(shots))
    return [count for count in ascending if count <= most] or ascending[:1]


def mean_interval(values: list[float]) -> Score:
    """Mean of a few shares with its 95 % interval by Student's t, cut off at 0 and 1.

    Example:
        >>> score = mean_interval([0.60, 0.61])
        >>> round(score.value, 3), round(score.high - score.value, 4)
        (0.605, 0.0635)
    """
    mean, count = float(np.mean(values)), len(values)
    if count < 2:
        return Score(mean, math.nan, math.nan)
    t = _T[count - 2] if count - 2 < len(_T) else _T_MANY
    half = t * float(np.std(values, ddof=1)) / math.sqrt(count)
    return Score(mean, max(0.0, mean - half), min(1.0, mean + half))


class _Draw:
    """Training clips of a round: `shots` of each class."""

    def __init__(self, task: Task, shots: int, seed: tuple[int, ...]) -> None:
        self._table: npt.NDArray[np.uint8] = task.targets().table()
        self._shots = shots
        self._seed = seed

    def __call__(self, round_: Round) -> Indices:
        """See `predict_rounds`."""
        rng = np.random.default_rng((*self._seed, *map(ord, round_.name)))
        order = rng.permutation(round_.train)
        picked: set[int] = set()
        for column in self._table.T:
            of_class = order[column[order] == 1]
            picked.update(int(i) for i in of_class[: self._shots])
        return np.array(sorted(picked), np.int64)
